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
from datamodules.rendered import Rendered
from datamodules.schema import Event, Prediction, Query, Turn
from localizers.answer import Answer
from localizers.base import MARKED_SPAN, Localizer, StatePoint, marked_event
from localizers.similarity_maps import Rule, clip_means, saliency, segments
from localizers.structural_windows import ENT, TST, covered, interleave, partition, transitions
from models.structural_head import StructuralHead

TIMES = re.compile(rf",?\s*(?:and\s+)?(?:from\s+)?{MARKED_SPAN},?")
SENTENCE_END = re.compile(r"[.!?](?=\s|$)|$")
TIMED = re.compile(r"[^.!?]*<[se]\d+>(?:[^.!?]|\.(?!\s|$))*[.!?]*\s*")
"""Pattern of a sentence that names a time."""
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

    special_tokens: ClassVar[tuple[str, ...]] = ("<vid>", ENT, TST)
    reference_token: ClassVar[str] = "<vid>"
    states: ClassVar[tuple[StatePoint, ...]] = ("before_last_layer", "before_norm")

    captions: Literal["query_focused", "query", "none"] = "query_focused"
    """What stands before an event token: the detailed caption (or the plain one, where an event has no detail), a copy
    of the query, or nothing."""
    transitions: Literal["released", "partition", "none"] = "released"
    """Background that gets a token: by the released thresholds, all of it without overlap (the paper), or none."""
    bidirectional: bool = True
    joint: bool = False
    """Average the loss over all tokens together (Eq. 2), not over events and transitions apart."""
    symmetric: bool = False
    """Add the loss of frames choosing among tokens; the paper found it unstable."""
    rule: Rule = "charades"
    """How maps are cut into segments."""
    threshold: float = 0.7
    max_scale: float | None = None
    """Bound of the learned temperature's factor."""
    legacy: bool = False
    """Decode as the released evaluation: suppressed segments stay, no segment means the whole video."""
    legacy_first_step: bool = False
    """Take the map of the first token from the first token of the prompt, as the released inference does by mistake."""
    token_init: Literal["mean", "released"] = "mean"

    def head(self, width: int) -> StructuralHead:
        """The projections and the temperature."""
        return StructuralHead(width, self.max_scale)

    def render(self, turn: Turn, clip: Clip, random: Random) -> Rendered:
        """Write events as captions with tokens.

        Times in a question become ``<vid>`` tokens that refer to frames; times in a literal answer become events.

        Raises:
            ValueError: a literal answer has another number of event tokens than events, or fewer texts.
        """
        question, references = turn.question, []
        for marker in sorted(turn.times, key=turn.question.find):
            if marker in question:
                question = question.replace(marker, self.reference_token)
                frame = round(clip.even_s(turn.times[marker]) * clip.frames_per_s)
                references.append(min(max(frame, 0), clip.frames - 1))
        events, texts, rest = self._texts(turn)
        if not events:
            return Rendered(question, rest, references=tuple(references))
        found, between = self._frames(events, clip)
        targets = StructuralTargets(found, tuple(between[number] for number in sorted(between)))
        return Rendered(question, interleave(texts, list(between)), targets, tuple(references))

    def _texts(self, turn: Turn) -> tuple[list[Event], list[str], str | None]:
        """The events of an answer with the text before each, or the answer without any."""
        if not turn.events and turn.answer is not None:
            return self._from_markers(turn)
        if turn.answer is None or ENT not in turn.answer:
            events = sorted(turn.events, key=lambda event: event.span)
            texts = [self._caption(turn, event) for event in events]
            if turn.answer and not any(event.caption for event in events):
                # What the answer says beside the times, such as the option of a grounded question.
                texts[-1] = f"{texts[-1]} {TIMED.sub('', turn.answer).strip()}".strip()
            return events, texts, None
        pieces = [piece.strip() for piece in turn.answer.split(ENT) if piece.strip()]
        if turn.answer.count(ENT) != len(turn.events) or len(pieces) < len(turn.events):
            raise ValueError(
                f"an answer with {turn.answer.count(ENT)} {ENT} and {len(pieces)} texts between them does not fit "
                f"its {len(turn.events)} events"
            )
        last = len(turn.events) - 1
        # As released: what follows the last token moves in front of it.
        return list(turn.events), [*pieces[:last], "".join(pieces[last:])], None

    def _from_markers(self, turn: Turn) -> tuple[list[Event], list[str], str | None]:
        """Events of a literal answer that names times: each text ends where its sentence does."""
        events, texts, said = [], [], 0
        for match in TIMES.finditer(turn.answer):
            end = SENTENCE_END.search(turn.answer, match.end()).end()
            texts.append(TIMES.sub("", turn.answer[said:end]).strip())
            events.append(marked_event(match, turn.times))
            said = end
        if events and turn.answer[said:].strip():
            texts[-1] = f"{texts[-1]} {turn.answer[said:].strip()}".strip()
        return events, texts, turn.answer

    def _caption(self, turn: Turn, event: Event) -> str:
        if self.captions == "none":
            return ""
        text = (event.detail or event.caption) if self.captions == "query_focused" else event.caption
        text = (text or turn.topic).strip()
        return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".") if text else ""

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
        spans, captions, salient = [], [], ()
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
        rule = f"{self.rule} on {sum(is_event)} events" if spans else None
        if self.legacy and not spans:
            spans, salient, rule = [(0.0, clip.duration_s, 1.0)], (1.0,) * clip.frames, "whole video"
        spans = [(min(start, clip.duration_s), min(end, clip.duration_s), score) for start, end, score in spans]
        if salient and query.clip_s is not None:
            salient = self._clip_means(salient, query, clip)
        return Prediction(
            query_id=query.id,
            video=query.video,
            task=query.task,
            answer=answer.text,
            spans=tuple(spans),
            captions=tuple(captions) if query.task == "dense_captioning" else (),
            saliency=tuple(salient),
            rule=rule,
        )

    @staticmethod
    def _clip_means(salient: Sequence[float], query: Query, clip: Clip) -> list[float]:
        """Mean saliency of each of the query's clips."""
        clips = query.clips(clip.duration_s)
        if clip.even:
            return clip_means(salient, clips, query.clip_s * clip.frames_per_s)
        return clip_means(
            salient, clips, query.clip_s, np.append(clip.shown_s, clip.true_s(clip.frames / clip.frames_per_s))
        )

    def maps(self, answer: Answer, places: list[int], head: StructuralHead) -> Tensor:
        """Cosines (J, T) between the tokens at ``places`` and the frames."""
        states = answer.predicting["before_last_layer"][places]
        if self.legacy_first_step and places[0] == 0:
            states = torch.cat([answer.first["before_last_layer"][None], states[1:]])
        return (head.tokens(states) @ head.frames(answer.frames["before_norm"]).T).cpu()


def event_texts(answer: str, legacy: bool = False) -> list[str]:
    """The text before each event token. ``legacy`` strips the characters of ``<tst>`` from its ends, as released."""
    pieces = answer.split(ENT)[:-1]
    return [piece.strip().strip(TST) if legacy else piece.replace(TST, "").strip() for piece in pieces]


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
