"""E.T. Chat: each time is a ``<vid>`` token, matched to the frame that it looks most like.

Shape suffixes: B dialogues, T frames, L tokens, N ``<vid>`` tokens, D width.
"""

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from datamodules.batch import frame_states
from datamodules.chat import IGNORE
from datamodules.clip import Clip
from datamodules.markup import Text, Token, any_of, join, literal
from datamodules.prediction import Prediction
from datamodules.rendered import Rendered
from datamodules.schema import Query, Turn
from datamodules.turns import sentence
from localizers.absence import NO_MOMENT, NONE, says_none
from localizers.answer import Answer
from localizers.base import Localizer, StatePoint
from localizers.telling import UNIT, Telling, telling
from models.frame_matching_head import FrameMatchingHead

VID = "<vid>"
VIDS = any_of([VID])
BETWEEN = re.compile(r"\s*(?:-|–|to|and|until)\s*", re.IGNORECASE)
"""Pattern of what stands between the two times of a span."""
BEHIND = re.compile(rf"^{UNIT}[\s,:.]*|[\s,:.]*(?:\b(?:from|in|at|during|between)\s*)?$", re.IGNORECASE)
"""Pattern of what does not belong to a caption that stands behind its time."""
POINT_S = 2.0
"""Length of a moment of which one time alone is named (the clips of E.T. Bench's highlights)."""


@dataclass(frozen=True)
class FrameMatching(Localizer):
    """Times as frames: the state that predicts a ``<vid>`` is matched to the states of the frames.

    A ``<vid>`` is read with the input vector of its frame added, in questions and in answers. Literal answers that name
    times, such as E.T. Instruct's, are learned as they are. Source: E.T. Chat (Liu et al., 2024) and its released code,
    where a time is a frame number at one frame a second.
    """

    special_tokens: ClassVar[tuple[str, ...]] = (VID,)
    time_tokens: ClassVar[tuple[str, ...]] = (VID,)
    no_moment: ClassVar[str] = NO_MOMENT
    states: ClassVar[tuple[StatePoint, ...]] = ("before_last_layer", "before_norm")

    bidirectional: bool = True
    alpha: float = 2.0
    """A frame at a distance of k frames from the time is right by alpha^-k."""
    token_init: Literal["mean", "released"] = "mean"

    def head(self, width: int) -> FrameMatchingHead:
        """The two projections."""
        return FrameMatchingHead(width)

    def render(self, turn: Turn, clip: Clip, random: Random) -> Rendered:
        """Write each time as a ``<vid>``; an answer without words of its own from the events."""
        question, asked = frame_tokens(turn.question, turn.times, clip)
        told, answer, said = telling(turn, self.captions), None, ()
        as_it_is = (
            turn.answer is not None
            and self.captions == "none"
            and any(token in turn.times for token in turn.answer.tokens)
        )
        if told is not None and not as_it_is:
            answer = self._answer(turn.task, told)
            times_s = [time_s for event in told.events for time_s in event.span] if answer.tokens else []
            said = tuple(moment(time_s, clip) for time_s in times_s)
        elif turn.answer is not None:
            answer, said = frame_tokens(turn.answer, turn.times, clip)
        return Rendered(question, answer, moments=(*asked, *said))

    @staticmethod
    def _answer(task: str, told: Telling) -> Text:
        first, later = (Text(f"{word} ", Token(VID), " to ", Token(VID)) for word in ("From", "from"))
        if task == "segment_captioning":  # the times are those of the question
            return Text(" ".join(map(sentence, told.texts)))
        if task == "dense_captioning":
            return join(" ", (Text(first, sentence(f", {text}")) for text in told.texts))
        if any(told.texts):
            said = [Text(f"{sentence(text)} ", first, ".") for text in told.texts]
        else:
            said = [Text(join(", and ", [first, *[later] * (len(told.events) - 1)]), ".")]
        return join(" ", filter(None, [*said, told.rest]))

    def read_back(self, head, inputs: Tensor, moments: Tensor, frames: Tensor, rows: Tensor) -> Tensor:
        """The token's vector and that of the frame nearest to its time."""
        return inputs + frames[rows, moments[:, 0].round().long()]

    def just_written(
        self, head: FrameMatchingHead, states: Mapping[str, Tensor], frames: Mapping[str, Tensor], mask: Tensor
    ) -> Tensor:
        """The best frame of each token."""
        scores = head(states["before_last_layer"], frames["before_norm"])
        return scores.masked_fill(~mask, -torch.inf).argmax(-1, keepdim=True).expand(-1, 2).float()

    def loss(
        self, head: FrameMatchingHead | None, states: Mapping[str, Tensor], batch, ids: Mapping[str, int]
    ) -> dict[str, Tensor]:
        """Cross-entropy of each token over the frames: the mean over times, and then over dialogues that name any."""
        if head is None:
            return {}
        is_time = F.pad(batch.labels[:, 1:], (0, 1), value=IGNORE) == ids[VID]
        rows, places = is_time.nonzero(as_tuple=True)
        frames = frame_states(states["before_norm"], batch)[rows]
        scores, mask = head(states["before_last_layer"][is_time], frames), batch.feature_mask[rows]
        if not len(rows):  # attached to the graph, so that all processes reduce the same gradients
            return {"matching": 0.0 * sum(parameter.sum() for parameter in head.parameters())}
        right = self.soft_labels(batch.moments[rows, places + 1, 0], scores.shape[1])
        chances = scores.masked_fill(~mask, -torch.inf).log_softmax(-1)
        each = -(right * chances).masked_fill(~mask, 0).sum(-1)
        blocks = torch.zeros_like(batch.labels) if batch.blocks is None else batch.blocks
        _, dialogue = torch.unique(rows * (1 + blocks.max()) + blocks[is_time], return_inverse=True)
        sums = each.new_zeros(int(dialogue.max()) + 1).index_add(0, dialogue, each)
        return {"matching": (sums / dialogue.bincount()).mean()}

    def soft_labels(self, places: Tensor, frames: int) -> Tensor:
        """(N, T) how right each of ``frames`` is for times at ``places`` (N,), which may lie between two frames.

        As released, they do not sum to one.
        """
        return self.alpha ** -(torch.arange(frames, device=places.device) - places[:, None]).abs()

    def decode(self, query: Query, answer: Answer, clip: Clip, head: FrameMatchingHead | None = None) -> Prediction:
        """The spans that an answer names, in its order; in the text, times stand in place of the tokens."""
        places = [place for place, token in enumerate(answer.tokens) if token == VID]
        chances = None
        if head is not None and places:
            scores = head(answer.predicting["before_last_layer"][places], answer.frames["before_norm"])
            if scores.isfinite().all():
                chances = scores.softmax(-1).max(-1)
            else:
                warnings.warn(f"query {query.id}: a score is not finite; counted as unparsed", stacklevel=2)
        pieces = literal(answer.text, VIDS).part(VID)
        if chances is None or len(pieces) != len(places) + 1:
            none = NONE if not places and says_none(answer.text) else None
            return Prediction(query.id, query.video, query.task, answer.text, rule=none)
        dense, sure = query.task == "dense_captioning", chances.values.tolist()
        frames, named = chances.indices.tolist(), groups(pieces)
        spans = [span(frames[first : last + 1], clip, POINT_S) for first, last in named]
        if dense:  # of events with one time each (E.T. Instruct's tvc), each lasts until the next
            starts = [start for start, _ in spans[1:]] + [clip.duration_s]
            spans = [
                (start, max(next_s, end) if first == last else end)
                for (start, end), next_s, (first, last) in zip(spans, starts, named, strict=True)
            ]
        scores = [sure[first] * (sure[last] if last > first else 1.0) for first, last in named]
        times_s = (clip.true_s(frame / clip.frames_per_s) for frame in frames)
        texts = [*(f"{time_s:.1f}".removesuffix(".0") for time_s in times_s), ""]
        return Prediction(
            query_id=query.id,
            video=query.video,
            task=query.task,
            answer="".join(a + b for a, b in zip(pieces, texts, strict=True)),
            spans=tuple((*ends, score) for ends, score in zip(spans, scores, strict=True)),
            captions=tuple(BEHIND.sub("", pieces[last + 1]).strip() for _, last in named) if dense else (),
            rule="matched frames",
        )


