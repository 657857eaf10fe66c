"""VideoExpert's temporal expert head: from the frame states and one ``<LOC>`` state to where the moment is.

A frame is a point in time: frame i of n stands for tau = (i + 0.5) / n. All times here are fractions of the duration.
Shape suffixes: N ``<LOC>`` tokens, T frames, D width, H width of the convolutions, S spans. Frames are padded behind.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metrics.spans import iou

TYPICAL_OFFSET = 0.12
"""About half the length of an annotated moment, as a fraction of the duration: where offsets begin."""
SATURATED = 1e-4
"""A sigmoid with a slope below this learns nothing any more."""


@dataclass(frozen=True, eq=False)
class HeadOutput:
    """What the head says about every frame. Padded frames hold numbers without a meaning."""

    logits: Tensor
    """(N, T) float32 of being inside the moment."""
    offsets: Tensor
    """(N, T, 2) float32 distances from the frame back to the start and on to the end, in (0, 1)."""
    mask: Tensor
    """(N, T) true where a frame is real."""

    @property
    def probability(self) -> Tensor:
        """(N, T) of being inside the moment; 0 for padded frames."""
        return self.logits.sigmoid().masked_fill(~self.mask, 0)

    @property
    def ends(self) -> Tensor:
        """(N, T, 2) start and end that every frame predicts, possibly outside [0, 1]."""
        return frame_centres(self.mask)[..., None] + self.offsets * self.offsets.new_tensor([-1.0, 1.0])

    @property
    def saturated(self) -> bool:
        """Whether the sigmoid of every offset is: then boundaries have no gradient, and no training moves them."""
        slopes = (self.offsets * (1 - self.offsets))[self.mask]
        return bool(len(slopes)) and bool(slopes.max() < SATURATED)

    @property
    def spans(self) -> Tensor:
        """(N, T, 2) the same inside [0, 1]; what is shorter than a frame becomes the frame."""
        ends, centres = self.ends.clamp(0, 1), frame_centres(self.mask)[..., None]
        frame = 1 / self.mask.sum(-1).clamp(min=1)[:, None, None]
        short = ends[..., 1:] - ends[..., :1] < frame
        return torch.where(short, centres + frame * ends.new_tensor([-0.5, 0.5]), ends)


class TemporalHead(nn.Module):
    """Interaction, indicator branch and boundary branch (VideoExpert, section III-B, eq. 10 and Table VI).

    Args:
        width: D, of the states.
        interaction: how the ``<LOC>`` state meets the frames: ``add`` to each; ``concat``, a linear layer on both;
            ``attention``, one residual self-attention layer over the ``<LOC>`` state and all frames; ``none``.
        head_dim: H; None: D as in the paper, else a linear layer comes before the branches. 1024 spares most of the
            200 million parameters that two branches have at a width of 4096.
        attention_heads: of ``attention``; must divide D.
    """

    def __init__(
        self,
        width: int,
        interaction: Literal["add", "concat", "attention", "none"] = "add",
        head_dim: int | None = None,
        attention_heads: int = 8,
    ):
        super().__init__()
        if interaction not in ("add", "concat", "attention", "none"):
            raise ValueError(f"unknown interaction {interaction!r}: use add, concat, attention or none")
        if interaction == "attention" and width % attention_heads:
            raise ValueError(f"{attention_heads} attention heads do not divide a width of {width}")
        self.interaction = interaction
        if interaction != "none":
            self.loc = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))
        if interaction == "concat":
            self.join = nn.Linear(2 * width, width)
        if interaction == "attention":
            self.attention = nn.MultiheadAttention(width, attention_heads, batch_first=True)
        self.reduce = nn.Identity() if head_dim is None else nn.Linear(width, head_dim)
        self.indicator = Branch(head_dim or width, 1)
        self.boundary = Branch(head_dim or width, 2)
        # With torch's own first values a <LOC> would weigh a tenth of a frame, and training would not see it for long.
        keep_scale(*([] if interaction == "none" else [self.loc[0], self.loc[2]]))
        keep_scale(*self.indicator.layers[:2], *self.boundary.layers[:2])
        # States of a real language model are large and nearly alike: random last layers would saturate every sigmoid.
        say_always(self.indicator.layers[2], 0.5)
        say_always(self.boundary.layers[2], TYPICAL_OFFSET)

    def forward(self, frames: Tensor, loc: Tensor, mask: Tensor) -> HeadOutput:
        """Read every ``<LOC>`` alone, against the frames of its video.

        Args:
            frames: (N, T, D) frame states.
            loc: (N, D) states of the ``<LOC>`` tokens; N may be 0.
            mask: (N, T), true where a frame is real.

        Raises:
            ValueError: shapes do not fit each other, a video has no frames, or padding is not behind them.
        """
        if frames.shape[:2] != mask.shape or loc.shape != (frames.shape[0], frames.shape[2]):
            raise ValueError(
                f"frames {tuple(frames.shape)}, <LOC> states {tuple(loc.shape)} and mask {tuple(mask.shape)} do not fit"
            )
        if not mask[:, :1].all() or (mask[:, 1:] > mask[:, :-1]).any():
            raise ValueError("every video needs frames, and padding behind them, not in front or between")
        dtype = self.indicator.layers[0].weight.dtype
        mixed = self.reduce(self._interact(frames.to(dtype), loc.to(dtype), mask))
        logits, offsets = self.indicator(mixed, mask).float(), self.boundary(mixed, mask).float()
        return HeadOutput(logits[..., 0], offsets.sigmoid(), mask)

    def _interact(self, frames: Tensor, loc: Tensor, mask: Tensor) -> Tensor:
        if self.interaction == "none":
            return frames
        loc = self.loc(loc)[:, None]
        if self.interaction == "add":
            return frames + loc
        if self.interaction == "concat":
            return self.join(torch.cat([frames, loc.expand_as(frames)], dim=-1))
        both = torch.cat([loc, frames], dim=1)
        padded = F.pad(~mask, (1, 0), value=False) if len(mask) else None  # torch fails on a mask of no rows
        return frames + self.attention(frames, both, both, key_padding_mask=padded, need_weights=False)[0]


class Branch(nn.Module):
    """Three convolutions over time with ReLU between them; padded frames count as zero in each."""

    def __init__(self, width: int, channels: int):
        super().__init__()
        sizes = (width, width, width, channels)
        self.layers = nn.ModuleList(
            nn.Conv1d(size, after, kernel_size=3, padding=1) for size, after in zip(sizes, sizes[1:], strict=False)
        )

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        """(N, T, H) to (N, T, channels)."""
        states, real = frames.transpose(1, 2), mask[:, None].to(frames.dtype)
        for number, layer in enumerate(self.layers):
            states = layer((states.relu() if number else states) * real)
        return states.transpose(1, 2)


def keep_scale(*layers: nn.Module) -> None:
    """First values with which the output of a layer is as large as its input (He et al., 2015)."""
    for layer in layers:
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        nn.init.zeros_(layer.bias)


def say_always(layer: nn.Module, probability: float) -> None:
    """First values with which the sigmoid of a layer's output is ``probability``, whatever its input."""
    nn.init.zeros_(layer.weight)
    nn.init.constant_(layer.bias, math.log(probability / (1 - probability)))


