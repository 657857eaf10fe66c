"""ActivityNet Captions and files of the same layout (YouCook2 as published with TimeChat): sentences with their spans.

``{"v_x": {"duration": 73.1, "timestamps": [[6.94, 69.08]], "sentences": ["Three men are standing on a mat."]}}``
"""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from datamodules.schema import Event, Query
from datamodules.skips import OnError, Skips

TASKS = ("grounding", "dense_captioning", "events")


def read(
    path: Path, on_error: OnError = "fail", tasks: Sequence[str] = ("grounding", "dense_captioning")
) -> tuple[list[Query], Counter[str]]:
    """Read the whole file.

    Args:
        path: the published json.
        on_error: ``fail``, or ``skip`` to leave out events (or whole videos) that are wrong and count them.
        tasks: what to make: ``grounding``, one query a sentence (text as published, stripped); ``dense_captioning``
            and ``events``, one record a video (captions without their full stop).

    Returns:
        The queries, and how many events or videos were left out for each reason.

    Raises:
        ValueError: the file has another layout, a task is unknown, or (``fail``) naming file, video and event.
    """
    if unknown := set(tasks) - set(TASKS):
        raise ValueError(f"unknown tasks {sorted(unknown)}; known: {', '.join(TASKS)}")
    skips = Skips(on_error)
    try:
        videos = json.loads(Path(path).read_text(encoding="utf-8"), object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not JSON ({error})") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    if not isinstance(videos, dict):
        raise ValueError(f"{path}: expected an object of videos, got a {type(videos).__name__}")
    queries = []
    for video, entry in videos.items():
        queries += _queries(f"{path}, video {video!r}", video, entry, tasks, skips)
    return queries, skips.counts


def _unique(pairs: list[tuple]) -> dict:
    """An object without repeated keys; json would keep the last one silently."""
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"{twice!r} is there twice; remove one of them")
    return found


def _queries(where: str, video: str, entry: Mapping, tasks: Sequence[str], skips: Skips) -> list[Query]:
    """The records of one video."""
    try:
        duration_s, spans, sentences = float(entry["duration"]), entry["timestamps"], entry["sentences"]
        if not video or not 0 < duration_s < math.inf:
            raise ValueError(f"id {video!r}, duration {duration_s}")
        if len(spans) != len(sentences):
            raise ValueError(f"{len(spans)} timestamps for {len(sentences)} sentences")
    except (KeyError, TypeError, ValueError) as error:
        skips.add(where, "video without usable duration, timestamps and sentences", repr(error))
        return []
    queries, events = [], []
    for number, (span, sentence) in enumerate(zip(spans, sentences, strict=True)):
        reason, detail = _fault(span, sentence, duration_s)
        if reason:
            skips.add(f"{where}, event {number}", reason, detail)
            continue
        start_s, end_s = map(float, span)
        text = sentence.strip()
        events.append(Event(start_s, end_s, text.removesuffix(".")))
        if "grounding" in tasks:
            grounded = (Event(start_s, end_s),)
            queries.append(Query(f"{video}/grounding/{number}", video, "grounding", text, grounded, (), duration_s))
    if not events:
        skips.add(where, "video without a usable event")
        return []
    for task in ("dense_captioning", "events"):
        if task in tasks:
            queries.append(Query(f"{video}/{task}", video, task, "", tuple(events), (), duration_s))
    return queries


def _fault(span, sentence, duration_s: float) -> tuple[str, str]:
    """Why an event cannot be used, with details; empty strings if it can."""
    if not isinstance(sentence, str) or not sentence.strip().removesuffix("."):
        return "empty text", repr(sentence)
    try:
        start_s, end_s = map(float, span)
    except (TypeError, ValueError):
        return "timestamps are not a pair of numbers", repr(span)
    if not math.isfinite(start_s) or not math.isfinite(end_s):
        return "timestamps are not a pair of numbers", repr(span)
    if end_s <= start_s:
        return "end is not after the start", f"{start_s}..{end_s} s"
    if start_s < 0 or end_s > duration_s + Query.TOLERANCE_S:
        return "event outside the video", f"{start_s}..{end_s} s of {duration_s} s"
    return "", ""
