"""Annotations of moments to find: a sentence about a video, and when it happens. Windows are in seconds."""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path

from metrics.benchmarks.answers import read_moments
from metrics.benchmarks.formats.files import (
    Collector,
    FileError,
    by_id,
    first_of,
    need,
    read,
    read_text,
    record,
    rows,
    table,
)
from metrics.benchmarks.formats.stories import event_window
from metrics.benchmarks.formats.windows import duration, is_query_file, video_name, window, windows
from metrics.spans import is_number

CHARADES_LINE = re.compile(r"(\S+) (\S+) (\S+)##(.*)")
VIDEO_KEYS = ("vid", "video", "video_id", "image_id", "video_path", "path", "video_uid")
TEXT_KEYS = ("query", "sentence", "question", "caption", "description", "problem", "text")
TARGET_KEYS = ("gt", "relevant_windows", "timestamp", "timestamps", "span", "solution", "correct_interval", "answer")


@dataclass(frozen=True)
class Moment:
    """A described moment of a video."""

    id: str
    video: str
    text: str
    windows: tuple[tuple[float, float], ...]
    """[] where it does not happen."""
    duration_s: float = math.nan
    named: bool = False
    """The id stands in the annotations; otherwise it was made up from the place of the record."""
    groups: Mapping[str, str] = field(default_factory=dict, compare=False)
    """Kinds that results are broken down by, such as ``query_modality``."""


def moments(path: Path | str, collector: Collector | None = None) -> list[Moment]:
    """Grounding annotations.

    Known layouts: this project's queries; ``{video: {timestamps, sentences, duration}}`` (ActivityNet Captions, and
    TACoS with ``fps``, whose times are frames); ``{video: {spans, queries, duration}}`` (TimeLens-Bench);
    ``{"database": {video: {annotations: [{label, segment}]}}}`` and text lines ``VIDEO start end##sentence``
    (Charades-STA); ``{"annotations": [{image_id, caption, timestamp, id}]}`` (TimeChat); ``{"videos": [{clips: ..}]}``
    (Ego4D NLQ); rows with ``events: [{query, span}]`` or ``query`` and ``span`` (TimeLens-100K, TimeLens2); DiDeMo's
    rows with ``times``; rows of a video, a sentence and one window or several, under the names that data sets use.

    Args:
        path: the file.
        collector: what becomes of bad records; None: the first one is an error.

    Raises:
        FileError: none of these, or a bad record.
    """
    collector = collector or Collector()
    path = Path(path)
    if path.suffix == ".txt":
        found = [moment for make in charades_lines(path) for moment in collector.add(make)]
    else:
        found = [moment for make in makers(read(path, collector), path, collector) for moment in collector.add(make)]
    if not found:
        raise FileError(f"{path}: holds no moment to find")
    by_id(((moment.id, moment) for moment in found), path)
    return found


def makers(content: object, path: Path, collector: Collector) -> Iterator[Callable[[], Moment]]:
    """One function for each moment of a decoded file; it gives the moment, or raises FileError."""
    if isinstance(content, dict) and isinstance(content.get("annotations"), list):
        content = content["annotations"]
    if isinstance(content, dict):
        if isinstance(content.get("database"), dict):
            content = content["database"]
        elif isinstance(content.get("videos"), list):
            for number, video in enumerate(content["videos"], 1):
                yield from chain(*collector.add(lambda v=video, n=number: list(ego4d(v, f"{path}, video {n}"))))
            return
        for video, entry in table(content, path).items():
            where = f"{path}, video {video!r}"
            yield from chain(*collector.add(lambda v=video, e=entry, w=where: list(of_video(v, e, w))))
        return
    own = is_query_file(content)
    for i, row in enumerate(rows(content, path, collector), 1):
        where = f"{path}, record {i}"
        if own:
            if row.get("task", "grounding") == "grounding":
                yield partial(query_moment, row, where)
        elif isinstance(row.get("events"), list):
            yield from (partial(event_moment, row, i, k, where) for k in range(len(row["events"])))
        else:
            yield partial(row_moment, row, i, where)


def query_moment(row: Mapping, where: str) -> Moment:
    """One of this project's queries."""
    need(row, ["task"], where)
    name, video = need(row, ["id"], where, str), need(row, ["video"], where, str)
    found = tuple(event_window(event, where) for event in row.get("events", ()))
    return Moment(name, video, str(row.get("text", "")), found, duration(row, where, "duration_s"), named=True)