def frame_centres(mask: Tensor) -> Tensor:
    """(N, T) float32 times tau of the frames of each row of a mask (N, T)."""
    return (torch.arange(mask.shape[1], device=mask.device) + 0.5) / mask.sum(-1, keepdim=True).clamp(min=1)


def frame_targets(windows: np.ndarray, frames: int) -> tuple[np.ndarray, np.ndarray]:
    """What a head should say about one ``<LOC>``.

    A frame is foreground if it lies in any window; then the shortest window that contains it is its target. A window
    too short to contain a frame gets the one nearest to its centre.

    Args:
        windows: (S, 2) start and end as fractions of the duration, at least one.
        frames: T.

    Returns:
        foreground (T,) bool and target windows (T, 2) float32, zero outside the foreground.

    Raises:
        ValueError: no windows, or one that is not inside the video.
    """
    windows = np.asarray(windows, dtype=np.float64)
    if windows.ndim != 2 or windows.shape[-1:] != (2,) or not len(windows) or frames < 1:
        raise ValueError(f"targets need windows (S, 2) and frames, got {windows.shape} and {frames} frames")
    start, end = windows.T
    if not ((start >= 0) & (start <= end) & (end <= 1)).all():
        raise ValueError(f"windows must be fractions 0 <= start <= end <= 1 of the duration, got {windows.tolist()}")
    centres = (np.arange(frames) + 0.5) / frames
    inside = (start[:, None] <= centres) & (centres <= end[:, None])
    empty = np.flatnonzero(~inside.any(axis=1))
    inside[empty, np.abs(centres - (start + end)[empty, None] / 2).argmin(axis=1)] = True
    shortest = np.where(inside, (end - start)[:, None], np.inf).argmin(axis=0)
    foreground = inside.any(axis=0)
    return foreground, np.where(foreground[:, None], windows[shortest], 0).astype(np.float32)


