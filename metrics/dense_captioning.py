"""Dense captioning without captions: are the events of a video found, and in order?

Shapes: N predicted events, G reference events. Windows are (start, end) in seconds.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from metrics.means import Row, column_means, harmonic, mean
from metrics.policies import check_policy
from metrics.soda import compare
from metrics.spans import Windows, as_array, iou, is_valid

THRESHOLDS = (0.3, 0.5, 0.7, 0.9)


def precision_recall(hits: np.ndarray) -> tuple[float, float]:
    """Share of predictions and of references that take part in at least one hit (many to many).

    Args:
        hits: (N, G) bool.

    Returns:
        Precision and recall; 0 where there is nothing to share.
    """
    precision = float(hits.any(axis=1).mean()) if hits.shape[0] else 0.0
    recall = float(hits.any(axis=0).mean()) if hits.shape[1] else 0.0
    return precision, recall


def video_localization(
    predicted: Windows, references: Sequence[Windows], thresholds: Sequence[float], policy: str, variant: str = "eps"
) -> list[tuple[float, float]]:
    """Precision and recall of one video at each threshold: the best over its reference files, each on its own.

    Args:
        predicted: N windows.
        references: lists of windows, one a reference file.
        thresholds: IoU thresholds.
        policy: ``sound``: exact IoU, which may equal the threshold; ``official``: ``variant``, above the threshold.
        variant: the official IoU.
    """
    valid = [window for window in predicted if policy == "official" or is_valid(window)]
    rows = []
    for target in references:
        if policy == "official":
            hits = [iou(valid, target, variant) > t for t in thresholds]
        else:
            overlaps = iou(as_array(valid), as_array(target))
            missed = np.zeros((len(predicted) - len(valid), len(target)), dtype=bool)
            hits = [np.concatenate([overlaps >= t, missed]) for t in thresholds]
        rows.append([precision_recall(matrix) for matrix in hits])
    return [(max(row[i][0] for row in rows), max(row[i][1] for row in rows)) for i in range(len(thresholds))]


def start_distances(
    predicted: Windows, references: Sequence[Windows], distances: Sequence[float], policy: str
) -> list[tuple[float, float]]:
    """Precision and recall where a hit is a start less than d seconds off, for each d.

    Under ``sound`` the start of an invalid window is off by any distance.
    """
    rows = []
    for target in references:
        usable = (window[0] if policy == "official" or is_valid(window) else np.nan for window in predicted)
        starts = np.array(list(usable), dtype=float)[:, None]
        gaps = np.abs(starts - np.array([window[0] for window in target], dtype=float))
        rows.append([precision_recall(gaps < d) for d in distances])
    return [(max(row[i][0] for row in rows), max(row[i][1] for row in rows)) for i in range(len(distances))]


def localization_rows(
    predictions: Sequence[Windows | None],
    references: Sequence[Sequence[Windows]],
    thresholds: Sequence[float] = THRESHOLDS,
    policy: str = "sound",
    distances: Sequence[float] = (),
    variant: str = "eps",
) -> list[Row]:
    """``Precision@t`` and ``Recall@t`` of each video, and ``@ds`` for each distance; see ``localization_scores``."""
    check_policy(policy)
    rows = []
    for windows, files in zip(predictions, references, strict=True):
        found = video_localization(windows or [], files, thresholds, policy, variant)
        names = [f"{t:g}" for t in thresholds] + [f"{d:g}s" for d in distances]
        if distances:
            found = found + start_distances(windows or [], files, distances, policy)
        row = {}
        for name, (precision, recall) in zip(names, found, strict=True):
            row |= {f"Precision@{name}": precision, f"Recall@{name}": recall}
        rows.append(row)
    return rows


def localization_summary(
    means: Mapping[str, float], thresholds: Sequence[float] = THRESHOLDS, distances: Sequence[float] = ()
) -> dict[str, float]:
    """The means over videos with ``F1@..``, the harmonic mean of two means, and the means over the thresholds.

    Args:
        means: ``Precision@..`` and ``Recall@..``, means over videos; other entries are left out.
        thresholds: IoU thresholds, over which ``Precision``, ``Recall`` and ``F1`` are averaged.
        distances: seconds; they take no part in the averages.
    """
    scores = {}
    for name in [f"{t:g}" for t in thresholds] + [f"{d:g}s" for d in distances]:
        precision, recall = means[f"Precision@{name}"], means[f"Recall@{name}"]
        scores |= {f"Precision@{name}": precision, f"Recall@{name}": recall, f"F1@{name}": harmonic(precision, recall)}
    for name in ("Precision", "Recall", "F1"):
        scores[name] = mean(scores[f"{name}@{t:g}"] for t in thresholds)
    return scores


def localization_scores(
    predictions: Sequence[Windows | None],
    references: Sequence[Sequence[Windows]],
    thresholds: Sequence[float] = THRESHOLDS,
    policy: str = "sound",
    distances: Sequence[float] = (),
) -> dict[str, float]:
    """Precision, recall and F1 of event windows over Q videos, as fractions. Every video given counts.

    ``sound``: exact IoU at or above the threshold; an invalid window stays among the predictions, so that it costs
    precision, and finds nothing. ``official``: IoU with 1e-8 in its denominator, above the threshold.

    Args:
        predictions: Q lists of windows; None where no window could be read from the answer.
        references: Q lists of lists of windows, one list a reference file; precision and recall take the best file.
        thresholds: IoU thresholds t.
        policy: ``sound`` or ``official``.
        distances: also report precision and recall of starts less than d seconds off (``Recall@10s``).

    Returns:
        ``Precision@t``, ``Recall@t``, ``F1@t`` (harmonic mean of the two data set means) and their means over t,
        ``Precision``, ``Recall``, ``F1``.

    Source: Krishna et al., Dense-Captioning Events in Videos (2017); Yang et al., VidChapters-7M (2023).
    """
    means = column_means(localization_rows(predictions, references, thresholds, policy, distances))
    return localization_summary(means, thresholds, distances) if means else {}


def soda_d(predictions: Sequence[Windows | None], targets: Sequence[Windows], policy: str = "sound") -> float:
    """SODA without captions: the mean over videos of the F1 of the best order-preserving matching by IoU.

    Source: Fujita et al., SODA (2020), type d.
    """
    return mean(video_soda_d(windows, target, policy) for windows, target in zip(predictions, targets, strict=True))


def video_soda_d(windows: Windows | None, target: Windows, policy: str = "sound") -> float:
    """``soda_d`` of one video."""
    item = compare([(*w[:2], "") for w in windows or []], [(*w[:2], "") for w in target], policy)
    return item.ratios("d", None)[0][2]
