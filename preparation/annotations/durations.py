"""How long videos are, from whatever file knows it."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from preparation.annotations.files import LAYOUT, read_csv, read_json, read_text

VIDEO_COLUMNS = ("video", "video_id", "vid", "id", "youtube_id", "name")
LENGTH_COLUMNS = ("duration_s", "duration", "length", "length_s")


@dataclass(frozen=True)
class Lengths:
    """What files say of how long videos are."""

    known: dict[str, float]
    """Video id -> seconds; 0 for an image."""
    untimed: frozenset[str]
    """Videos without a length, about which no record names a time."""


def read_durations(path: Path) -> dict[str, float]:
    """Video id -> seconds; 0 for an image. See ``read_lengths``."""
    return read_lengths([path]).known


def read_lengths(paths: Sequence[Path]) -> Lengths:
    """How long videos are.

    Args:
        paths: VTimeLLM dialogues (``meta.duration``; a sample with ``image`` is an image), VideoInstruct100K (which has
            no lengths), an ActivityNet Captions file, ``{video: seconds}``, a jsonl of ``{"id" or "video",
            "duration_s"}`` (so also our own annotation files), or a csv with a column for the video and one for its
            length (``Charades_v1_train.csv`` is one).

    Raises:
        ValueError: another layout, or two durations for one video.
    """
    known: dict[str, float] = {}
    places: dict[str, str] = {}
    timed, untimed = set(), set()
    for path in map(Path, paths):
        entries = _csv_entries if path.suffix == ".csv" else _json_entries
        for where, video, duration_s, has_times in entries(path):
            if duration_s is None:
                (timed if has_times else untimed).add(video)
                continue
            number = isinstance(duration_s, (int, float)) and not isinstance(duration_s, bool)
            if not number or not 0 <= duration_s < math.inf:
                raise ValueError(f"{path}, {where}: the duration of {video!r} is {duration_s!r}, no number of seconds")
            if known.setdefault(video, duration_s) != duration_s:
                before = f"{known[video]} s before ({places[video]})"
                raise ValueError(f"{path}, {where}: {video!r} lasts {duration_s} s here and {before}")
            places.setdefault(video, f"{path.name}, {where}")
    return Lengths(known, frozenset(untimed - timed - known.keys()))


def _csv_entries(path: Path) -> Iterator[tuple[str, str, float | str, bool]]:
    """(where, video id, seconds, true) of every row."""
    columns, rows = read_csv(path)
    video = next((column for column in VIDEO_COLUMNS if column in columns), None)
    length = next((column for column in LENGTH_COLUMNS if column in columns), None)
    if not video or not length:
        raise ValueError(
            f"{path}: the columns are {', '.join(columns) or 'missing'}; needs one of {', '.join(VIDEO_COLUMNS)} "
            f"and one of {', '.join(LENGTH_COLUMNS)}"
        )
    for where, row in rows:
        try:
            yield where, row[video], float(row[length]), True
        except (TypeError, ValueError):
            yield where, row[video], row[length] or "empty", True


def _json_entries(path: Path) -> Iterator[tuple[str, str, float | None, bool]]:
    """(where, video id, seconds or None, whether it names a time) of every entry."""
    if path.suffix == ".jsonl":
        lines = [line for line in read_text(path).split("\n") if line.strip()]
        content = [("line", number, line) for number, line in enumerate(lines, 1)]
    else:
        content = read_json(path)
        pairs = content.items() if isinstance(content, dict) else enumerate(content)
        content = [("entry", place, entry) for place, entry in pairs]
    for kind, place, entry in content:
        try:
            if kind == "line":
                yield f"line {place}", *_record(json.loads(entry))
            elif isinstance(place, str):
                yield f"entry {place!r}", place, entry["duration"] if isinstance(entry, dict) else entry, True
            else:
                yield f"entry {place}", *_sample(entry)
        except (ValueError, *LAYOUT) as error:
            raise ValueError(f"{path}, {kind} {place}: no id with a duration in it ({error!r})") from None


def _record(entry: Mapping) -> tuple[str, float | None, bool]:
    """Of one of our own records, or of ``{"id", "duration_s"}``."""
    told = entry.get("events") or entry.get("saliency") or any(turn.get("times") for turn in entry.get("turns", ()))
    return entry.get("video") or entry["id"], entry.get("duration_s"), bool(told) or entry.get("task") == "grounding"


def _sample(entry: Mapping) -> tuple[str, float | None, bool]:
    """Of a sample of VTimeLLM's files, LCS-558K or VideoInstruct100K."""
    meta, image = entry.get("meta") or {}, 0.0 if "image" in entry else None
    name = entry["id"] if "id" in entry else entry["video_id"]
    return name, meta.get("duration", image), bool(meta.get("token") or meta.get("loc"))
