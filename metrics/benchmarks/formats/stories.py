"""Annotations of dense captioning: the events of each video. Windows are (start, end) in seconds."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from metrics.benchmarks.formats.files import Collector, FileError, by_id, need, read, rows, table
from metrics.benchmarks.formats.windows import duration, is_query_file, window, windows_at

CHAPTER = re.compile(r"(?:(\d+):)?(\d{1,2}):(\d{2})|(\d+(?:\.\d+)?)")


@dataclass(frozen=True)
class Story:
    """The events of a video: (start, end, caption)."""

    events: tuple[tuple[float, float, str], ...]
    duration_s: float = math.nan


def stories(path: Path | str, collector: Collector | None = None) -> dict[str, Story]:
    """Dense captioning annotations by video.

    Known layouts: this project's queries; ``{video: {timestamps, sentences, duration}}`` (ActivityNet Captions);
    ``{video: {duration, chapters: {start: title}}}`` (VidChapters; a chapter ends where the next begins); TimeChat's
    list (also under ``annotations``) of ``image_id``, ``segments`` and ``pure_cap``, whose sentences are split at
    ". ", or ``caption``, whose sentences of more than 5 characters are split at ".".

    Args:
        path: the file.
        collector: what becomes of bad records; None: the first one is an error.

    Raises:
        FileError: none of these, or a bad record.
    """
    collector = collector or Collector()
    content = read(path, collector)
    if isinstance(content, dict) and isinstance(content.get("annotations"), list):
        content = content["annotations"]
    pairs: list[tuple[str, Story]] = []
    if isinstance(content, list):
        make = own_pair if is_query_file(content) else timechat_story
        for i, row in enumerate(rows(content, path, collector), 1):
            where = f"{path}, record {i}"
            if make is timechat_story or need(row, ["task"], where) == "dense_captioning":
                pairs += collector.add(partial(make, row, where))
    else:
        for video, entry in table(content, path).items():
            where = f"{path}, video {video!r}"
            make = chapters if isinstance(entry, dict) and "chapters" in entry else plain_story
            pairs += [(video, story) for story in collector.add(partial(make, entry, where))]
    if not pairs:
        raise FileError(f"{path}: holds no video with events")
    return by_id(pairs, path)


def own_pair(row: Mapping, where: str) -> tuple[str, Story]:
    """The video and the events of one of this project's queries."""
    return need(row, ["video"], where, str), query_story(row, where)


def chapters(entry: Mapping, where: str) -> Story:
    """``{duration, chapters: {start: title}}``; starts are seconds or clock times."""
    length = duration(entry, where)
    listed = need(entry, ["chapters"], where, Mapping)
    starts = sorted((chapter_start(key, where), str(title)) for key, title in listed.items())
    ends = [start for start, _ in starts[1:]] + [length]
    if math.isnan(length):
        raise FileError(f"{where}: chapters need a 'duration', where the last one ends")
    return Story(tuple((*window((s, e), where), text) for (s, text), e in zip(starts, ends, strict=True)), length)


def chapter_start(text: str, where: str) -> float:
    """Seconds of "65", "1:05" or "0:01:05".

    Raises:
        FileError: it is none of these.
    """
    match = CHAPTER.fullmatch(text.strip())
    if not match:
        raise FileError(f"{where}: a chapter begins at seconds or h:mm:ss, got {text!r:.40}")
    if match[4]:
        return float(match[4])
    return 3600.0 * int(match[1] or 0) + 60 * int(match[2]) + int(match[3])


def event_window(event: object, where: str) -> tuple[float, float]:
    """The window of an event of one of this project's queries."""
    return window((need(event, ["start_s"], where), need(event, ["end_s"], where)), where)


def query_story(row: Mapping, where: str) -> Story:
    """One of this project's dense captioning queries."""
    events = need(row, ["events"], where, list)
    found = ((*event_window(event, where), str(event.get("caption", ""))) for event in events)
    return Story(tuple(found), duration(row, where, "duration_s"))


def plain_story(entry: object, where: str) -> Story:
    """``{timestamps, sentences, duration}``."""
    windows, sentences = windows_at(entry, ["timestamps"], where), need(entry, ["sentences"], where, list)
    return story(windows, sentences, duration(entry, where), where)


def story(windows: Sequence[tuple], sentences: Sequence[str], duration_s: float, where: str) -> Story:
    """Windows and their sentences.

    Raises:
        FileError: not one sentence a window.
    """
    if len(windows) != len(sentences):
        raise FileError(f"{where}: {len(windows)} windows for {len(sentences)} sentences")
    events = ((*span, str(text)) for span, text in zip(windows, sentences, strict=True))
    return Story(tuple(events), duration_s)


def timechat_story(row: Mapping, where: str) -> tuple[str, Story]:
    """``{image_id, segments, pure_cap}`` or, for ActivityNet, ``caption``; a full stop is added to each sentence."""
    text = need(row, ["pure_cap", "caption"], where, str)
    pieces = text.split(". ") if "pure_cap" in row else [piece for piece in text.split(".") if len(piece) > 5]
    sentences = [piece.strip() + "." for piece in pieces]
    windows = windows_at(row, ["segments"], where)
    return str(need(row, ["image_id"], where)), story(windows, sentences, duration(row, where), where)
