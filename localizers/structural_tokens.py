"""MeCo: captions with structural tokens, ``<tst>`` for background and ``<ent>`` for events, tied to their frames.

Shape suffixes: B dialogues, T frames, L tokens, J structural tokens, D width.
"""

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby
from random import Random
from typing import ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from datamodules.chat import IGNORE
from datamodules.clip import Clip
from datamodules.markup import Text, any_of, literal, mark, without
from datamodules.prediction import Prediction, Strip
from datamodules.rendered import Rendered
from datamodules.schema import Event, Query, Turn
from datamodules.turns import sentence
from localizers.absence import NO_MOMENT, NONE, says_none
from localizers.answer import Answer
from localizers.base import MARKED_SPAN, Localizer, StatePoint, marked_event
from localizers.frame_matching import VID, frame_tokens
from localizers.similarity_maps import ALONE, Rule, clip_means, saliency, segments
from localizers.structural_windows import ENT, TST, covered, interleave, partition, transitions
from localizers.telling import Captions, telling
from models.structural_head import StructuralHead

TIMES = re.compile(rf",?\s*(?:and\s+)?(?:from\s+)?{MARKED_SPAN},?")
SENTENCE_END = re.compile(r"[.!?](?=\s|$)|$")
ENTS = any_of([ENT])
Frames = tuple[int, int]
"""First and last frame of a stretch."""


@dataclass(frozen=True)
class StructuralTargets:
    """The frames of an answer's tokens, in the order in which it writes them."""

    events: tuple[Frames, ...]
    transitions: tuple[Frames, ...]


