"""How long videos are, from whatever file knows it."""

import json
import math
from collections.abc import Iterator
from pathlib import Path

from preparation.annotations.files import read_csv, read_json, read_text

VIDEO_COLUMNS = ("video", "video_id", "vid", "id", "youtube_id", "name")
LENGTH_COLUMNS = ("duration_s", "duration", "length", "length_s")


def read_durations(path: Path) -> dict[str, float]:
    """Video id -> seconds; 0 for an image.

    Args:
        path: VTimeLLM dialogues (``meta.duration``; a sample with ``image`` is an image), an ActivityNet Captions
            file, ``{video: seconds}``, a jsonl of ``{"id" or "video", "duration_s"}`` (so also our own annotation
            files), or a csv with a column for the video and one for its length (``Charades_v1_train.csv`` is one).

    Raises:
        ValueError: another layout, or two durations for one video.
    """
    durations: dict[str, float] = {}
    entries = _csv_entries if Path(path).suffix == ".csv" else _json_entries
    for where, video, duration_s in entries(Path(path)):
        if duration_s is None:
            continue
        if isinstance(duration_s, bool) or not isinstance(duration_s, (int, float)) or not 0 <= duration_s < math.inf:
            raise ValueError(f"{path}, {where}: the duration of {video!r} is {duration_s!r}, not a number of seconds")
        if durations.setdefault(video, duration_s) != duration_s:
            raise ValueError(f"{path}, {where}: {video!r} lasts {duration_s} s here and {durations[video]} s before")
    return durations


def _csv_entries(path: Path) -> Iterator[tuple[str, str, float | str]]:
    """(where, video id, seconds) of every row."""
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
            yield where, row[video], float(row[length])
        except (TypeError, ValueError):
            yield where, row[video], row[length] or "empty"


def _json_entries(path: Path) -> Iterator[tuple[str, str, float | None]]:
    """(where, video id, seconds or None) of every entry."""
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
                entry = json.loads(entry)
                yield f"line {place}", entry.get("video") or entry["id"], entry.get("duration_s")
            elif isinstance(place, str):
                yield f"entry {place!r}", place, entry["duration"] if isinstance(entry, dict) else entry
            else:
                image = 0.0 if "image" in entry else None
                yield f"entry {place}", entry["id"], (entry.get("meta") or {}).get("duration", image)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"{path}, {kind} {place}: no id with a duration in it ({error!r})") from None
