"""VideoExpert: each ``<LOC>`` in an answer stands for a moment, which a convolutional head reads off the frame states.

Shape suffixes: B dialogues, T frames, L tokens, N ``<LOC>`` tokens, D width, S windows of a ``<LOC>``.
"""

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from datamodules.batch import frame_states
from datamodules.clip import Clip
from datamodules.markup import MARKER, Text, Token, any_of, join, literal, mark
from datamodules.prediction import Prediction, Strip
from datamodules.rendered import Rendered, Unsayable
from datamodules.schema import Event, Query, Turn
from datamodules.turns import sentence
from localizers.absence import NO_MOMENT, NONE
from localizers.answer import Answer
from localizers.base import MARKED_SPAN, Localizer, StatePoint, marked_event
from localizers.telling import UNIT, telling, write_times
from models.temporal_head import (
    HeadOutput,
    TemporalHead,
    best_spans,
    boundary_losses,
    frame_targets,
    indicator_loss,
    ranked_spans,
    saliency_at,
)

LOC = "<LOC>"
LOCS = any_of([LOC])
TIMES = re.compile(rf"(?:\b(?P<word>from|between|during)\s+)?{MARKED_SPAN}{UNIT}", re.IGNORECASE)


@dataclass(frozen=True, eq=False)
class LocTarget:
    """What the head should say about one ``<LOC>``."""

    foreground: np.ndarray
    """(T,) bool."""
    windows: np.ndarray
    """(T, 2) the window of each foreground frame, in fractions of the duration."""


