"""Similarity maps of structural tokens to segments and saliency.

Times are in frames. Source: MeCo, section 3.3 and Eq. 3, and the released evaluation.

Shape suffixes: J structural tokens, T frames.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

Rule = Literal["charades", "etbench", "qvhighlights", "argmax"]
"""How maps are cut. ``charades`` and ``etbench``: frames near an event's maximum which no other token wins, widened by
one frame on both sides, scored by probability or by cosine. ``qvhighlights``: frames near the maximum alone; the rule
for models without transition tokens. ``argmax``: the frames that the token wins, as the paper has it."""
NMS_IOU = 0.7


@dataclass(frozen=True)
class Segment:
    """A stretch of frames that belongs to an event."""

    start: float
    end: float
    score: float
    event: int
    """Number of the event among the answer's events."""


def probabilities(maps: Tensor, scale: float) -> Tensor:
    """Softmax (J, T) over the frames of cosine maps (J, T)."""
    return (scale * maps).softmax(-1)


def segments(
    maps: Tensor, is_event: Sequence[bool], scale: float, rule: Rule, threshold: float = 0.7, legacy: bool = False
) -> list[Segment]:
    """The segments of all events, best first.

    Args:
        maps: (J, T) cosines, in the order of the tokens.
        is_event: J; False for transition tokens.
        scale: factor of the cosines, the learned temperature.
        rule: how maps are cut.
        threshold: share of the way from a map's minimum to its maximum.
        legacy: keep suppressed segments, with score 0, as the released code does.

    Raises:
        ValueError: a map holds NaN.
    """
    if maps.isnan().any():
        raise ValueError("a similarity map holds NaN")
    maps = maps.float()
    chances = probabilities(maps, scale)
    scores = maps if rule == "etbench" else chances
    found = []
    for number, token in enumerate(torch.tensor(is_event).nonzero().flatten().tolist()):
        keep = frames_of(token, maps, chances, rule, threshold)
        for first, last in runs(keep):
            if rule == "argmax":
                start, end = first, last + 1
            else:
                start, end = first, (last if last > first else first + 1)
            score = scores[token, start : min(end, len(keep) - 1) + 1].max().item()
            found.append(Segment(float(start), float(end), score, number))
    return suppress(found, legacy)


def frames_of(token: int, maps: Tensor, chances: Tensor, rule: Rule, threshold: float) -> Tensor:
    """Frames (T,) of one event, by a rule."""
    others = torch.cat([chances[:token], chances[token + 1 :]])
    wins = (chances[token] >= others.max(0).values) if len(others) else torch.ones_like(maps[token], dtype=torch.bool)
    if rule == "argmax":
        return wins
    low, high = maps[token].min(), maps[token].max()
    keep = (maps[token] - low) / (high - low) > threshold  # NaN, and so no frame, where the map is constant
    if rule == "qvhighlights":
        return keep
    keep = keep & wins
    wide = keep.clone()
    wide[1:] |= keep[:-1]
    wide[:-1] |= keep[1:]
    return wide


def runs(keep: Tensor) -> list[tuple[int, int]]:
    """First and last frame of each run of True in (T,)."""
    edges = torch.diff(torch.nn.functional.pad(keep.int(), (1, 1)))
    firsts, behind = ((edges == step).nonzero().flatten().tolist() for step in (1, -1))
    return [(first, end - 1) for first, end in zip(firsts, behind, strict=True)]


def suppress(found: list[Segment], legacy: bool) -> list[Segment]:
    """Greedy non-maximum suppression at an IoU of 0.7, best first."""
    rest, kept, dropped = list(found), [], []
    while rest:
        best = max(rest, key=lambda segment: segment.score)
        rest.remove(best)
        kept.append(best)
        dropped += [s for s in rest if overlap(best, s) >= NMS_IOU]
        rest = [s for s in rest if overlap(best, s) < NMS_IOU]
    if legacy:
        kept += [Segment(s.start, s.end, 0.0, s.event) for s in dropped]
    return sorted(kept, key=lambda segment: -segment.score)


def overlap(a: Segment, b: Segment) -> float:
    """IoU of two segments."""
    common = max(0.0, min(a.end, b.end) - max(a.start, b.start))
    return common / (a.end - a.start + b.end - b.start - common)


def saliency(maps: Tensor, is_event: Sequence[bool], scale: float) -> Tensor:
    """Mean probability (T,) of each frame over the events; zeros without an event."""
    chances = probabilities(maps.float(), scale)[torch.tensor(is_event, dtype=torch.bool)]
    return chances.mean(0) if len(chances) else torch.zeros(maps.shape[1])


def clip_means(saliency: Sequence[float], clips: int, length: float, edges: np.ndarray | None = None) -> list[float]:
    """Mean saliency of each of ``clips`` clips that follow one another; what lies behind the last frame counts 0.

    Args:
        saliency: T scores.
        clips: how many.
        length: of a clip, in frames, or in the unit of ``edges``.
        edges: (T + 1,) where each frame begins, and the last one ends. None: frame k at k.
    """
    edges = np.arange(len(saliency) + 1) if edges is None else edges
    starts = np.arange(clips)[:, None] * length
    shared = np.minimum(starts + length, edges[1:]) - np.maximum(starts, edges[:-1])
    shares = (shared / length).clip(0).round(9)  # metrics see ties: clips within one frame have the very same mean
    return (shares @ np.asarray(saliency, dtype=float)).tolist()
