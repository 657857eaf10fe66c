"""The time axis of a video as a model sees it."""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from datamodules.schema import Video

JITTER_S = 0.1
"""Frames that are at most this far from evenly spaced count as evenly spaced."""

SLOWEST_S = 0.5
"""Of files with fewer pictures than one in this time, frames always stand where they are shown."""


@dataclass(frozen=True)
class Clip:
    """The time axis of a video as the model sees it.

    A model knows frames by their number. So localizers write times on an *even* axis, on which frame ``k`` stands at
    second ``k / frames_per_s``, and read them from it. Where frames are evenly spaced this is time itself. Where they
    are not (a varying rate, frames that were dropped), ``even_s`` and ``true_s`` stretch between the two.
    """

    duration_s: float
    """Length of the clip that times refer to."""
    frames: int
    frames_per_s: float
    """Of evenly spaced frames; else on the average."""
    frame_times_s: np.ndarray | None = field(default=None, compare=False, repr=False)
    """(T,) true seconds of each frame, non-decreasing. None: evenly spaced from 0 on."""

    @classmethod
    def of(cls, video: Video, duration_s: float) -> "Clip":
        """The axis of a video with its frames.

        Decoders give times such as 4.98 s for the frame of second 5. A rate that is a multiple of 0.1 but for such
        jitter (below 0.05 s over the whole video) is taken as that multiple, so that times at 1 fps are frame numbers.
        """
        times_s, frames = video.frame_times_s, len(video.features)
        length_s = float(times_s[-1] - times_s[0])
        rate = (frames - 1) / length_s if length_s > 0 else frames / (duration_s or 1.0)
        nominal = round(rate, 1)
        if nominal and abs((frames - 1) / nominal - length_s) < 0.05:
            rate = nominal
        return cls(duration_s, frames, rate, times_s)

    @cached_property
    def shown_s(self) -> np.ndarray | None:
        """(T,) when each frame begins to be shown, increasing; None: frames are evenly spaced.

        A picture that a file shows for long may stand several times; its frames share the time until the next.
        """
        times_s = self.frame_times_s
        if times_s is None or len(times_s) < 2 or _numbered_evenly(times_s):
            return None
        distinct, number, count = np.unique(times_s, return_inverse=True, return_counts=True)
        until_s = np.append(distinct[1:], max(self.duration_s, distinct[-1] + count[-1] / self.frames_per_s))
        place = np.arange(len(times_s)) - np.searchsorted(times_s, distinct)[number]
        shown_s = distinct[number] + (until_s - distinct)[number] * place / count[number]
        even_s = np.linspace(shown_s[0], shown_s[-1], len(shown_s))
        return None if abs(shown_s - even_s).max() <= JITTER_S else shown_s

    @property
    def frames_s(self) -> np.ndarray:
        """(T,) the second at which each frame was decoded."""
        return np.arange(self.frames) / self.frames_per_s if self.frame_times_s is None else self.frame_times_s

    @property
    def even(self) -> bool:
        """Whether frames are evenly spaced, so that the even axis is time."""
        return self.shown_s is None

    def even_s(self, time_s: float) -> float:
        """A time on the even axis: linear between frames, and beyond the first and the last as fast as time."""
        if self.shown_s is None:
            return time_s
        return _along(time_s, self.shown_s, np.arange(self.frames) / self.frames_per_s)

    def true_s(self, even_s: float) -> float:
        """The time at a second of the even axis; undoes ``even_s``."""
        if self.shown_s is None:
            return even_s
        return max(_along(even_s, np.arange(self.frames) / self.frames_per_s, self.shown_s), 0.0)


def _numbered_evenly(times_s: np.ndarray) -> bool:
    """Whether frames are pictures of a constant rate, chosen by numbers that are evenly spaced but for truncation.

    So ``uniform 100`` chooses. Such frames are off by a picture at most, and the papers take them for evenly spaced.
    """
    gaps_s = np.diff(times_s)
    picture_s = gaps_s.max() - gaps_s.min()
    if not 1e-3 < picture_s <= SLOWEST_S:
        return False
    numbers = (times_s - times_s[0]) / picture_s
    return abs(numbers - np.trunc(np.linspace(0, round(numbers[-1]), len(numbers)))).max() < 0.1


def _along(value: float, knots: np.ndarray, places: np.ndarray) -> float:
    """Where a value lies that moves from place to place as it moves from knot to knot."""
    inside = float(np.interp(value, knots, places))
    return inside + min(value - knots[0], 0.0) + max(value - knots[-1], 0.0)
