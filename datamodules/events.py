"""Spans of a video, in seconds."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Event:
    """Something that happens between two times. In a dialogue it may be an instant, which is one frame.

    Raises:
        ValueError: a time is not finite or negative, or the end is before the start.
    """

    start_s: float
    end_s: float
    caption: str = ""
    """One sentence, without a final full stop."""
    detail: str = ""
    """A longer description of the same event (query-focused captioning), if there is one."""

    def __post_init__(self):
        for key in ("start_s", "end_s"):
            value = getattr(self, key)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
                raise ValueError(f"{key} must be a finite number of seconds, got {value!r}")
        for key in ("caption", "detail"):
            if not isinstance(getattr(self, key), str):
                raise ValueError(f"{key} must be text, got {getattr(self, key)!r}")
        if self.start_s < 0:
            raise ValueError(f"start_s must not be negative, got {self.start_s}")
        if self.end_s < self.start_s:
            raise ValueError(f"end_s must be after start_s, got start_s={self.start_s}, end_s={self.end_s}")

    @property
    def span(self) -> tuple[float, float]:
        """(start_s, end_s)."""
        return self.start_s, self.end_s


@dataclass(frozen=True)
class Part:
    """A clip that is a part of a longer file.

    Raises:
        ValueError: no file is named, or the times are no span of it.
    """

    file: str
    """Name of the file without its ending, or its path in the folder of videos."""
    start_s: float
    end_s: float

    def __post_init__(self):
        if not isinstance(self.file, str) or not self.file:
            raise ValueError(f"file must be a non-empty string, got {self.file!r}")
        if Event(self.start_s, self.end_s).start_s == self.end_s:
            raise ValueError(f"end_s must be after start_s, got {self.start_s} for both")
