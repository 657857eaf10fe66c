"""Predicted events of dense captioning, by video: (start, end, caption), times in seconds."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from metrics.benchmarks.answers import Parsed
from metrics.benchmarks.event_answers import read_events
from metrics.benchmarks.formats.answers import as_windows
from metrics.benchmarks.formats.files import FileError, by_id, describe, need, read, rows, table

ANSWER_KEYS = ("answer", "prediction", "response", "pred")


@dataclass
class Events:
    """The events of each video; None where nothing could be read."""

    by_video: dict[str, list | None]
    parsed: list[Parsed]
    """How answers in text were read."""


def events(path: Path | str) -> Events:
    """The events of a prediction file.

    Known layouts: this project's predictions; ``{video: [{timestamp, sentence}]}`` (``caption`` for ``sentence`` as in
    TimeChat), also under ``results``; ``{video: text}`` and rows of ``video`` and an answer in text.

    Raises:
        FileError: none of these, a bad record, or a video twice.
    """
    content = read(path)
    if isinstance(content, dict) and isinstance(content.get("results"), dict):
        content = content["results"]
    pairs: list[tuple[str, list | None]] = []
    parsed: list[Parsed] = []
    if isinstance(content, list):
        for i, row in enumerate(rows(content, path), 1):
            where = f"{path}, record {i}"
            if "query_id" in row:
                if row.get("task") == "dense_captioning":
                    pairs.append((need(row, ["video"], where, str), own_events(row, where)))
                continue
            video = str(need(row, ["video", "video_id", "vid", "image_id"], where))
            pairs.append((video, from_text(need(row, ANSWER_KEYS, where, str), row.get("duration"), parsed)))
    else:
        for video, items in table(content, path).items():
            if isinstance(items, str):
                pairs.append((video, from_text(items, None, parsed)))
            elif isinstance(items, list):
                listed = [event(item, f"{path}, video {video!r}, event {i}") for i, item in enumerate(items)]
                pairs.append((video, listed))
            else:
                raise FileError(f"{path}, video {video!r}: expected a list of events, got {describe(items)}")
    return Events(by_id(pairs, path), parsed)


def from_text(text: str, duration_s: object, parsed: list[Parsed]) -> list | None:
    """The events of an answer in text; None where there is none."""
    parsed.append(read_events(text, duration_s))
    return [(*window, text) for window, text in zip(parsed[-1].windows, parsed[-1].captions, strict=True)] or None


def own_events(row: Mapping, where: str) -> list | None:
    """The events of one of this project's dense captioning predictions."""
    spans, captions = as_windows(need(row, ["spans"], where), where), need(row, ["captions"], where, list)
    if not spans and row.get("rule", "") is None:
        return None
    if not all(isinstance(text, str) for text in captions):
        raise FileError(f"{where}: 'captions' must hold text")
    if len(spans) != len(captions):
        raise FileError(f"{where}: {len(spans)} spans for {len(captions)} captions")
    if any(len(span) not in (2, 3) for span in spans):
        raise FileError(f"{where}: a span must be [start, end] or [start, end, score]")
    return [(*span[:2], text) for span, text in zip(spans, captions, strict=True)]


def event(item: object, where: str) -> tuple:
    """``{timestamp: [start, end], sentence}`` as (start, end, caption); times are checked when they are scored."""
    times, caption = need(item, ["timestamp"], where, list), need(item, ["sentence", "caption"], where, str)
    if len(times) != 2:
        raise FileError(f"{where}: timestamp must be [start, end], got {describe(times)}")
    return (*times, caption)
