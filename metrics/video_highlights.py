"""Highlight detection as UMT and lighthouse evaluate it: TVSum and YouTube Highlights.

Shapes: C clips of a video, A annotators, K columns of labels.
"""

import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from metrics.highlights import fit_length
from metrics.means import Row, column_means, mean

TVSUM_CLIPS = 5
"""Most salient clips that count."""


def trapezoid_precision(labels: np.ndarray) -> np.ndarray:
    """Area under the precision-recall curve with straight lines between its points, starting at precision 1.

    Args:
        labels: (C, K) 0 or 1, best clip first. Recall is relative to the positives in this list.

    Returns:
        (K,); 0 for a column without positives.
    """
    hits = labels.cumsum(axis=0)
    precision = hits / np.arange(1, len(labels) + 1)[:, None]
    recall = np.divide(hits, hits[-1:], out=np.zeros(hits.shape), where=hits[-1:] > 0)
    before = np.concatenate([np.ones((1, labels.shape[1])), precision[:-1]])
    return (np.diff(recall, axis=0, prepend=0.0) * (precision + before) / 2).sum(axis=0)


def ranked_labels(saliency: Sequence[float], labels: np.ndarray, policy: str) -> np.ndarray:
    """The rows of ``labels`` by falling saliency; clips without a score come last (``sound``) or are left out."""
    if policy == "official":  # its order of equal scores is that of torch's unstable sort of float32
        import torch

        return labels[torch.tensor(list(saliency[: len(labels)])).argsort(descending=True).numpy()]
    scores = np.asarray(saliency, dtype=float)[: len(labels)]
    scores = fit_length(scores if np.isfinite(scores).all() else np.zeros(0), len(labels), -math.inf)
    return labels[np.argsort(-scores, kind="stable")]


def tvsum_precision(saliency: Sequence[float], ratings: Sequence[Sequence[float]], policy: str = "sound") -> float:
    """Top-5 mAP of one TVSum video, a fraction.

    For each annotator the clips rated above the (lower) median are positive; only the 5 most salient clips are
    looked at and recall is relative to the positives among them.

    Args:
        saliency: C scores.
        ratings: (C, A) ratings.
        policy: ``sound``: unscored clips rank last; ``official``: they are not ranked.

    Returns:
        The mean over the annotators; one without a positive in the top 5 counts 0.

    Source: Liu et al., UMT (2022); ratings from Song et al., TVSum (2015).
    """
    ratings = np.asarray(ratings, dtype=float)
    median = np.sort(ratings, axis=0)[(len(ratings) - 1) // 2]
    top = ranked_labels(saliency, ratings > median, policy)[:TVSUM_CLIPS]
    return mean(trapezoid_precision(top)) if len(top) else 0.0


def youtube_precision(saliency: Sequence[float], labels: Sequence[Sequence[float]], policy: str = "sound") -> float:
    """AP of one YouTube Highlights video, a fraction; NaN for a video without positives (not in the mean).

    ``official`` also leaves out a video without positives among the clips that have a score.

    Args:
        saliency: C scores.
        labels: (C, 1) or (C,), positive where greater than 0.
        policy: as in ``tvsum_precision``.

    Source: Liu et al., UMT (2022); labels from Sun et al. (2014).
    """
    positives = np.asarray(labels, dtype=float).reshape(len(labels), -1)[:, :1] > 0
    ranked = ranked_labels(saliency, positives, policy)
    if not (ranked if policy == "official" else positives).any():
        return math.nan
    return float(trapezoid_precision(ranked)[0]) if len(ranked) else 0.0


VIDEO_PRECISION = {"tvsum": tvsum_precision, "youtube_highlights": youtube_precision}


def video_rows(
    videos: Iterable[tuple[Sequence[float], Sequence[Sequence[float]], str]],
    precision: Callable[[Sequence[float], Sequence[Sequence[float]], str], float],
    policy: str = "sound",
) -> list[Row]:
    """``mAP`` and ``mAP-<domain>`` of each video; empty for a video that is not in the mean. See ``video_scores``."""
    rows = [(domain, precision(scores, labels, policy)) for scores, labels, domain in videos]
    return [{} if math.isnan(value) else {"mAP": value, f"mAP-{domain}": value} for domain, value in rows]


def video_scores(
    videos: Iterable[tuple[Sequence[float], Sequence[Sequence[float]], str]],
    precision: Callable[[Sequence[float], Sequence[Sequence[float]], str], float],
    policy: str = "sound",
) -> dict[str, float]:
    """mAP over videos and over the videos of each domain, fractions.

    Args:
        videos: saliency (C scores, [] where missing), labels (C, A) and domain of each video.
        precision: ``tvsum_precision`` or ``youtube_precision``.
        policy: ``sound`` or ``official``.

    Returns:
        ``mAP``, ``mAP-<domain>`` and ``n``, the videos in the mean.
    """
    rows = video_rows(videos, precision, policy)
    means = column_means(rows)
    domains = {name: means[name] for name in sorted(means) if name != "mAP"}
    return {"mAP": means.get("mAP", math.nan), **domains, "n": sum(map(bool, rows))}