@dataclass(frozen=True)
class StructuralTokens(Localizer):
    """Times as similarity maps of tokens over frames.

    Source: MeCo, section 3; where paper and released code differ, the code.
    """

    special_tokens: ClassVar[tuple[str, ...]] = (VID, ENT, TST)
    time_tokens: ClassVar[tuple[str, ...]] = (VID,)
    no_moment: ClassVar[str] = NO_MOMENT
    states: ClassVar[tuple[StatePoint, ...]] = ("before_last_layer", "before_norm")
    decoding: ClassVar[tuple[str, ...]] = ("rule", "threshold", "legacy", "legacy_first_step")

    captions: Captions = "query_focused"
    """What stands before an event token."""
    transitions: Literal["released", "partition", "none"] = "released"
    """Background that gets a token: by the released thresholds, all of it without overlap (the paper), or none."""
    bidirectional: bool = True
    joint: bool = False
    """Average the loss over all tokens together (Eq. 2), not over events and transitions apart."""
    symmetric: bool = False
    """Add the loss of frames choosing among tokens; the paper found it unstable."""
    rule: Rule = "argmax"
    """How maps are cut into segments."""
    threshold: float = 0.7
    """Of the rules that have one: a share of the way from a map's minimum to its maximum, or a cosine."""
    max_scale: float | None = None
    """Bound of the learned temperature's factor."""
    legacy: bool = False
    """Decode as the released evaluation: suppressed segments stay; where there is no segment, ``charades`` and
    ``qvhighlights`` give the whole video."""
    legacy_first_step: bool = False
    """Take the map of the first token from the first token of the prompt, as the released inference does by mistake."""
    token_init: Literal["mean", "released"] = "mean"

    def __post_init__(self):
        if self.transitions == "none" and self.rule not in ALONE:
            raise ValueError(
                f"rule {self.rule} lets tokens compete for frames, which transitions: none leaves to the events alone; "
                f"choose rule {' or '.join(ALONE)} (when a trained model is asked: --localizer.rule)"
            )

    def head(self, width: int) -> StructuralHead:
        """The projections and the temperature."""
        return StructuralHead(width, self.max_scale)

    def render(self, turn: Turn, clip: Clip, random: Random) -> Rendered:
        """Write events as captions with tokens.

        Times in a question become ``<vid>`` tokens that refer to frames; times in a literal answer become events.

        Raises:
            ValueError: a literal answer has another number of event tokens than events, or fewer texts.
        """
        question, moments = frame_tokens(turn.question, turn.times, clip)
        events, texts, answer = self._texts(turn)
        if not events:
            return Rendered(question, answer, moments=moments)
        found, between = self._frames(events, clip)
        targets = StructuralTargets(found, tuple(between[number] for number in sorted(between)))
        return Rendered(question, interleave(texts, list(between)), targets, moments)

    def read_back(self, head, inputs: Tensor, moments: Tensor, frames: Tensor, rows: Tensor) -> Tensor:
        """A ``<vid>`` of a question is read with the input vector of its frame added."""
        return inputs + frames[rows, moments[:, 0].round().long()]

    def _texts(self, turn: Turn) -> tuple[list[Event], list[str], Text | None]:
        """The events of an answer with the text before each, or the answer without any."""
        answer = mark(turn.answer or Text(), ENTS) if turn.events else Text()
        if ENT not in answer.tokens:
            told = telling(turn, self.captions)
            if told is None:
                return self._from_markers(turn) if turn.answer else ([], [], turn.answer)
            pairs = sorted(zip(told.events, told.texts, strict=True), key=lambda pair: pair[0].span)
            texts = [sentence(text) if text else "" for _, text in pairs]
            texts[-1] = f"{texts[-1]} {told.rest}".strip()
            return [event for event, _ in pairs], texts, None
        count, pieces = answer.tokens.count(ENT), [piece.strip() for piece in answer.part(ENT) if piece.strip()]
        if count != len(turn.events) or len(pieces) < len(turn.events):
            raise ValueError(
                f"an answer with {count} {ENT} and {len(pieces)} texts between them does not fit its "
                f"{len(turn.events)} events"
            )
        last = len(turn.events) - 1
        # As released: what follows the last token moves in front of it.
        return list(turn.events), [*pieces[:last], "".join(pieces[last:])], None

    @staticmethod
    def _from_markers(turn: Turn) -> tuple[list[Event], list[str], Text]:
        """Events of a literal answer that names times: each text ends where its sentence does."""
        events, texts, said = [], [], 0
        for match in TIMES.finditer(turn.answer.meant):
            end = SENTENCE_END.search(turn.answer, match.end()).end()
            texts.append(without(TIMES, turn.answer.cut(said, end)).strip())
            events.append(marked_event(match, turn.times))
            said = end
        if events and turn.answer[said:].strip():
            texts[-1] = f"{texts[-1]} {turn.answer[said:].strip()}".strip()
        return events, texts, turn.answer

    def _frames(self, events: list[Event], clip: Clip) -> tuple[tuple[Frames, ...], dict[int, Frames]]:
        """Frames of the events, and of transitions by the number of events before them."""
        windows = [tuple(clip.even_s(time_s) * clip.frames_per_s for time_s in event.span) for event in events]
        if self.transitions == "partition":
            found, between = partition(windows, clip.frames)
            return tuple(found), between
        found = tuple(covered(window, clip.frames) for window in windows)
        if self.transitions == "none":
            return found, {}
        # Of nested events the outer one says where the background begins.
        ends = accumulate((end for _, end in windows), max)
        outer = [(start, end) for (start, _), end in zip(windows, ends, strict=True)]
        return found, {n: covered(window, clip.frames) for n, window in transitions(outer, clip.frames).items()}

    def loss(
        self, head: StructuralHead | None, states: Mapping[str, Tensor], batch, ids: Mapping[str, int]
    ) -> dict[str, Tensor]:
        """The contrastive grounding loss (MeCo, Eq. 2): the mean over dialogues with events."""
        if head is None:
            return {}
        frames = head.frames(states["before_norm"][batch.frame_mask])
        frames = frames.split(batch.frame_mask.sum(-1).tolist())
        following = F.pad(batch.labels[:, 1:], (0, 1), value=IGNORE)
        places = {kind: following == ids[token] for kind, token in (("events", ENT), ("transitions", TST))}
        tokens = {kind: head.tokens(states["before_last_layer"][place]) for kind, place in places.items()}
        # Attached to the graph also where no dialogue has an event, so that all processes reduce the same gradients.
        nothing = 0.0 * (sum(t.sum() for t in tokens.values()) + sum(f.sum() for f in frames) + head.scale)
        losses = [self._dialogue_loss(head.scale, *part) for part in dialogues(frames, tokens, places, batch)]
        return {"grounding": torch.stack(losses).mean() + nothing if losses else nothing}

    def gauges(self, head: StructuralHead | None) -> dict[str, Tensor]:
        """The temperature of the similarities."""
        return {} if head is None else {"temperature": 1 / head.scale.detach()}

    def _dialogue_loss(self, scale: Tensor, frames: Tensor, parts: list[tuple[Tensor, Tensor]]) -> Tensor:
        """Of one dialogue: ``parts`` are (tokens (J, D), targets (J, T)) of events and, if any, of transitions."""
        if self.joint:
            parts = [(torch.cat([tokens for tokens, _ in parts]), torch.cat([targets for _, targets in parts]))]
        terms = [choice(scale * tokens @ frames.T, targets) for tokens, targets in parts]
        loss = torch.stack(terms).mean()
        if self.symmetric:
            tokens, targets = (torch.cat(side) for side in zip(*parts, strict=True))
            inside = targets.sum(0) > 0
            loss = (loss + choice(scale * frames[inside] @ tokens.T, targets[:, inside].T)) / 2
        return loss

    def decode(self, query: Query, answer: Answer, clip: Clip, head: StructuralHead | None = None) -> Prediction:
        """Segments of the events' maps, best first; for a dense caption each with the text before its token."""
        spans, captions, salient, strips = [], [], (), ()
        places = [place for place, token in enumerate(answer.tokens) if token in (ENT, TST)]
        is_event = [answer.tokens[place] == ENT for place in places]
        if head is not None and any(is_event):
            maps = self.maps(answer, places, head)
            if maps.isnan().any():
                warnings.warn(f"query {query.id}: a similarity map holds NaN; counted as unparsed", stacklevel=2)
            else:
                scale = head.scale.item()
                found = segments(maps, is_event, scale, self.rule, self.threshold, self.legacy)
                salient = saliency(maps, is_event, scale).tolist()
                ends = [(clip.true_s(end / clip.frames_per_s) for end in (s.start, s.end)) for s in found]
                spans = [(*span, s.score) for span, s in zip(ends, found, strict=True)]
                texts = event_texts(answer.text, self.legacy)
                captions = [texts[segment.event] for segment in found]
                strips = event_strips(maps, is_event, texts)
        rule = f"{self.rule} on {sum(is_event)} events" if spans else None
        rule = NONE if not any(is_event) and says_none(answer.text) else rule
        if self.legacy and rule is None and self.rule in ("charades", "qvhighlights"):
            spans, salient, rule = [(0.0, clip.duration_s, 1.0)], (1.0,) * clip.frames, "whole video"
        spans = [(min(start, clip.duration_s), min(end, clip.duration_s), score) for start, end, score in spans]
        if salient and query.clip_s is not None:
            salient = saliency_of_clips(salient, query, clip)
        return Prediction(
            query_id=query.id,
            video=query.video,
            task=query.task,
            answer=answer.text,
            spans=tuple(spans),
            captions=tuple(captions) if query.task == "dense_captioning" else (),
            saliency=tuple(salient),
            rule=rule,
            strips=strips,
        )

    def maps(self, answer: Answer, places: list[int], head: StructuralHead) -> Tensor:
        """Cosines (J, T) between the tokens at ``places`` and the frames."""
        states = answer.predicting["before_last_layer"][places]
        if self.legacy_first_step and places[0] == 0:
            states = torch.cat([answer.first["before_last_layer"][None], states[1:]])
        return (head.tokens(states) @ head.frames(answer.frames["before_norm"]).T).cpu()


