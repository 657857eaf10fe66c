"""Times in published texts -> markers: ``<vid>`` tokens, or numbers that are written out."""

import re
from collections.abc import Sequence

from datamodules.markup import MARKER

TOKEN = "<vid>"
NUMBER = re.compile(r"\d+(?:\.\d+)?")
PAIR = re.compile(r"\s*(?:-|–|to|and)\s*(\d+(?:\.\d+)?)")
ROUNDING_S = 0.051
"""Texts round to a tenth of a second."""


def in_seconds(text: str, times_s: Sequence[float]) -> str:
    """A text whose tokens, which come in the order of ``times_s``, are written out."""
    for time_s in times_s:
        text = text.replace(TOKEN, f"{time_s:.1f}", 1)
    return text


class TimeMarks:
    """Replaces the times of texts, which come in the order of ``times_s``, by markers.

    Args:
        times_s: seconds, in the order in which the texts name them.
        paired: whether they are starts and ends in turn (``<s0>``, ``<e0>``) or single moments (``<s0>``, ``<s1>``).
        first: number of the first marker.
    """

    def __init__(self, times_s: Sequence[float], paired: bool, first: int = 0):
        self.times_s, self.paired, self.first, self._used = list(times_s), paired, first, 0

    def replace(self, text: str) -> tuple[str, dict[str, float]]:
        """The text with markers, and their seconds.

        Raises:
            ValueError: a token has no time, or the text itself says what would be taken for a marker.
        """
        if found := MARKER.search(text):
            raise ValueError(f"text that reads like a time marker: {found[0]!r}")
        times: dict[str, float] = {}
        if TOKEN in text:
            pieces = text.split(TOKEN)
            if len(pieces) - 1 > len(self.times_s) - self._used:
                raise ValueError(f"more {TOKEN} than times: {text[:80]!r}")
            return pieces[0] + "".join(self._mark(times) + piece for piece in pieces[1:]), times
        return NUMBER.sub(lambda match: self._mark(times) if self._is_next(match) else match[0], text), times

    def finish(self) -> int:
        """Number of the next free marker. Raises ValueError if a time was in no text."""
        if self._used < len(self.times_s):
            raise ValueError(f"time that is not in the text: {self.times_s[self._used]}")
        return self.first + (self._used + self.paired) // (1 + self.paired)

    def _mark(self, times: dict[str, float]) -> str:
        place = self._used
        marker = f"<{'se'[place % 2]}{self.first + place // 2}>" if self.paired else f"<s{self.first + place}>"
        times[marker] = self.times_s[place]
        self._used += 1
        return marker

    def _is_next(self, match: re.Match) -> bool:
        """Whether a number is the next time; a start must also have its end behind it."""
        if self._used == len(self.times_s) or abs(float(match[0]) - self.times_s[self._used]) > ROUNDING_S:
            return False
        if not self.paired or self._used % 2:
            return True
        end = PAIR.match(match.string, match.end())
        return bool(end) and abs(float(end[1]) - self.times_s[self._used + 1]) <= ROUNDING_S
