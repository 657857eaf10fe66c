"""The TVSum and YouTube Highlights benchmarks: saliency lists against clips labelled by annotators."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from metrics.benchmarks.formats.files import FileError, by_id, each, need
from metrics.benchmarks.formats.submissions import saliency_list
from metrics.benchmarks.result import Job, Result
from metrics.highlights import is_matrix
from metrics.video_highlights import VIDEO_PRECISION, video_rows


def labelled_videos(job: Job) -> Result:
    """TVSum and YouTube Highlights: mAP, also per domain, fractions."""
    pairs = [
        pair
        for path in job.annotated
        for i, row in each(path, job.collector)
        for pair in job.collector.add(partial(labels, row, f"{path}, record {i}"))
    ]
    truth = by_id(pairs, job.annotated[0])
    answers = saliency(job.predicted)
    if not answers.keys() & truth.keys():
        raise FileError(f"{job.predicted}: none of the {len(truth)} annotated videos is in it")
    missing = [video for video in truth if not answers.get(video)]
    bad = [v for v in truth if answers.get(v) and any(score != score for score in answers[v])]
    if job.official and (missing or bad):
        raise FileError(f"{job.predicted}: video {(missing or bad)[0]!r} has no usable saliency; use the sound policy")
    used = [(answers.get(video) or [], label, domain) for video, (label, domain) in truth.items()]
    rows = video_rows(used, VIDEO_PRECISION[job.benchmark], job.policy)
    counts = {"n": sum(map(bool, rows)), "missing": len(missing), "invalid": len(bad)}
    return Result(
        dict(zip(truth, rows, strict=True)),
        {**counts, "unknown": len(answers.keys() - truth.keys())},
        summary=lambda means: {"mAP": means["mAP"], **dict(sorted((k, v) for k, v in means.items() if k != "mAP"))},
        answered=truth.keys() - set(missing),
        evaluator="lighthouse" if job.official else None,
    )


def labels(row: Mapping, where: str) -> tuple[str, tuple[list, str]]:
    """Video -> ``label`` (clips x annotators) and ``domain``.

    Raises:
        FileError: another layout, or labels that are no table of numbers.
    """
    label = need(row, ["label", "saliency_scores"], where, list)
    if not label or not is_matrix(label):
        raise FileError(f"{where}: 'label' must hold a list of numbers for each clip, all of the same length")
    return str(need(row, ["vid", "qid", "video"], where)), (label, str(row.get("domain", "all")))


def saliency(path: Path) -> dict[str, list]:
    """Video -> predicted scores, from rows with ``vid`` and ``pred_saliency_scores``, or this project's predictions.

    Raises:
        FileError: another layout, or a video twice.
    """
    pairs = []
    for number, row in each(path):
        where = f"{path}, record {number}"
        scores = need(row, ["pred_saliency_scores", "saliency"], where, list)
        pairs.append((str(need(row, ["vid", "video", "qid"], where)), saliency_list(scores)))
    return by_id(pairs, path)
