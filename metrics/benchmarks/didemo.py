"""DiDeMo: ranked segments of five seconds against what several annotators marked."""

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import combinations

from metrics.benchmarks.answers import read_moments
from metrics.benchmarks.formats.answers import Answer, answers
from metrics.benchmarks.formats.files import FileError, by_id, each, need
from metrics.benchmarks.formats.windows import duration, normal, video_name
from metrics.benchmarks.result import Job, Result
from metrics.means import mean
from metrics.spans import is_number

SEGMENT_S = 5.0
SEGMENTS = 6
AGREEING = 3
"""Annotators that count: those who agree best with a prediction."""
EVERY = [(i, i) for i in range(SEGMENTS)] + list(combinations(range(SEGMENTS), 2))
"""The 21 moments of a video: (first, last) segment."""

Segment = tuple[int, int]


def didemo(job: Job) -> Result:
    """DiDeMo: R@1, R@5 and mIoU in percent, each the mean over the three annotators that agree best.

    Predictions are ranked moments, [first, last] segment as in the annotations, or windows in seconds, which are
    rounded to segments (this project's predictions, and files with a number that is no segment). A moment that is not
    listed has the rank behind all 21.
    """
    pairs = [
        pair
        for path in job.annotated
        for i, row in each(path, job.collector)
        for pair in job.collector.add(partial(annotated, row, f"{path}, record {i}"))
    ]
    truth = by_id(pairs, job.annotated[0])
    given = answers(job.predicted)
    places = all(are_segments(answer.windows or []) for answer in given) and not any(answer.own for answer in given)
    found = matched(given, truth)
    if not found:
        raise FileError(f"{job.predicted}: no answer to one of the {len(truth)} annotated sentences is in it")
    if job.official and len(found) < len(truth):
        raise FileError(f"{job.predicted}: {len(truth) - len(found)} sentences have no answer; use the sound policy")
    rows, unparsed = {}, 0
    for name, row in truth.items():
        ranked = ranked_segments(found[name], places) if name in found else []
        unparsed += name in found and not ranked
        rows[name] = values(ranked, row["times"])
    counts = {"n": len(rows), "missing": len(truth) - len(found), "unparsed": unparsed}
    counts["windows_are"] = "segments" if places else "seconds"
    return Result(rows, counts, answered=set(found), evaluator="didemo" if job.official else None)


def annotated(row: Mapping, where: str) -> tuple[str, Mapping]:
    """Annotation id and record.

    Raises:
        FileError: a time is no pair of segments.
    """
    for time in need(row, ["times"], where, list):
        if not (
            isinstance(time, list) and len(time) == 2 and all(type(k) is int for k in time) and 0 <= time[0] <= time[1]
        ):
            raise FileError(f"{where}: a time must be [first, last] segment, got {time!r:.40}")
    duration(row, where)
    need(row, ["video"], where), need(row, ["description"], where)
    return str(need(row, ["annotation_id", "id"], where)), row


def matched(given: Sequence[Answer], truth: Mapping[str, Mapping]) -> dict[str, Answer]:
    """Answers by annotation id, found by it or by video and sentence."""
    texts = {(video_name(row["video"]), normal(row["description"])): name for name, row in truth.items()}
    found = {}
    for answer in given:
        key = (video_name(answer.video), normal(answer.text)) if answer.video and answer.text else None
        name = texts.get(key) if key in texts else answer.id if answer.id in truth else None
        if name is not None:
            found[name] = answer
    return found


def are_segments(windows: Sequence) -> bool:
    """True for windows that may be [first, last] segment."""
    times = [time for window in windows for time in window[:2]]
    return all(is_number(time) and float(time).is_integer() and 0 <= time < SEGMENTS for time in times)


def ranked_segments(answer: Answer, places: bool) -> list[Segment]:
    """The segments of an answer; one in text is read, and holds seconds."""
    if answer.said is not None:
        return segments(read_moments(answer.said, SEGMENTS * SEGMENT_S).windows, places=False)
    return segments(answer.windows or [], places)


def segments(windows: Sequence, places: bool) -> list[Segment]:
    """Ranked windows as segments; windows in seconds are rounded, repeated ones and what is no window are left out.

    Args:
        windows: ranked.
        places: they are segments already.
    """
    listed = []
    for window in windows:
        if not (len(window) >= 2 and all(is_number(time) for time in window[:2])):
            continue
        if places:
            listed.append((int(window[0]), int(window[1])))
        else:
            first = min(max(round(window[0] / SEGMENT_S), 0), SEGMENTS - 1)
            listed.append((first, min(max(round(window[1] / SEGMENT_S) - 1, first), SEGMENTS - 1)))
    return list(dict.fromkeys(listed))


def values(ranked: Sequence[Segment], times: Sequence[Sequence[int]]) -> dict[str, float]:
    """R@1, R@5 and IoU of one sentence, in percent."""
    if not ranked:
        return {"R1": 0.0, "R5": 0.0, "mIoU": 0.0}
    ranks = sorted(ranked.index(tuple(time)) + 1 if tuple(time) in ranked else len(EVERY) + 1 for time in times)
    ious = sorted((iou(ranked[0], time) for time in times), reverse=True)
    rank = mean(ranks[:AGREEING])
    return {"R1": 100.0 * (rank <= 1), "R5": 100.0 * (rank <= 5), "mIoU": 100 * mean(ious[:AGREEING])}


def iou(a: Sequence[int], b: Sequence[int]) -> float:
    """Overlap of two runs of segments over the run around both."""
    common = max(0, min(a[1], b[1]) + 1 - max(a[0], b[0]))
    return common / (max(a[1], b[1]) + 1 - min(a[0], b[0]))
