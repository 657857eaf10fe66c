"""The TVSum and YouTube Highlights benchmarks: saliency lists against clips labelled by annotators."""

from collections.abc import Sequence
from pathlib import Path

from metrics.benchmarks.files import FileError, by_id, each, need
from metrics.benchmarks.predictions import saliency_list
from metrics.highlights import is_matrix
from metrics.video_highlights import VIDEO_PRECISION, video_scores


def labelled_videos(
    name: str, predicted: Path, annotated: Sequence[Path], policy: str
) -> tuple[dict[str, float], dict]:
    """TVSum and YouTube Highlights: mAP, also per domain, fractions."""
    truth = by_id((pair for path in annotated for pair in labels(path)), annotated[0])
    answers = saliency(predicted)
    if not answers.keys() & truth.keys():
        raise FileError(f"{predicted}: none of the {len(truth)} annotated videos is in it")
    missing = [video for video in truth if not answers.get(video)]
    bad = [v for v in truth if answers.get(v) and any(score != score for score in answers[v])]
    if policy == "official" and (missing or bad):
        raise FileError(f"{predicted}: video {(missing or bad)[0]!r} has no usable saliency; use the sound policy")
    used = [(answers.get(video) or [], label, domain) for video, (label, domain) in truth.items()]
    scores = video_scores(used, VIDEO_PRECISION[name], policy)
    counts = {"n": scores.pop("n"), "missing": len(missing), "invalid": len(bad)}
    return scores, {**counts, "unknown": len(answers.keys() - truth.keys())}


def labels(path: Path) -> list[tuple[str, tuple[list, str]]]:
    """Video -> ``label`` (clips x annotators) and ``domain``.

    Raises:
        FileError: another layout, or labels that are no table of numbers.
    """
    pairs = []
    for number, row in each(path):
        where = f"{path}, record {number}"
        label = need(row, ["label", "saliency_scores"], where, list)
        if not label or not is_matrix(label):
            raise FileError(f"{where}: 'label' must hold a list of numbers for each clip, all of the same length")
        video = str(need(row, ["vid", "qid", "video"], where))
        pairs.append((video, (label, str(row.get("domain", "all")))))
    return pairs


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
