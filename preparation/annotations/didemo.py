"""DiDeMo: a description and the segments of 5 s that several annotators chose, each on their own.

``[{"video": "26292851@N04_4253489686_265c3c8051.m4v", "description": "..", "annotation_id": 1, "num_segments": 6,
"times": [[4, 4], [4, 4], [0, 0]]}]``; segments are counted from 0, both ends belong to the moment.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from datamodules.schema import Event, Query
from datamodules.skips import OnError
from preparation.annotations.activitynet import check_tasks
from preparation.annotations.durations import read_durations
from preparation.annotations.files import Records

LAYOUT = "a list of {video, description, annotation_id, num_segments, times: [[first, last segment]]}"
SEGMENT_S = 5.0


def read(
    path: Path,
    on_error: OnError = "fail",
    tasks: Sequence[str] = ("grounding",),
    durations: Path | None = None,
    repair: bool = False,
) -> tuple[list[Query], Counter[str]]:
    """Read the whole file.

    A moment is what most annotators chose (the first of equals). The last segment of a video may be shorter than 5 s:
    it ends with the video where ``durations`` knows it.

    Args:
        path: ``train_data.json``, or that of another split.
        on_error: ``fail``, or ``skip`` to leave out descriptions that are wrong and count them.
        tasks: ``grounding``, one query a description; ``dense_captioning`` and ``events``, one record a video.
        durations: file with the length of each video; without it times refer to the features' own length.
        repair: mend windows that are reversed, overrun the video or have no length, and count them.

    Returns:
        The queries, and how many descriptions were left out for each reason.

    Raises:
        ValueError: the file has another layout, or (``fail``) naming file, record and what is wrong.
    """
    check_tasks(tasks)
    records = Records(path, on_error, LAYOUT, repair)
    lengths = read_durations(durations) if durations else {}
    videos: dict[str, list[Event]] = defaultdict(list)
    for where, row in records.rows(("video", "description", "times")):
        with records.entry(where):
            video, text = Path(row["video"]).stem, row["description"].strip()
            duration_s = lengths.get(video, lengths.get(row["video"]))
            if durations and duration_s is None:
                raise ValueError(f"video without a duration: {video!r} is not in {durations}")
            if not text.removesuffix("."):
                raise ValueError(f"empty text: {row['description']!r}")
            span = _seconds(row["times"], row.get("num_segments", 6), duration_s)
            videos[video].append(records.event(span, duration_s, text.removesuffix(".")))
            if "grounding" in tasks:
                name = f"{video}/grounding/{row['annotation_id']}"
                records.add(Query(name, video, "grounding", text, (Event(*span),), (), duration_s))
    for video, events in videos.items():
        events = tuple(sorted(events, key=lambda event: event.span))
        for task in ("dense_captioning", "events"):
            if task in tasks:
                duration_s = lengths.get(video, next((lengths[k] for k in lengths if Path(k).stem == video), None))
                records.add(Query(f"{video}/{task}", video, task, "", events, (), duration_s))
    return records.finish()


def _seconds(times: list, segments: int, duration_s: float | None) -> tuple[float, float]:
    """The moment that most annotators chose, in seconds."""
    for pair in times:
        if not (len(pair) == 2 and all(type(k) is int for k in pair) and 0 <= pair[0] <= pair[1] < segments):
            raise ValueError(f"not a pair of segments: {pair!r} of {segments}")
    if not times:
        raise ValueError("no annotator chose a moment")
    (first, last), _ = Counter(map(tuple, times)).most_common(1)[0]
    end_s = (last + 1) * SEGMENT_S
    return first * SEGMENT_S, end_s if duration_s is None else min(end_s, duration_s)