def indicator_loss(output: HeadOutput, foreground: Tensor, background_weight: float = 1.0) -> Tensor:
    """Binary cross-entropy of the foreground, the mean over frames and then over ``<LOC>``s; 0 without any.

    Args:
        output: of N ``<LOC>``s.
        foreground: (N, T) bool.
        background_weight: of frames outside the moment; UniVTG takes 0.1.
    """
    weight = torch.where(foreground, 1.0, background_weight)
    loss = F.binary_cross_entropy_with_logits(output.logits, foreground.float(), weight=weight, reduction="none")
    means = loss.masked_fill(~output.mask, 0).sum(-1) / output.mask.sum(-1)
    return means.sum() / max(len(means), 1)


def boundary_losses(output: HeadOutput, foreground: Tensor, windows: Tensor) -> tuple[Tensor, Tensor]:
    """Smooth L1 of both ends, summed, and 1 - GIoU: means over all foreground frames; 0 without any.

    Args:
        output: of N ``<LOC>``s.
        foreground: (N, T) bool.
        windows: (N, T, 2) target of every foreground frame.
    """
    predicted, target = output.ends[foreground], windows[foreground]
    count = max(len(predicted), 1)
    smooth_l1 = F.smooth_l1_loss(predicted, target, reduction="sum")
    return smooth_l1 / count, (1 - giou(predicted, target)).sum() / count


def giou(a: Tensor, b: Tensor) -> Tensor:
    """Generalised IoU of windows (..., 2), in (-1, 1]: IoU - (hull - union) / hull. Two equal points have 0.

    Source: Rezatofighi et al., Generalized Intersection over Union, 2019, in one dimension.
    """
    overlap = (torch.minimum(a[..., 1], b[..., 1]) - torch.maximum(a[..., 0], b[..., 0])).clamp(min=0)
    union = (a[..., 1] - a[..., 0]) + (b[..., 1] - b[..., 0]) - overlap
    hull = torch.maximum(a[..., 1], b[..., 1]) - torch.minimum(a[..., 0], b[..., 0])
    return _ratio(overlap, union) - _ratio(hull - union, hull)


def _ratio(above: Tensor, below: Tensor) -> Tensor:
    """A quotient that is 0, with a finite gradient, where both are 0."""
    return above / torch.where(below > 0, below, 1)


def best_spans(output: HeadOutput) -> tuple[Tensor, Tensor]:
    """The span of each ``<LOC>``'s most probable frame: spans (N, 2) and their probabilities (N,).

    Raises:
        ValueError: a probability is not finite.
    """
    if not torch.isfinite(output.probability).all():
        raise ValueError("the temporal head gives probabilities that are not finite: its weights or inputs are broken")
    scores, best = output.probability.max(dim=-1)
    return output.spans[torch.arange(len(best), device=best.device), best], scores


def ranked_spans(
    spans: np.ndarray, scores: np.ndarray, overlap: float = 0.7, limit: int = 10
) -> tuple[np.ndarray, np.ndarray]:
    """The best spans, none of which overlaps a better one by an IoU of more than ``overlap``.

    Args:
        spans: (T, 2).
        scores: (T,).
        overlap: IoU above which the worse of two spans is left out.
        limit: number of spans to keep.

    Returns:
        spans (S, 2) and scores (S,), best first; at equal scores the earlier frame first.
    """
    order = np.argsort(-np.asarray(scores), kind="stable")
    spans, scores = np.asarray(spans)[order], np.asarray(scores)[order]
    too_close = iou(spans, spans) > overlap
    kept: list[int] = []
    left = np.ones(len(spans), dtype=bool)
    while left.any() and len(kept) < limit:
        kept.append(int(left.argmax()))
        left &= ~too_close[kept[-1]]
        left[kept[-1]] = False
    return spans[kept], scores[kept]


def saliency_at(scores: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Probabilities (T,) of the frames, linearly interpolated at other times (fractions); constant before and after."""
    return np.interp(times, (np.arange(len(scores)) + 0.5) / len(scores), scores)
