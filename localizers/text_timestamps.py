"""VTimeLLM: times are two-digit numbers in ordinary text, ``From 12 to 34.``"""

import json
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from random import Random
from typing import ClassVar

from torch import nn

from datamodules.clip import Clip
from datamodules.markup import Text
from datamodules.prediction import Prediction
from datamodules.rendered import Rendered
from datamodules.schema import Event, Query, Turn
from datamodules.turns import sentence
from localizers.absence import NO_MOMENT, NONE, says_none
from localizers.answer import Answer
from localizers.base import Localizer
from localizers.telling import Telling, telling, write_times

SPAN = re.compile(r"(\d{2}) (?:to|and) (\d{2})|(?<!\d)(\d{2})\s?[-–]\s?(\d{2})(?!\d)")
"""Pattern of a span as released, or with a dash, as dialogues of other systems have it."""
FROM_TO = re.compile(r"\bfrom (\d{2}) to (\d{2})(?!\d)", re.IGNORECASE)
SPAN_FIRST = re.compile(r"from (\d{2}) to (\d{2}), (.*?)\.?(?=$|\s*from \d{2} to \d{2},)", re.IGNORECASE | re.DOTALL)
SPAN_LAST = re.compile(r"(.+?),? from (\d{2}) to (\d{2})\.?\s*", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True)
class TextTimestamps(Localizer):
    """Times as indices on a clock of ``ticks`` steps over the clip, which goes on with its frames.

    Source: VTimeLLM, section 3.1 and the released data code: ``min(round(t / duration * ticks), ticks - 1)`` with
    banker's rounding, two digits.

    Raises:
        ValueError: ``ticks`` does not fit two digits.
    """

    no_moment: ClassVar[str] = NO_MOMENT

    ticks: int = 100
    """Steps of the clock, 2 to 100. The paper's is 100: the number is the percentage of the duration."""
    legacy_negative: bool = False
    """Write a negative time as the released code does (``-1``) instead of warning and writing 00."""

    def __post_init__(self):
        if not 2 <= self.ticks <= 100:
            raise ValueError(f"ticks must be 2 to 100, so that two digits hold it; got {self.ticks}")

    def tick(self, time_s: float, duration_s: float) -> str:
        """The two digits of a time."""
        tick = min(round(time_s / duration_s * self.ticks), self.ticks - 1)
        if tick < 0 and not self.legacy_negative:
            warnings.warn(f"time {time_s} s is before the start of the video; written as 00", stacklevel=2)
            tick = 0
        return str(tick).rjust(2, "0")

    def render(self, turn: Turn, clip: Clip, random: Random) -> Rendered:
        """Replace time markers by ticks; write the answer from the events where there are any."""
        told = telling(turn, self.captions)

        def write(text: Text) -> Text:
            return write_times(text, turn.times, lambda time_s: self.tick(clip.even_s(time_s), clip.duration_s))

        if told is not None:
            answer = self._answer(turn.task, told, clip, random)
        else:
            answer = None if turn.answer is None else write(turn.answer)
        return Rendered(write(turn.question), answer)

    def _answer(self, task: str, told: Telling, clip: Clip, random: Random) -> str:
        if task == "segment_captioning":  # the times are those of the question
            return " ".join(map(sentence, told.texts))
        spans = [self._span(event, clip) for event in told.events]
        if task == "dense_captioning":
            # The released data names the time first, the paper's Box 1 names it last.
            form = "{span}, {caption}" if random.random() < 0.5 else "{caption}, {span}"
            pairs = zip(spans, told.texts, strict=True)
            return " ".join(sentence(form.format(span=span, caption=caption)) for span, caption in pairs)
        if any(told.texts):
            said = [f"{sentence(text)} {sentence(span)}" for text, span in zip(told.texts, spans, strict=True)]
        else:
            said = [sentence(", and ".join(spans))]
        return " ".join([*said, told.rest]).strip()

    def _span(self, event: Event, clip: Clip) -> str:
        start, end = (self.tick(clip.even_s(time_s), clip.duration_s) for time_s in event.span)
        return f"from {start} to {end}"

    def decode(self, query: Query, answer: Answer, clip: Clip, head: nn.Module | None = None) -> Prediction:
        """Spans of a grounding answer, in the order named, or the events of a dense caption."""
        if query.task == "dense_captioning":
            rule, events = self.read_events(answer.text)
        else:
            # Words around the times may hold numbers of their own.
            named = FROM_TO.findall(answer.text) if self.captions != "none" else []
            named = named or [tuple(filter(None, span)) for span in SPAN.findall(answer.text)]
            found = [(int(a), int(b)) for a, b in named]
            rule = "digits" if found else NONE if says_none(answer.text) else None
            events = [(a, b, "") for a, b in found]
        # As released: the end tick of a dense caption belongs to the event, the end tick of a moment does not.
        last = 1 if query.task == "dense_captioning" else 0
        tick_s = clip.duration_s / self.ticks
        return Prediction(
            query_id=query.id,
            video=query.video,
            task=query.task,
            answer=answer.text,
            spans=tuple((clip.true_s(a * tick_s), clip.true_s((b + last) * tick_s), 1.0) for a, b, _ in events),
            captions=tuple(caption for *_, caption in events) if query.task == "dense_captioning" else (),
            rule=rule,
        )

    @staticmethod
    def read_events(answer: str) -> tuple[str | None, list[tuple[int, int, str]]]:
        """The events of a dense caption as (first tick, last tick, sentence), and the rule that read them."""
        listed = re.search(r"\[.*\]", answer)
        if listed:
            events = _merge_repeats(list(_json_events(listed.group())))
            return ("json" if events else None), events
        if re.match(r"\s*from \d{2} to \d{2},", answer, re.IGNORECASE):
            return "span_first", [(int(a), int(b), text.strip()) for a, b, text in SPAN_FIRST.findall(answer)]
        events = [(int(a), int(b), text.strip()) for text, a, b in SPAN_LAST.findall(answer)]
        return ("span_last" if events else None), events


def _json_events(text: str) -> Iterator[tuple[int, int, str]]:
    """Items up to the first one that does not fit ``{"event": .., "timestamps": "from xx to yy"}``."""
    try:
        for item in json.loads(text):
            times, said = item["timestamps"], item["event"]
            if not isinstance(said, str):
                return
            yield int(times[5:7]), int(times[-2:]), said
    except (ValueError, KeyError, TypeError, IndexError, RecursionError):
        return


def _merge_repeats(events: list[tuple[int, int, str]]) -> list[tuple[int, int, str]]:
    """Join neighbours that say the same and touch: the model repeats itself on long events."""
    merged: list[tuple[int, int, str]] = []
    for start, end, text in events:
        if merged and -1 <= start - merged[-1][1] <= 1 and SequenceMatcher(None, merged[-1][2], text).ratio() > 0.98:
            merged[-1] = (merged[-1][0], end, merged[-1][2])
        else:
            merged.append((start, end, text))
    return merged