def of_video(video: str, entry: object, where: str) -> Iterator[Callable[[], Moment]]:
    """The moments of ``{annotations}``, ``{spans, queries}`` or ``{timestamps, sentences}``."""
    spans = need(entry, ["timestamps", "spans", "annotations"], where, list)
    key = next(key for key in ("timestamps", "spans", "annotations") if key in entry)
    if key == "annotations":
        texts = [need(item, ["label"], where, str) for item in spans]
        spans = [need(item, ["segment"], where) for item in spans]
    else:
        texts = need(entry, ["queries" if key == "spans" else "sentences"], where, list)
    if len(spans) != len(texts):
        raise FileError(f"{where}: {len(spans)} windows for {len(texts)} sentences")
    frames = key == "timestamps" and is_number(entry.get("fps")) and "num_frames" in entry
    rate = float(entry["fps"]) if frames else 1.0
    for i, (span, text) in enumerate(zip(spans, texts, strict=True)):
        yield partial(spoken_moment, f"{video}/grounding/{i}", video, text, span, rate, entry, where)


def spoken_moment(name: str, video: str, text: object, span: object, rate: float, entry: Mapping, where: str) -> Moment:
    """A moment of a video's list; times are divided by the rate."""
    length = duration(entry, where)
    if math.isnan(length) and rate != 1.0:
        length = float(entry["num_frames"]) / rate
    found = tuple((start / rate, end / rate) for start, end in windows(span, where))
    return Moment(name, video, str(text), found, length)


def charades_lines(path: Path) -> Iterator[Callable[[], Moment]]:
    """The moments of a Charades-STA text file."""
    count: dict[str, int] = {}
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if line.strip():
            yield partial(charades_line, line, count, f"{path}, line {number}")


def charades_line(line: str, count: dict[str, int], where: str) -> Moment:
    """The moment of one line; its id counts the lines of its video."""
    match = CHARADES_LINE.fullmatch(line.strip())
    try:
        times = float(match[2]), float(match[3])
    except (TypeError, ValueError):
        raise FileError(f"{where}: expected 'VIDEO start end##sentence', got {line[:60]!r}") from None
    index = count[match[1]] = count.get(match[1], -1) + 1
    return Moment(f"{match[1]}/grounding/{index}", match[1], match[4], (window(times, where),))


def event_moment(row: Mapping, number: int, k: int, where: str) -> Moment:
    """The k-th event of a row of TimeLens-100K or TimeLens2."""
    event, video = row["events"][k], str(need(row, VIDEO_KEYS, where))
    text, found = str(need(event, TEXT_KEYS, where)), windows(need(event, ["span"], where), where)
    return Moment(f"{number}/{k}", video_name(video), text, found, duration(row, where))


def row_moment(row: Mapping, number: int, where: str) -> Moment:
    """A row of a video, a sentence and one window or several."""
    video, text = str(need(row, VIDEO_KEYS, where)), str(need(row, TEXT_KEYS, where))
    if "times" in row:
        found = tuple((5.0 * first, 5.0 * (last + 1)) for first, last in windows(row["times"], where))
    else:
        found = targets(need(row, TARGET_KEYS, where), where)
    name = first_of(row, ("id", "qid", "query_id", "annotation_id"))
    groups = {
        key: str(row[key]) for key in ("duration_category", "query_format", "query_modality", "task") if key in row
    }
    length = duration(row, where, "duration", "video_duration_s", "duration_s")
    return Moment(str(number if name is None else name), video, text, found, length, name is not None, groups)


def targets(value: object, where: str) -> tuple[tuple[float, float], ...]:
    """Target windows, also as text such as "13.4 - 28.1" (TVGBench) or "[[3, 7]]" (tables).

    Raises:
        FileError: there is none.
    """
    if not isinstance(value, str):
        return windows(value, where)
    parsed = read_moments(value)
    if not parsed.windows and parsed.rule != "none":
        raise FileError(f"{where}: no target window in {value!r:.60}")
    return parsed.windows


def ego4d(video: object, where: str) -> Iterator[Callable[[], Moment]]:
    """The moments of a video of Ego4D NLQ; an id is "clip_uid/annotation_uid/place of the query"."""
    for clip in need(video, ["clips"], where, list):
        place = f"{where}, clip {need(clip, ['clip_uid'], where)!r}"
        for annotation in need(clip, ["annotations"], place, list):
            queries = need(annotation, ["language_queries"], place, list)
            for i in range(len(queries)):
                yield partial(ego4d_moment, clip, annotation, i, place)


def ego4d_moment(clip: Mapping, annotation: Mapping, i: int, where: str) -> Moment:
    """One language query of a clip; times count from the start of the clip."""
    query, name = record(annotation["language_queries"][i], where), str(clip["clip_uid"])
    uid = str(need(annotation, ["annotation_uid"], where))
    span = window((need(query, ["clip_start_sec"], where), need(query, ["clip_end_sec"], where)), where)
    start, end = clip.get("clip_start_sec"), clip.get("clip_end_sec")
    length = float(end - start) if is_number(start) and is_number(end) and end > start else math.nan
    return Moment(f"{name}/{uid}/{i}", name, str(query.get("query") or ""), (span,), length, named=True)
