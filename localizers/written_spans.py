"""Answers in which the times of each event stand as a piece of text: what localizers of this kind have in common."""

import re
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import ClassVar

from torch import nn

from datamodules.clip import Clip
from datamodules.markup import Text, Token, join
from datamodules.prediction import Prediction
from datamodules.rendered import Rendered
from datamodules.schema import Query, Turn
from datamodules.turns import sentence
from localizers.absence import NO_MOMENT, NONE, says_none
from localizers.answer import Answer
from localizers.base import MARKED_SPAN, Localizer
from localizers.telling import UNIT, Telling, telling, write_times

BEHIND = re.compile(rf"^{UNIT}[\s,:.]*|[\s,:]*(?:\b(?:from|in|at|during|between)\s*)?$", re.IGNORECASE)
"""Pattern of what does not belong to a caption that stands behind its time."""
BETWEEN = re.compile(rf"{UNIT}\s*(?:-|–|to|and|until|,)?\s*", re.IGNORECASE)
"""Pattern of what may stand between the two times of a span."""
Moments = list[tuple[float, float]]


@dataclass(frozen=True)
class Found:
    """A span that an answer names."""

    begin: int
    """Where it begins in the text."""
    end: int
    start_s: float
    end_s: float
    score: float = 1.0
    caption: str | None = None
    """What the answer says of it; None: the words behind it, see ``captions_of``."""


@dataclass(frozen=True)
class WrittenSpans(Localizer):
    """A subclass says how a span is written and found; this class knows what questions and answers look like."""

    no_moment: ClassVar[str] = NO_MOMENT
    rule: ClassVar[str] = "times"
    """Reading rule of its predictions."""
    one_piece: ClassVar[bool] = False
    """Whether a span is written as a whole, so that ``from <s0> to <e0>`` in a text becomes one piece."""

    @abstractmethod
    def span(self, start_s: float, end_s: float, clip: Clip) -> Text:
        """A span as it stands in an answer, with the words around its times."""

    @abstractmethod
    def time(self, time_s: float, clip: Clip) -> Text:
        """A single time."""

    @abstractmethod
    def find(self, query: Query, answer: Answer, clip: Clip, head: nn.Module | None) -> list[Found]:
        """The spans of an answer, in its order."""

    def moments(self, start_s: float, end_s: float, clip: Clip) -> Moments:
        """What the time tokens of a span, or of a time (twice), stand for; see ``Rendered.moments``."""
        return []

    def event(self, span: Text, caption: str) -> Text:
        """An event of a dense caption."""
        return Text(capital(span), sentence(f", {caption}"))

    def description(self, spans: Sequence[Text], texts: Sequence[str]) -> Text:
        """All events of a dense caption."""
        return join(" ", map(self.event, spans, texts))

    def listing(self, spans: Sequence[Text]) -> Text:
        """Spans that answer a question for moments."""
        return Text(capital(join(", and ", spans)), ".")

    def render(self, turn: Turn, clip: Clip, random: Random) -> Rendered:
        """Write the times of questions and literal answers, and an answer from the events where there are any."""
        question, asked = self.written(turn.question, turn, clip)
        told, answer, said = telling(turn, self.captions), None, []
        if told is not None:
            answer = self._answer(turn.task, told, clip)
            if turn.task != "segment_captioning":
                said = [moment for event in told.events for moment in self.moments(*event.span, clip)]
        elif turn.answer is not None:
            answer, said = self.written(turn.answer, turn, clip)
        return Rendered(question, answer, moments=(*asked, *said))

    def written(self, text: str, turn: Turn, clip: Clip) -> tuple[Text, Moments]:
        """A text with its markers replaced, and what the new time tokens stand for."""
        text, pieces, moments, behind = Text(text), [], [], 0

        def single(time_s: float) -> Text:
            moments.extend(self.moments(time_s, time_s, clip))
            return self.time(time_s, clip)

        for match in re.finditer(MARKED_SPAN, text.meant) if self.one_piece else ():
            pieces.append(write_times(text.cut(behind, match.start()), turn.times, single))
            times_s = [turn.times[f"<{end}{match['span']}>"] for end in "se"]
            moments.extend(self.moments(*times_s, clip))
            pieces.append(self.span(*times_s, clip))
            behind = match.end()
        pieces.append(write_times(text.cut(behind), turn.times, single))
        return Text(*pieces), moments

    def _answer(self, task: str, told: Telling, clip: Clip) -> Text:
        if task == "segment_captioning":  # the times are those of the question
            return Text(" ".join(map(sentence, told.texts)))
        spans = [self.span(*event.span, clip) for event in told.events]
        if task == "dense_captioning":
            return self.description(spans, told.texts)
        if any(told.texts):
            said = [
                Text(sentence(text), " " if text else "", self.listing([span]))
                for text, span in zip(told.texts, spans, strict=True)
            ]
        else:
            said = [self.listing(spans)]
        return join(" ", filter(None, [*said, told.rest]))

    def decode(self, query: Query, answer: Answer, clip: Clip, head: nn.Module | None = None) -> Prediction:
        """Spans in the order named, ends in order and inside the video; or that there is no moment."""
        dense, found = query.task == "dense_captioning", self.find(query, answer, clip, head)
        captions = captions_of(answer.text, found) if dense else ()
        rule = self.rule if found else NONE if says_none(answer.text) else None
        spans = [(*inside(each.start_s, each.end_s, clip.duration_s), each.score) for each in found]
        shown = self.shown(answer.text, found)
        return Prediction(query.id, query.video, query.task, shown, tuple(spans), captions, rule=rule)

    def shown(self, text: str, found: Sequence[Found]) -> str:
        """An answer as people read it."""
        return text


def inside(start_s: float, end_s: float, duration_s: float) -> tuple[float, float]:
    """The two ends of a span in order, neither before the video nor beyond its end."""
    first, last = sorted((start_s, end_s))
    return min(max(first, 0.0), duration_s), min(max(last, 0.0), duration_s)


def captions_of(text: str, found: Sequence[Found]) -> tuple[str, ...]:
    """What is said of each span: behind it and before the next, or before each where no words stand behind any."""
    if all(each.caption is not None for each in found):
        return tuple(each.caption for each in found)
    begins, ends = [each.begin for each in found], [each.end for each in found]
    behind = [
        BEHIND.sub("", text[end:begin]).strip() for end, begin in zip(ends, [*begins[1:], len(text)], strict=True)
    ]
    if any(behind):
        return tuple(behind)
    return tuple(BEHIND.sub("", text[end:begin]).strip() for end, begin in zip([0, *ends], begins, strict=False))


def capital(text: Text) -> Text:
    """With a capital letter in front, where it begins with a word."""
    first, *more = text.pieces or ("",)
    return text if isinstance(first, Token) else Text(first[:1].upper() + first[1:], *more)
