"""Windows, lengths and names in annotation records, checked."""

import math
import re
from collections.abc import Mapping, Sequence

from metrics.benchmarks.formats.files import FileError, describe, need
from metrics.spans import is_number, is_valid

VIDEO_ENDING = re.compile(r"\.(?:mp4|mkv|webm|avi|mov|m4v|mpg|flv|ts)$", re.IGNORECASE)
YOUTUBE_ID = 13
"""Letters of "v_" with a YouTube id, as ActivityNet and others name a video."""


def window(value: object, where: str) -> tuple[float, float]:
    """A target window.

    Raises:
        FileError: not two finite numbers in order.
    """
    if not is_valid(value) or len(value) != 2:
        raise FileError(f"{where}: a target window must be two numbers in order, got {describe(value)}")
    return float(value[0]), float(value[1])


def windows(value: object, where: str) -> tuple[tuple[float, float], ...]:
    """One target window, or a list of them.

    Raises:
        FileError: neither.
    """
    several = isinstance(value, Sequence) and bool(value) and isinstance(value[0], Sequence)
    return tuple(window(item, where) for item in (value if several or value == [] else [value]))


def windows_at(row: object, keys: Sequence[str], where: str) -> tuple[tuple[float, float], ...]:
    """The target windows under the first of the keys that a record has.

    Raises:
        FileError: no such key, no list, or a window that is none.
    """
    return tuple(window(item, where) for item in need(row, keys, where, list))


def duration(row: Mapping, where: str, *keys: str) -> float:
    """The length of the video of a record in seconds; NaN where it says nothing.

    Args:
        row: a record.
        where: file and place, for messages.
        keys: names of the length; without them ``duration``.

    Raises:
        FileError: it is no positive number.
    """
    for key in keys or ("duration",):
        value = row.get(key)
        if value is not None:
            if not (is_number(value) and value > 0):
                raise FileError(f"{where}: {key!r} must be seconds, got {describe(value)}")
            return float(value)
    return math.nan


def normal(text: str) -> str:
    """A sentence for comparison: case, outer spaces and the final full stop do not count."""
    return " ".join(text.lower().split()).removesuffix(".").strip()


def video_name(name: object) -> str:
    """A video for comparison: without folder and file ending, and without the "v_" in front of a YouTube id."""
    name = VIDEO_ENDING.sub("", str(name).replace("\\", "/").rpartition("/")[2])
    return name[2:] if name.startswith("v_") and len(name) == YOUTUBE_ID else name


def is_query_file(content: object) -> bool:
    """True for records of this project: ``id``, ``video``, ``task``."""
    first = content[0] if isinstance(content, list) and content else None
    return isinstance(first, dict) and {"id", "video", "task"} <= first.keys()