def event_strips(maps: Tensor, is_event: Sequence[bool], texts: Sequence[str]) -> tuple[Strip, ...]:
    """The map of each event token, with the text before it: cosines, a number a frame."""
    events = (row for row, event in zip(maps.tolist(), is_event, strict=True) if event)
    return tuple(Strip.rounded(f"{ENT} {text}".strip(), row) for row, text in zip(events, texts, strict=False))


def event_texts(answer: str, legacy: bool = False) -> list[str]:
    """The text before each event token. ``legacy`` strips the characters of ``<tst>`` from its ends, as released."""
    pieces = literal(answer, any_of((ENT, TST))).part(ENT)[:-1]
    return [piece.strip().strip(TST) if legacy else piece.change({TST: ""}).strip() for piece in pieces]


def saliency_of_clips(salient: Sequence[float], query: Query, clip: Clip) -> list[float]:
    """Mean saliency of each of the query's clips, of one score a frame."""
    clips = query.clips(clip.duration_s)
    if clip.even:
        return clip_means(salient, clips, query.clip_s * clip.frames_per_s)
    edges_s = np.append(clip.shown_s, clip.true_s(clip.frames / clip.frames_per_s))
    return clip_means(salient, clips, query.clip_s, edges_s)


def choice(logits: Tensor, right: Tensor) -> Tensor:
    """Mean cross-entropy of rows of logits where all entries marked in ``right`` are equally right."""
    return F.cross_entropy(logits, right / right.sum(-1, keepdim=True))


def dialogues(
    frames: Sequence[Tensor], tokens: Mapping[str, Tensor], places: Mapping[str, Tensor], batch
) -> list[tuple[Tensor, list[tuple[Tensor, Tensor]]]]:
    """For each dialogue with tokens: its frames (T, D), and (tokens (J, D), targets (J, T)) of each kind it has.

    Args:
        frames: B times (T, D).
        tokens: (J, D) of each kind, in row order.
        places: (B, L) where they are.
        batch: the Batch; its targets name the frames of each token in the same order.
    """
    blocks = torch.zeros_like(batch.labels) if batch.blocks is None else batch.blocks
    parts: dict[tuple[int, int], list] = {}
    for kind in ("events", "transitions"):
        owners = [(row, int(blocks[row, place])) for row, place in places[kind].nonzero().tolist()]
        rows = sorted({row for row, _ in owners})
        stretches = [found for row in rows for turn in batch.targets[row] if turn for found in getattr(turn, kind)]
        assert len(owners) == len(stretches), f"{len(owners)} tokens for {len(stretches)} {kind}"
        for owner, group in groupby(zip(owners, tokens[kind], stretches, strict=True), key=lambda item: item[0]):
            _, own, found = zip(*group, strict=True)
            targets = torch.zeros(len(own), len(frames[owner[0]]), device=own[0].device)
            for target, (first, last) in zip(targets, found, strict=True):
                target[first : last + 1] = 1.0
            parts.setdefault(owner, []).append((torch.stack(own), targets))
    return [(frames[row], found) for (row, _), found in parts.items()]
