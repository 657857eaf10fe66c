"""Seconds as text, after the times of the frames as text: TimeLens, UniTime, Qwen3-VL's markers, Molmo2."""

import json
import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import nn

from datamodules.clip import Clip
from datamodules.markup import Text, any_of, join, literal
from datamodules.rendered import FrameTexts
from datamodules.schema import Query
from localizers.answer import Answer
from localizers.spoken_seconds import as_read
from localizers.written_spans import Found, WrittenSpans, capital

SPAN = re.compile(
    r"(\d+(?:\.\d+)?)(?:\s*seconds?)?\s*(?:-|–|to|and|until)\s*(\d+(?:\.\d+)?)\s*(?:seconds?|secs?|s)\b", re.IGNORECASE
)
"""Pattern of a span with its unit."""
PAIR = re.compile(r"\[\s*(\d+(?:\.\d+)?)\s*,\s*(\d+(?:\.\d+)?)\s*\]")
"""Pattern of a span in a list."""
ONE = re.compile(r"(\d+(?:\.\d+)?)\s*(?:seconds?|secs?|s)\b", re.IGNORECASE)
"""Pattern of a time with its unit."""
ROUNDED_S = 0.051
"""A time with one decimal is off by this much at most."""
VISION = ("<|vision_start|>", "<|vision_end|>")
"""What Qwen puts around pictures; of its vocabulary."""


@dataclass(frozen=True)
class TextSeconds(WrittenSpans):
    """What is read before the frames and what is written in answers are the same clock: true seconds, in ordinary text.

    The defaults are TimeLens's on Qwen3-VL as released with transformers 4.57.1. UniTime: frame_wording
    ``timestamp: {:.1f} seconds; feature: ``, wording ``from {start} seconds to {end} seconds``, lead empty, snap true.
    Molmo2: frame_wording ``{:.1f} ``, ``time {:.2f} `` or
    ``{number}: ``, group 1, between a blank, around_group false.

    Raises:
        ValueError: a wording lacks a place.
    """

    decoding: ClassVar[tuple[str, ...]] = ()
    rule: ClassVar[str] = "seconds"

    frame_wording: str = "<{:.1f} seconds>"
    """What stands before a group of frames, with a place for its time, or for its ``{number}`` from 1 on; empty:
    nothing, and times are counted."""
    group: int = 2
    """Frames that share a marker: the mean of the first's and the last's time."""
    between: str = ""
    """In front of every marker but the first."""
    around_group: bool = True
    """Put Qwen's vision tokens, where the vocabulary has them, around the frames of each group."""
    around_video: bool = False
    """Also around all groups, as transformers 5 does with Qwen3-VL."""
    lead: str = "the event happens in "
    """Before the spans of an answer."""
    wording: str = "{start} - {end} seconds"
    """Of a span."""
    answers: Literal["sentence", "json", "segments"] = "sentence"
    """How moments are told; ``json``: ``[[3.2, 7.9], [12.0, 15.1]]``, as TimeLens2 asks for sets; ``segments``: the
    times of all groups of frames from start to end, as UniTime looks through long videos first."""
    snap: bool = False
    """Move ends outwards to times that stand before frames (UniTime)."""

    def __post_init__(self):
        if self.group < 1:
            raise ValueError(f"group must be 1 or more frames, got {self.group}")
        if missing := [place for place in ("{start}", "{end}") if place not in self.wording]:
            raise ValueError(f"wording {self.wording!r} has no {' and no '.join(missing)}")
        if self.frame_wording and self.frame_wording.format(1.5, number=1) == self.frame_wording:
            raise ValueError(f"frame_wording {self.frame_wording!r} has no place for a time, such as {{:.1f}}")

    def group_times_s(self, clip: Clip) -> list[float]:
        """The time of each group of frames; of a last, smaller group that of its own frames."""
        firsts = range(0, clip.frames, self.group)
        return [float(clip.frames_s[k] + clip.frames_s[min(k + self.group, clip.frames) - 1]) / 2 for k in firsts]

    def frame_texts(self, clip: Clip) -> FrameTexts | None:
        """A marker before the first frame of each group."""
        if not self.frame_wording:
            return None
        opens, closes = (literal(token, any_of(VISION)) if self.around_group else Text() for token in VISION)
        outer = [literal(token, any_of(VISION)) if self.around_video else Text() for token in VISION]
        before = [Text() for _ in range(clip.frames)]
        for number, time_s in enumerate(self.group_times_s(clip)):
            in_front = (closes, self.between) if number else (outer[0],)
            before[number * self.group] = Text(*in_front, self.frame_wording.format(time_s, number=number + 1), opens)
        return FrameTexts(tuple(before), Text(closes, outer[1]))

    def time(self, time_s: float, clip: Clip) -> Text:
        """A time and its unit."""
        return Text(f"{time_s:.1f} seconds")

    def span(self, start_s: float, end_s: float, clip: Clip) -> Text:
        """As ``wording`` says; or its segments."""
        if self.answers == "segments":
            times_s = self.group_times_s(clip)
            first, last = (segment(time_s, times_s) for time_s in (start_s, end_s))
            return join(", ", (self.time(time_s, clip) for time_s in times_s[first : last + 1]))
        if self.snap:
            start_s, end_s = snapped(start_s, end_s, [round(time_s, 1) for time_s in self.group_times_s(clip)])
        return Text(self.wording.format(start=f"{start_s:.1f}", end=f"{end_s:.1f}"))

    def listing(self, spans: Sequence[Text]) -> Text:
        """One sentence, or a list."""
        if self.answers == "json":
            return Text(json.dumps([[float(number) for number in re.findall(r"\d+\.\d", span)] for span in spans]))
        if self.answers == "segments":
            return Text(join(", ", spans), ".")
        return Text(capital(Text(self.lead, join(", ", spans))), ".")

    def find(self, query: Query, answer: Answer, clip: Clip, head: nn.Module | None) -> list[Found]:
        """Spans in the wording that was learned; else what the words say."""
        if self.answers == "segments" and (found := self._segments(answer.text, clip)):
            return found
        named = [*(SPAN if self.answers == "sentence" else PAIR).finditer(answer.text)] or SPAN.finditer(answer.text)
        found = [Found(match.start(), match.end(), float(match[1]), float(match[2])) for match in named]
        return found or as_read(answer.text, clip.duration_s, query.task == "dense_captioning")

    def _segments(self, text: str, clip: Clip) -> list[Found]:
        """The stretches of neighbouring segments that an answer lists, each up to the next segment's time."""
        times_s, runs = self.group_times_s(clip), []
        for match in ONE.finditer(text):
            place = segment(float(match[1]) + ROUNDED_S, times_s)
            if runs and place == runs[-1][1] + 1:
                runs[-1] = (runs[-1][0], place, runs[-1][2], match.end())
            else:
                runs.append((place, place, match.start(), match.end()))
        ends_s = [*times_s[1:], clip.duration_s]
        return [Found(begin, end, times_s[first], ends_s[last]) for first, last, begin, end in runs]


def segment(time_s: float, times_s: Sequence[float]) -> int:
    """The last segment that begins before a time, of a time before all the first one."""
    return max(bisect_right(times_s, time_s) - 1, 0)


def snapped(start_s: float, end_s: float, times_s: Sequence[float]) -> tuple[float, float]:
    """The last time before a window and the first behind it; the nearest one twice where all are on one side."""
    before, behind = [t for t in times_s if t <= start_s], [t for t in times_s if t >= end_s]
    return (before[-1] if before else times_s[0]), (behind[0] if behind else times_s[-1])