@dataclass(frozen=True)
class TemporalExpert(Localizer):
    """Times as ``<LOC>`` tokens that a head grounds; no time is ever written as text in an answer.

    Source: VideoExpert, sections III-B and III-E, eqs. 10-13. The paper leaves the weights of the losses open; they are
    UniVTG's.
    """

    special_tokens: ClassVar[tuple[str, ...]] = (LOC,)
    states: ClassVar[tuple[StatePoint, ...]] = ("after_norm",)
    says_none: ClassVar[bool] = False
    decoding: ClassVar[tuple[str, ...]] = ("nms_iou", "top", "none_below")

    interaction: Literal["add", "concat", "attention", "none"] = "add"
    """How a ``<LOC>`` meets the frames (Table VI)."""
    head_dim: int | None = None
    """Width of the head's convolutions; None: that of the language model."""
    state: Literal["reading", "predicting"] = "reading"
    """The state of a ``<LOC>``: where it is read, or the one that predicts it (LISA)."""
    word: str = "During"
    """What stands before a ``<LOC>`` in the answers written here."""
    lm_weight: float = 1.0
    indicator_weight: float = 1.0
    background_weight: float = 1.0
    """Of frames outside the moment, in the indicator's loss; UniVTG has 0.1."""
    smooth_l1_weight: float = 10.0
    giou_weight: float = 1.0
    nms_iou: float = 0.7
    """Ranked spans overlap a better one by this much at most."""
    top: int = 10
    """Length of the ranked list."""
    none_below: float = 0.0
    """There is no moment where no frame is inside with this probability (chosen on validation data); 0: always one."""

    @property
    def no_moment(self) -> Text:
        """A ``<LOC>`` that is in no frame."""
        return Text(f"{self.word} ", Token(LOC), ".")

    def head(self, width: int) -> TemporalHead:
        """The interaction and the two branches."""
        return TemporalHead(width, self.interaction, self.head_dim)

    def render(self, turn: Turn, clip: Clip, random: Random) -> Rendered:
        """Write a ``<LOC>`` for each moment; times in a question become seconds.

        Raises:
            ValueError: a literal answer has another number of ``<LOC>`` than windows, or a window is outside the video.
            Unsayable: a literal answer holds a single time.
        """
        answer, windows = self._answer(turn)
        targets = tuple(target(group, clip) for group in windows) or None
        return Rendered(in_seconds(turn.question, turn.times), answer, targets)

    def _answer(self, turn: Turn) -> tuple[Text | None, list[Sequence[Event]]]:
        """The answer and the windows of each of its ``<LOC>``."""
        one_each = [(event,) for event in turn.events]
        answer = mark(turn.answer, LOCS) if turn.answer and turn.events else turn.answer
        if answer and (count := answer.tokens.count(LOC)):
            windows = [turn.events] if turn.task == "grounding" else one_each
            if count != len(windows):
                raise ValueError(f"an answer with {count} {LOC} does not fit its {len(windows)} windows")
            return in_seconds(answer, turn.times), windows
        told, span = telling(turn, self.captions), Text(f"{self.word} ", Token(LOC))
        if told is None:
            return (None, []) if answer is None else self._from_markers(answer, turn.times)
        if turn.task == "segment_captioning":  # the times are those of the question
            return Text(" ".join(map(sentence, told.texts))), []
        if turn.task == "dense_captioning":
            return join(" ", (Text(span, f", {text}.") for text in told.texts)), one_each
        words = dict.fromkeys(sentence(text) for text in told.texts if text)  # one <LOC> for all windows
        return join(" ", filter(None, [*words, Text(span, "."), told.rest])), [turn.events]

    @staticmethod
    def _from_markers(answer: Text, times: Mapping[str, float]) -> tuple[Text, list[Sequence[Event]]]:
        """A literal answer with a ``<LOC>`` in place of each span that it names, and their windows."""
        pieces, windows, behind = [], [], 0
        for match in TIMES.finditer(answer.meant):
            word = match["word"] or ""  # of ``from <s0> to <e0>``
            during = ("During " if word[:1].isupper() else "during ") if word else ""
            pieces += [answer.cut(behind, match.start()), during, Token(LOC)]
            windows.append((marked_event(match, times),))
            behind = match.end()
        text = Text(*pieces, answer.cut(behind))
        if any(MARKER.fullmatch(token) for token in text.tokens):
            raise Unsayable("turn left out: a single time in its answer, and <LOC> stands for a span")
        return text, windows

    def loss(
        self, head: TemporalHead | None, states: Mapping[str, Tensor], batch, ids: Mapping[str, int]
    ) -> dict[str, Tensor]:
        """Indicator, smooth-L1 and GIoU terms (Eqs. 11 and 13), the means over the ``<LOC>`` of the batch.

        Without any they are 0, but attached to the graph, so that all processes reduce the same gradients.
        """
        if head is None:
            return {}
        is_loc = batch.labels == ids[LOC]
        rows = is_loc.nonzero()[:, 0]
        output = self._read(head, states, batch, is_loc)
        if output.saturated:
            warnings.warn(
                "every offset of the temporal head is saturated at 0 or 1 and gets no gradient: it will not learn "
                "where a moment ends. Start again with a smaller optimization.head_lr",
                stacklevel=2,
            )
        foreground, windows = stack_targets(batch.targets, rows.tolist(), batch.feature_mask)
        smooth_l1, giou = boundary_losses(output, foreground, windows)
        return {
            "indicator": self.indicator_weight * indicator_loss(output, foreground, self.background_weight),
            "smooth_l1": self.smooth_l1_weight * smooth_l1,
            "giou": self.giou_weight * giou,
        }

    def _read(self, head: TemporalHead, states: Mapping[str, Tensor], batch, is_loc: Tensor) -> HeadOutput:
        """What the head says about each ``<LOC>`` of a batch; they stand where ``is_loc`` (B, L) is true."""
        after_norm, rows = states["after_norm"], is_loc.nonzero()[:, 0]
        at = is_loc if self.state == "reading" else F.pad(is_loc[:, 1:], (0, 1))
        return head(frame_states(after_norm, batch)[rows], after_norm[at], batch.feature_mask[rows])

    def decode(self, query: Query, answer: Answer, clip: Clip, head: TemporalHead | None = None) -> Prediction:
        """The span of each ``<LOC>``; for a single one outside dense captions, a ranked list of spans.

        Saliency is the probability of each frame, or of each of the query's clips where it has any.
        """
        output = None if head is None else self._output(query, answer, head)
        spans, texts, salient, rule, strips = [], [], (), None, ()
        if output is not None:
            spans = in_clip(*(part.float().cpu().numpy() for part in best_spans(output)), clip)
            texts, rule = [f"{start:.1f}s - {end:.1f}s" for start, end, _ in spans], "best frame"
            salient, strips = saliency(output.probability, query, clip), indicators(output)
            if query.task != "dense_captioning":
                spans = sorted(spans, key=lambda span: -span[2])
                if spans[0][2] < self.none_below:
                    spans, texts, rule = [], [NO_MOMENT] * len(texts), NONE
                elif len(spans) == 1:
                    spans, rule = self._ranked(output, clip), "ranked frames"
        pieces = literal(answer.text, LOCS).part(LOC)
        captions = [piece.strip().removesuffix(self.word).strip(" \n,:.") for piece in pieces[1:]]
        return Prediction(
            query_id=query.id,
            video=query.video,
            task=query.task,
            answer="".join(a + b for a, b in zip(pieces, [*texts, ""], strict=True)) if texts else answer.text,
            spans=tuple(spans),
            captions=tuple(captions) if spans and query.task == "dense_captioning" else (),
            saliency=salient,
            rule=rule,
            strips=strips,
        )

    def _output(self, query: Query, answer: Answer, head: TemporalHead) -> HeadOutput | None:
        """What the head says about each ``<LOC>``; None without any, or if it says nothing finite."""
        places = [place for place, token in enumerate(answer.tokens) if token == LOC]
        if not places:
            return None
        output = self._ask(head, answer, places)
        if output.logits.isfinite().all() and output.offsets.isfinite().all():
            return output
        warnings.warn(f"query {query.id}: the temporal head gives no finite numbers; counted as unparsed", stacklevel=3)
        return None

    def _ask(self, head: TemporalHead, answer: Answer, places: list[int]) -> HeadOutput:
        """What the head says about the ``<LOC>`` tokens at ``places`` of an answer."""
        states = answer.reading if self.state == "reading" else answer.predicting
        frames = answer.frames["after_norm"].expand(len(places), -1, -1)
        return head(frames, states["after_norm"][places], frames.new_ones(frames.shape[:2], dtype=torch.bool))

    def _ranked(self, output: HeadOutput, clip: Clip) -> list[tuple[float, float, float]]:
        parts = (part[0].float().cpu().numpy() for part in (output.spans, output.probability))
        return in_clip(*ranked_spans(*parts, self.nms_iou, self.top), clip)


