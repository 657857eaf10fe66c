"""Which pictures of a video are encoded, chosen by when they are shown.

Shape suffixes: N pictures of a file, T chosen frames.
"""

import math
import re
from dataclasses import dataclass

import numpy as np

from preparation.features.timeline import EARLY_S, Timeline

ROUNDING_S = 1e-6
RATE = re.compile(r"(\d+\.?\d*|\.\d+) fps(?: max (\d+))?")
RULES = {"": 1, "qwen_vl_utils": 2, "transformers": 1}
"""Whose rule chooses the frames (ours, or one of the two for Qwen's models) -> what their number is a multiple of."""
QWEN_FEWEST, QWEN_MOST = 4, 768
"""Frames of a video in Qwen's rules, as far as it has so many."""


@dataclass(frozen=True)
class Sampling:
    """Which frames of a video are encoded: exactly one of a number of frames and a rate."""

    frames: int | None = None
    fps: float | None = None
    max_frames: int | None = None
    """Of a rate: a clip that would have more frames has this many, at the lower rate at which they fit."""
    rule: str = ""
    """Of whom, a key of ``RULES``. Qwen's two spread the frames of a rate evenly from the first picture to the last;
    ``qwen_vl_utils`` takes an even number of them, as its models read pairs."""

    @classmethod
    def parse(cls, text: str) -> "Sampling":
        """``uniform 100``, ``1.0 fps`` or ``1.0 fps max 350``, the wording of FeatureHeader.sampling; with the name of
        a rule in front, it is that one's.
        """
        first, *more = text.split() or [""]
        rule, words = (first, more) if first in RULES else ("", [first, *more])
        match words:
            case ["uniform", frames] if frames.isdecimal() and int(frames) > 0:
                return cls(frames=int(frames), rule=rule)
        if (rate := RATE.fullmatch(" ".join(words))) and float(rate[1]) > 0 and rate[2] != "0":
            return cls(fps=float(rate[1]), max_frames=int(rate[2]) if rate[2] else None, rule=rule)
        raise ValueError(
            "sampling must read like 'uniform 100' or '1.0 fps' or '1.0 fps max 350', and may have qwen_vl_utils or "
            f"transformers in front, got {text!r}"
        )

    def __str__(self) -> str:
        rate = f"uniform {self.frames}" if self.frames else f"{self.fps} fps"
        return f"{self.rule} {rate}".strip() + (f" max {self.max_frames}" if self.max_frames else "")

    def rate(self, length_s: float) -> tuple[int, float]:
        """Frames of a clip of ``length_s`` seconds, and how many a second; of a sampling by rate."""
        count = max(1, math.ceil(length_s * self.fps - ROUNDING_S))
        if self.max_frames and count > self.max_frames:
            return self.max_frames, self.max_frames / length_s
        return count, self.fps

    def indices(self, total_frames: int, fps: float, start_s: float | None = None, end_s: float | None = None):
        """Frame numbers to decode in a file of a constant rate.

        Args:
            total_frames: frames in the file.
            fps: frame rate of the file.
            start_s: begin of the clip inside the file.
            end_s: end of the clip inside the file.

        Returns:
            (T,) int array, non-decreasing; short clips repeat frames.

        Raises:
            ValueError: the clip is empty or begins after the end of the file.

        Source: VTimeLLM, ``mm_utils.py`` for the uniform rule (both ends included, truncated to int).
        """
        length_s = clip_length_s(total_frames / fps, start_s, end_s)
        begin = 0.0 if start_s is None else max(fps * start_s, 0.0)
        first = math.ceil(begin) if self.rule else int(begin)
        last = total_frames - 1 if end_s is None else min(int(fps * end_s), total_frames - 1)
        return self._numbers(min(first, last), last, length_s, fps)

    def choose(self, timeline: Timeline, start_s: float | None = None, end_s: float | None = None) -> np.ndarray:
        """Which pictures of a file to encode: the one that is on the screen at each of some times.

        Where pictures follow each other at a constant rate they are chosen by number, as VTimeLLM does it, else by
        time. The first is the one on the screen at ``start_s`` if it appeared at most ``EARLY_S`` earlier, otherwise
        the first that appears inside the clip; where none does, it is the one that stays.

        Args:
            timeline: when the N pictures of the file are shown.
            start_s: begin of the clip inside the file.
            end_s: end of the clip inside the file.

        Returns:
            (T,) numbers of pictures, non-decreasing; short clips repeat pictures.

        Raises:
            ValueError: the clip is empty or begins after the end of the file.
        """
        length_s, times_s, rate = clip_length_s(timeline.duration_s, start_s, end_s), timeline.times_s, timeline.rate
        begin_s, end_s = max(start_s or 0.0, 0.0), timeline.duration_s if end_s is None else end_s
        if rate:
            first, last = (min(int(rate * time_s), len(times_s) - 1) for time_s in (begin_s, end_s))
            last -= times_s[last] > end_s + ROUNDING_S
        else:
            first, last = (int(_shown(times_s, time_s)) for time_s in (begin_s, end_s))
        first += begin_s - times_s[first] > EARLY_S + ROUNDING_S
        first = min(first, last)
        if rate:
            return self._numbers(first, last, length_s, rate)
        if self.frames or self.rule:
            pictures = last - first + 1
            count = self._count(pictures, pictures / length_s) if self.rule else self.frames
            wanted_s, early_s = np.linspace(times_s[first], times_s[last], count), ROUNDING_S
        else:
            count, fps = self.rate(length_s)
            wanted_s, early_s = begin_s + np.arange(count) / fps, min(timeline.step_s / 2, EARLY_S)
        return _shown(times_s, wanted_s, early_s).clip(first, last)

    def _numbers(self, first: int, last: int, length_s: float, fps: float) -> np.ndarray:
        """(T,) numbers from ``first`` to ``last`` in a clip of ``length_s`` seconds, ``fps`` a second."""
        if self.rule:
            return np.linspace(first, last, self._count(last - first + 1, fps)).round().astype(np.int32)
        if self.frames:
            return np.linspace(first, last, self.frames).astype(np.int32)
        count, rate = self.rate(length_s)
        return np.minimum(np.round(first + np.arange(count) * fps / rate).astype(np.int32), last)

    def _count(self, pictures: int, fps: float) -> int:
        """How many of a clip's pictures one of Qwen's rules takes.

        Raises:
            ValueError: there are fewer pictures than it needs.
        """
        factor = RULES[self.rule]
        if self.frames:
            count = round(self.frames / factor) * factor
        else:
            most, fewest = min(self.max_frames or QWEN_MOST, pictures), QWEN_FEWEST
            count = int(min(max(int(pictures / fps * self.fps), fewest), most) / factor) * factor
        if not factor <= count <= pictures:
            raise ValueError(f"{self.rule} takes {max(count, factor)} pictures, and the clip has {pictures}")
        return count


def clip_length_s(duration_s: float, start_s: float | None, end_s: float | None) -> float:
    """Seconds from ``start_s`` to ``end_s`` in a file of ``duration_s`` seconds.

    Raises:
        ValueError: there are none.
    """
    first_s, last_s = max(start_s or 0.0, 0.0), duration_s if end_s is None else min(end_s, duration_s)
    if not first_s < last_s:
        raise ValueError(f"the clip {start_s}..{end_s} s is empty in a file of {duration_s:.2f} s")
    return last_s - first_s


def _shown(times_s: np.ndarray, at_s: float | np.ndarray, early_s: float = ROUNDING_S) -> np.ndarray:
    """Number of the picture that is on the screen, or will be within ``early_s``."""
    return np.searchsorted(times_s, at_s + early_s, side="right") - 1
