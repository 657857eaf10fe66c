"""InternVid: one captioned clip a line; the clips of a video become its events.

``{"YoutubeID": "HdYoyzCSWyw", "Start_timestamp": "00:03:10.567", "End_timestamp": "00:03:11.200",
"Caption": "woman using a computer mouse", "UMT_Score": 0.4}``
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from datamodules.schema import Event, Part, Query
from datamodules.skips import OnError
from preparation.annotations.durations import read_durations
from preparation.annotations.files import Records

LAYOUT = "a jsonl, csv or list of {YoutubeID, Start_timestamp, End_timestamp, Caption}"
CLOCK = re.compile(r"(\d+):(\d{2}):(\d{2}(?:\.\d+)?)")


def read(
    path: Path,
    on_error: OnError = "fail",
    durations: Path | None = None,
    longest_s: float | None = None,
    repair: bool = False,
) -> tuple[list[Query], Counter[str]]:
    """Read the whole file.

    Args:
        path: ``InternVid-10M-flt.jsonl`` or a part of it.
        on_error: ``fail``, or ``skip`` to leave out clips that are wrong and count them.
        durations: file with the length of each video; the rules of VTimeLLM's stage 2 need it, or ``longest_s``.
        longest_s: cut videos into clips of at most so many seconds, from the start of an event to the end of another.
        repair: mend windows that are reversed, overrun the video or have no length, and count them.

    Returns:
        One ``events`` record a video or clip, its events by time, and how many events were left out for each reason.

    Raises:
        ValueError: the file has another layout, or (``fail``) naming file, line and what is wrong.
    """
    records = Records(path, on_error, LAYOUT, repair)
    lengths = read_durations(durations) if durations else {}
    videos: dict[str, list[Event]] = defaultdict(list)
    for where, row in records.rows(("YoutubeID", "Start_timestamp", "End_timestamp", "Caption")):
        with records.entry(where):
            video, caption = row["YoutubeID"], row["Caption"].strip().removesuffix(".")
            if not caption:
                raise ValueError(f"empty text: {row['Caption']!r}")
            if durations and video not in lengths:
                raise ValueError(f"video without a duration: {video!r} is not in {durations}")
            span = [_seconds(row[key]) for key in ("Start_timestamp", "End_timestamp")]
            videos[video].append(records.event(span, lengths.get(video), caption))
    for video, events in videos.items():
        events.sort(key=lambda event: event.span)
        for clip in _clips(video, events, lengths.get(video), longest_s):
            records.add(clip)
    return records.finish()


def _clips(video: str, events: list[Event], duration_s: float | None, longest_s: float | None) -> Iterator[Query]:
    """The records of a video: one, or one for each clip where it is longer than ``longest_s``.

    The released stage 2 of VTimeLLM consists of such clips; how they were cut is not published, and this rule is ours.
    """
    if longest_s is None or (duration_s is not None and duration_s <= longest_s):
        yield Query(f"{video}/events", video, "events", events=tuple(events), duration_s=duration_s)
        return
    groups: list[list[Event]] = []
    for event in events:
        if groups and max(other.end_s for other in (*groups[-1], event)) - groups[-1][0].start_s <= longest_s:
            groups[-1].append(event)
        else:
            groups.append([event])
    for group in groups:
        part = Part(video, group[0].start_s, max(event.end_s for event in group))
        name = f"{video}_{round(1000 * part.start_s)}_{round(1000 * part.end_s)}"
        yield Query(
            f"{name}/events",
            name,
            "events",
            events=tuple(
                replace(event, start_s=event.start_s - part.start_s, end_s=event.end_s - part.start_s)
                for event in group
            ),
            duration_s=part.end_s - part.start_s,
            part=part,
        )


def _seconds(clock: str) -> float:
    """``00:03:10.567`` in seconds."""
    if not (match := CLOCK.fullmatch(clock)):
        raise ValueError(f"not a time such as 00:03:10.567: {clock!r}")
    return round(int(match[1]) * 3600 + int(match[2]) * 60 + float(match[3]), 3)