def in_seconds(text: Text, times: Mapping[str, float]) -> Text:
    """Time markers as seconds, for example ``12.5s``."""
    return write_times(text, times, lambda time_s: f"{time_s:.1f}s")


def target(events: Sequence[Event], clip: Clip) -> LocTarget:
    """What the head should say about the windows of one ``<LOC>``; without any, that no frame is inside.

    Raises:
        ValueError: a window is outside the video by more than annotations may be.
    """
    if not events:
        return LocTarget(np.zeros(clip.frames, dtype=bool), np.zeros((clip.frames, 2), dtype=np.float32))
    for event in events:
        if event.start_s >= clip.duration_s or event.end_s > clip.duration_s + Query.TOLERANCE_S:
            raise ValueError(f"window {event.start_s}..{event.end_s} s is outside the video of {clip.duration_s} s")
    windows = fractions(np.array([event.span for event in events], dtype=float), clip)
    return LocTarget(*frame_targets(windows.clip(0, 1), clip.frames))


def fractions(times_s: np.ndarray, clip: Clip) -> np.ndarray:
    """Times as the head says them: fractions of the duration, with frame ``k`` of ``n`` at ``(k + 0.5) / n``."""
    return times_s / clip.duration_s if clip.even else np.interp(times_s, *_knots(clip))


def seconds(fractions: np.ndarray, clip: Clip) -> np.ndarray:
    """The times at fractions of the duration; undoes ``fractions``."""
    return fractions * clip.duration_s if clip.even else np.interp(fractions, *reversed(_knots(clip)))


def _knots(clip: Clip) -> tuple[np.ndarray, np.ndarray]:
    """Of frames that are not evenly spaced: their times, and the fractions at which the head has them."""
    shown_s, places = clip.shown_s, (np.arange(clip.frames) + 0.5) / clip.frames
    begin, end = ([0.0] if shown_s[0] > 0 else [], [1.0] if shown_s[-1] < clip.duration_s else [])
    return (
        np.concatenate([begin, shown_s, [clip.duration_s] * len(end)]),
        np.concatenate([begin, places, end]),
    )


def in_clip(spans: np.ndarray, scores: np.ndarray, clip: Clip) -> list[tuple[float, float, float]]:
    """Spans (S, 2) in fractions of the duration and their scores (S,) as (start_s, end_s, score)."""
    ends = seconds(spans.astype(np.float64), clip).tolist()
    return [(start, end, score) for (start, end), score in zip(ends, scores.tolist(), strict=True)]


def stack_targets(targets: Sequence[Sequence], rows: list[int], frame_mask: Tensor) -> tuple[Tensor, Tensor]:
    """Foreground (N, T) and windows (N, T, 2) of the ``<LOC>`` tokens.

    Args:
        targets: of each dialogue, the targets of its turns.
        rows: N, the dialogue of each ``<LOC>``; dialogues that teach nothing have none.
        frame_mask: (B, T).
    """
    found = [loc for row in sorted(set(rows)) for turn in targets[row] if turn for loc in turn]
    assert len(found) == len(rows), f"{len(rows)} {LOC} for {len(found)} targets"
    foreground = np.zeros((len(rows), frame_mask.shape[1]), dtype=bool)
    windows = np.zeros((*foreground.shape, 2), dtype=np.float32)
    for number, loc in enumerate(found):
        foreground[number, : len(loc.foreground)], windows[number, : len(loc.windows)] = loc.foreground, loc.windows
    return torch.from_numpy(foreground).to(frame_mask.device), torch.from_numpy(windows).to(frame_mask.device)


def indicators(output: HeadOutput) -> tuple[Strip, ...]:
    """How likely each frame is inside the moment of each ``<LOC>``."""
    rows = output.probability.float().cpu().tolist()
    return tuple(Strip.rounded(f"{LOC} {number}" if len(rows) > 1 else LOC, row) for number, row in enumerate(rows, 1))


def saliency(scores: Tensor, query: Query, clip: Clip) -> tuple[float, ...]:
    """The highest score of any ``<LOC>`` (N, T), for each frame, or at the centres of the query's clips."""
    scores = scores.max(0).values.float().cpu().numpy()
    if query.clip_s is not None:
        centres_s = (np.arange(query.clips(clip.duration_s)) + 0.5) * query.clip_s
        scores = saliency_at(scores, fractions(centres_s, clip))
    return tuple(scores.tolist())
