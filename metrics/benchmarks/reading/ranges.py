"""Windows from the tokens of a sentence: two times with a word that joins them, or with words for start and end."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from metrics.benchmarks.reading.gaps import SENTENCE_ENDS, SOFT, cut_off, ends, joins, led, outside_brackets
from metrics.benchmarks.reading.tokens import Token
from metrics.benchmarks.reading.vocabulary import SECONDS_IN, listed

SAME_S = 1.0
"""Two ways of writing one time ("0:12 (12 seconds)") differ by rounding only."""
CLOSE_TO_LENGTH = frozenset(
    listed("about around approximately roughly another a just only circa etwa the exactly nearly of is was")
)


@dataclass(frozen=True)
class Scale:
    """What relative units are relative to."""

    duration_s: float | None
    """Length of the video; None: unknown."""
    rate: float | None = None
    """Frames a second that the answer speaks of."""

    def seconds(self, value: float, unit: str | None) -> float | None:
        """A value of a unit in seconds; None where that cannot be known. A bare number is seconds."""
        if unit == "%":
            return value * self.duration_s / 100 if self.duration_s else None
        if unit == "frame":
            return value / self.rate if self.rate else None
        return value * SECONDS_IN[unit or "s"]


@dataclass
class Times:
    """The times of a text and the tokens around them: ``gaps[i]`` stands in front of ``times[i]``."""

    times: list[Token] = field(default_factory=list)
    gaps: list[list[Token]] = field(default_factory=lambda: [[]])

    @classmethod
    def of(cls, tokens: Sequence[Token]) -> "Times":
        """Split tokens at their times; a time said again in brackets counts once."""
        found = cls()
        for token in tokens:
            if token.is_time and not found.said_again(token):
                found.times.append(token)
                found.gaps.append([])
            elif not token.is_time:
                found.gaps[-1].append(token)
        return found

    def said_again(self, token: Token) -> bool:
        """True for "(12 seconds)" behind "0:12"."""
        if not self.times or [t.text for t in self.gaps[-1]] not in (["("], ["="], ["]", "("]):
            return False
        units = {token.unit, self.times[-1].unit}
        if units & {"%", "frame"} or len(units) == 1:
            return False
        scale = Scale(None)
        pair = (scale.seconds(token.value, token.unit), scale.seconds(self.times[-1].value, self.times[-1].unit))
        return abs(pair[0] - pair[1]) < SAME_S


@dataclass
class Found:
    """What the tokens of a text say."""

    windows: list[tuple[float, float]] = field(default_factory=list)
    """In the order said; an end may stand in front of its start."""
    rule: str = ""
    points: list[float] = field(default_factory=list)
    """Moments without length."""
    places: list[tuple[int, int]] = field(default_factory=list)
    """Of each window of a sentence: where it stands in the text."""
    bare: bool = True
    """Every window is made of numbers without units."""


def read_ranges(tokens: Sequence[Token], scale: Scale) -> Found:
    """Windows and points, from left to right."""
    text = Times.of(tokens)
    reader = Reader(text, scale)
    i = 0
    while i < len(text.times):
        i += reader.step(i)
    return reader.finish()


class Reader:
    """Walks over the times of a text and pairs them."""

    def __init__(self, text: Times, scale: Scale):
        self.text, self.scale = text, scale
        self.found = Found()
        self.weak: list[tuple[float, float]] = []
        """Pairs of whole numbers that may count something ("2 - 3 people")."""
        self.start: int | None = None
        """A time with a word for start that waits for its end."""
        self.end: int | None = None
        """A time with a word for end that waits for its start."""
        self.pointed: int | None = None
        """The last time that was read as a moment."""

    def step(self, i: int) -> int:
        """Read the time at place i; returns how many times were used."""
        text = self.text
        if i + 1 < len(text.times) and self.joined(i):
            self.pair(i, i + 1, "range")
            self.start = self.end = None
            return 2
        label = self.label(i)
        if label == "end" and self.start is not None:
            self.pair(self.start, i, "start and end")
            self.start = None
        elif label == "start" and self.end is not None:
            self.pair(i, self.end, "start and end")
            self.end = None
        elif label == "length":
            if self.start is not None:
                self.length(self.start, i)
                self.start = None
        elif label == "start":
            self.point(i)
            self.start = i
        elif label == "end":
            before = self.point(i)
            if before is not None:  # "enters at 3 s and leaves at 7 s"
                self.pair(before, i, "start and end")
            else:
                self.end = i
        else:
            self.point(i)
        return 1

    def joined(self, i: int) -> bool:
        """True where this time and the next are the ends of one window."""
        first, second, gap = self.text.times[i], self.text.times[i + 1], outside_brackets(self.text.gaps[i + 1])
        if ("%" in (first.unit, second.unit)) and {first.unit, second.unit} - {"%", None}:
            return False
        before, behind = self.text.gaps[i], self.text.gaps[i + 2]
        if led(before, gap, second):
            return True
        if joins(gap):
            return not (self.label(i) == "end" and any("start" in token.parts for token in gap))
        if gap and all(token.parts & {"and", "filler", "at"} for token in gap) and any("and" in t.parts for t in gap):
            opened = any("between" in token.parts for token in before)
            closed = bool(behind) and "after_between" in behind[0].parts
            plain = len(gap) == 1 and bool(before) and "from" in before[-1].parts
            return opened or closed or plain or self.alone(2)
        return (
            bool(gap)
            and all(t.text in (",", "\n", ";", "|", "/", ":") for t in gap)
            and self.alone(2)
            or (not gap and self.alone(2))
        )

    def alone(self, count: int) -> bool:
        """True where the text holds so many times and nothing else that means something."""
        if len(self.text.times) != count:
            return False
        edges = self.text.gaps[0] + self.text.gaps[-1]
        return all(token.parts & {"filler", "newline", "mark", "from", "at"} for token in edges)

    def label(self, i: int) -> str | None:
        """start, end, length or at: what the words in front of a time say of it (in Chinese also those behind)."""
        behind = self.text.gaps[i + 1][:1]
        if behind and behind[0].parts & {"start", "end"} and behind[0].text[0] > "\u2e80":
            return "start" if "start" in behind[0].parts else "end"
        crossed = False
        near = True
        for token in reversed(self.text.gaps[i]):
            if token.text in SENTENCE_ENDS:
                return None
            crossed |= token.parts == {"newline"}
            if near and "length" in token.parts:
                return "length"
            near &= token.text in CLOSE_TO_LENGTH or token.text in ":=("
            if token.parts & {"start", "end"}:
                return "end" if "end" in token.parts else "start"
            if crossed and not token.parts & (SOFT | {"newline", "mark"}):
                return None
        return None

    def units(self, first: Token, second: Token) -> tuple[str | None, str | None]:
        """The units of two ends; a bare number has the unit of the other one."""
        known = first.unit or second.unit
        shared = "s" if known == "clock" else known
        return first.unit or shared, second.unit or shared

    def pair(self, i: int, j: int, rule: str) -> None:
        """Keep a window from two times."""
        first, second = self.text.times[i], self.text.times[j]
        units = self.units(first, second)
        values = [self.scale.seconds(t.value, unit) for t, unit in zip((first, second), units, strict=True)]
        if None in values:
            return
        if rule == "range" and units == (None, None) and first.whole and second.whole and self.counts(i, j):
            self.weak.append((values[0], values[1]))
            return
        self.keep((values[0], values[1]), rule, i, j)

    def counts(self, i: int, j: int) -> bool:
        """True for whole numbers in front of a word that is neither a time nor a small word: "2 - 3 people"."""
        behind = self.text.gaps[j + 1][:1]
        return bool(behind) and behind[0].parts == {"other"}

    def length(self, i: int, j: int) -> None:
        """Keep a window from a start and a length."""
        first, second = self.text.times[i], self.text.times[j]
        units = self.units(first, second)
        start, length = (self.scale.seconds(t.value, u) for t, u in zip((first, second), units, strict=True))
        if start is not None and length is not None:
            self.keep((start, start + length), "start and length", i, j)

    def keep(self, window: tuple[float, float], rule: str, i: int, j: int) -> None:
        """Keep a window that the times at two places make."""
        first, second = self.text.times[i], self.text.times[j]
        self.found.rule = self.found.rule or rule
        self.found.bare &= first.unit is None and second.unit is None
        self.found.windows.append(window)
        self.found.places.append((min(first.place[0], second.place[0]), max(first.place[1], second.place[1])))

    def point(self, i: int) -> int | None:
        """Keep a moment, if the time is said to be one; returns the place of a point just in front of it."""
        token, before, behind = self.text.times[i], self.text.gaps[i], self.text.gaps[i + 1]
        words = [t for t in before if t.text[0].isalpha()][-1:]
        told = bool(words) and bool(words[0].parts & {"at", "from", "start", "end", "between"} or words[0].text == "in")
        dangling = i + 1 == len(self.text.times) and cut_off(behind)
        if behind and "long" in behind[0].parts and token.unit is not None:
            return None
        if not (token.unit is not None or (told and (not token.whole or ends(behind))) or dangling or self.alone(1)):
            return None
        value = self.scale.seconds(token.value, token.unit) if token.unit != "frame" else None
        if value is None:
            return None
        self.found.points.append(value)
        last, self.pointed = self.pointed, i
        return last if last == i - 1 and not self.found.windows else None

    def finish(self) -> Found:
        """What was found. Counts of things are windows only where nothing else is and something speaks for it."""
        before = self.text.gaps[0]
        spoken = {"happens", "in"} & {token.text for token in before}
        if not self.found.windows and (spoken or any(token.parts & {"from", "between", "at"} for token in before)):
            self.found.windows, self.found.rule = self.weak, "range" if self.weak else ""
        return self.found
