"""ActivityNet Captions and files of the same layout (YouCook2 as published with TimeChat): sentences with their spans.

``{"v_x": {"duration": 73.1, "timestamps": [[6.94, 69.08]], "sentences": ["Three men are standing on a mat."]}}``
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from datamodules.schema import Query
from datamodules.skips import OnError
from preparation.annotations.files import Records

LAYOUT = "{video: {duration, timestamps, sentences}}"
TASKS = ("grounding", "dense_captioning", "events")


def read(
    path: Path,
    on_error: OnError = "fail",
    tasks: Sequence[str] = ("grounding", "dense_captioning"),
    repair: bool = False,
) -> tuple[list[Query], Counter[str]]:
    """Read the whole file.

    Args:
        path: the published json.
        on_error: ``fail``, or ``skip`` to leave out events (or whole videos) that are wrong and count them.
        tasks: what to make: ``grounding``, one query a sentence (text as published, stripped); ``dense_captioning``
            and ``events``, one record a video (captions without their full stop).
        repair: mend windows that are reversed, overrun the video or have no length, and count them.

    Returns:
        The queries, and how many events or videos were left out for each reason.

    Raises:
        ValueError: the file has another layout, a task is unknown, or (``fail``) naming file, video and event.
    """
    check_tasks(tasks)
    records = Records(path, on_error, LAYOUT, repair)
    videos = records.json()
    if not isinstance(videos, dict) or not (videos and any(map(is_story, videos.values()))):
        raise records.refuse(videos)
    for video, entry in videos.items():
        add_video(records, video, entry, tasks)
    return records.finish()


def is_story(entry) -> bool:
    """Whether this looks like a video of this layout, be it a broken one."""
    return isinstance(entry, dict) and not {"timestamps", "sentences"}.isdisjoint(entry)


def check_tasks(tasks: Sequence[str]) -> None:
    """Raise ValueError for a task that cannot be made of described events."""
    if unknown := set(tasks) - set(TASKS):
        raise ValueError(f"unknown tasks {sorted(unknown)}; known: {', '.join(TASKS)}")


def add_video(records: Records, video: str, entry: Mapping, tasks: Sequence[str]) -> None:
    """Add the queries of one video with its ``duration``, ``timestamps`` and ``sentences``."""
    where = f"video {video!r}"
    try:
        duration_s, spans, sentences = float(entry["duration"]), entry["timestamps"], entry["sentences"]
        if not video or not 0 < duration_s < math.inf:
            raise ValueError(f"id {video!r}, duration {duration_s}")
        if len(spans) != len(sentences):
            raise ValueError(f"{len(spans)} timestamps for {len(sentences)} sentences")
    except (KeyError, TypeError, ValueError) as error:
        reason = "video without usable duration, timestamps and sentences"
        records.skips.add(f"{records.path}, {where}", reason, repr(error))
        return
    events = []
    for number, (span, sentence) in enumerate(zip(spans, sentences, strict=True)):
        with records.entry(f"{where}, event {number}"):
            if not isinstance(sentence, str) or not sentence.strip().removesuffix("."):
                raise ValueError(f"empty text: {sentence!r}")
            text = sentence.strip()
            events.append(records.event(span, duration_s, text.removesuffix(".")))
            if "grounding" in tasks:
                grounded = (records.event(span, duration_s),)
                records.add(Query(f"{video}/grounding/{number}", video, "grounding", text, grounded, (), duration_s))
    if not events:
        records.skips.add(f"{records.path}, {where}", "video without a usable event")
        return
    with records.entry(where):
        for task in ("dense_captioning", "events"):
            if task in tasks:
                records.add(Query(f"{video}/{task}", video, task, "", tuple(events), (), duration_s))