def frame_tokens(text: Text, times: Mapping[str, float], clip: Clip) -> tuple[Text, tuple[tuple[float, float], ...]]:
    """A text with a ``<vid>`` for each of its time markers, and what these stand for."""
    moments = tuple(moment(times[token], clip) for token in text.tokens if token in times)
    return text.change(dict.fromkeys(times, Token(VID))), moments


def moment(time_s: float, clip: Clip) -> tuple[float, float]:
    """A time as the number of a frame, or between two, twice."""
    place = min(max(clip.even_s(time_s) * clip.frames_per_s, 0.0), clip.frames - 1.0)
    return place, place


def groups(pieces: list[str]) -> list[tuple[int, int]]:
    """First and last ``<vid>`` of each span; one of which no end is named is alone.

    Args:
        pieces: the texts around the tokens, one more than these.
    """
    found, number = [], 0
    while number < len(pieces) - 1:
        last = number + 1 if number + 2 < len(pieces) and BETWEEN.fullmatch(pieces[number + 1]) else number
        found.append((number, last))
        number = last + 1
    return found


def span(frames: list[int], clip: Clip, point_s: float) -> tuple[float, float]:
    """The seconds between two frames in either order, at least one frame long; of one frame, ``point_s`` long."""
    first, last = min(frames), max(frames)
    start_s, end_s, next_s = (clip.true_s(frame / clip.frames_per_s) for frame in (first, last, first + 1))
    end_s = max(end_s, next_s if len(frames) > 1 else start_s + point_s)
    return min(start_s, clip.duration_s), min(end_s, clip.duration_s)
