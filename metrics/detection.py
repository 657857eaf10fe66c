"""Detection as average precision: ranked windows are matched greedily with target windows.

Shapes: Q queries, P predicted windows (padded), G target windows (padded), T thresholds.
"""

from collections.abc import Sequence

import numpy as np

from metrics.spans import iou

Ranked = Sequence[Sequence[float]]
AP_THRESHOLDS = tuple(round(0.5 + 0.05 * i, 2) for i in range(10))
NOTHING = -1.0
"""IoU of a padded pair: below every threshold."""


def pad(windows: Sequence[Ranked]) -> np.ndarray:
    """(Q, longest, 2) float64 of the first two numbers of each window, NaN where padded."""
    padded = np.full((len(windows), max(map(len, windows), default=0), 2), np.nan)
    for row, query in zip(padded, windows, strict=True):
        if len(query):
            row[: len(query)] = [window[:2] for window in query]
    return padded


def pairwise(predicted: Sequence[Ranked], targets: np.ndarray, variant: str) -> np.ndarray:
    """(Q, P, G) IoU; ``NOTHING`` for a padded prediction or target."""
    arrays = pad(predicted)
    overlaps = iou(arrays, targets, variant)
    listed = np.arange(arrays.shape[1]) < np.array([len(query) for query in predicted])[:, None]
    real = listed[:, :, None] & ~np.isnan(targets[:, None, :, 0])
    return np.where(real, overlaps, NOTHING)


def true_positives(overlaps: np.ndarray, thresholds: Sequence[float]) -> np.ndarray:
    """Greedy matching of ranked predictions: each takes the best target window that is still free.

    Args:
        overlaps: (Q, P, G) IoU; ties go to the later target. A NaN counts as the best overlap of all.
        thresholds: T thresholds (inclusive).

    Returns:
        (Q, T, P) bool.
    """
    queries, ranks, targets = overlaps.shape
    limits = np.asarray(thresholds)[None, :]
    order = np.argsort(overlaps, axis=2, kind="stable")[..., ::-1]
    descending = np.take_along_axis(overlaps, order, axis=2)
    rows = np.arange(queries)
    taken = np.zeros((queries, targets, len(thresholds)), dtype=bool)
    hits = np.zeros((queries, len(thresholds), ranks), dtype=bool)
    for rank in range(ranks):
        for k in range(targets):
            enough = ~(descending[:, rank, k, None] < limits)
            if not enough.any():
                break
            wins = enough & ~taken[rows, order[:, rank, k]] & ~hits[:, :, rank]
            taken[rows, order[:, rank, k]] |= wins
            hits[:, :, rank] |= wins
    return hits


def average_precisions(
    overlaps: np.ndarray, counts: np.ndarray, positives: np.ndarray, thresholds: Sequence[float] = AP_THRESHOLDS
) -> np.ndarray:
    """Interpolated average precision of each query: the area under the precision envelope (VOC 2011, all points).

    Args:
        overlaps: (Q, P, G) IoU of ranked predictions with targets; padding below every threshold.
        counts: (Q,) predictions of each query.
        positives: (Q,) target windows of each query.
        thresholds: T IoU thresholds.

    Returns:
        (Q, T); 0 for a query without predictions.
    """
    hits = true_positives(overlaps, thresholds)
    ranks = np.arange(1, hits.shape[2] + 1)
    precision = np.where(ranks <= counts[:, None, None], hits.cumsum(axis=2) / ranks, 0.0)
    envelope = np.maximum.accumulate(precision[..., ::-1], axis=2)[..., ::-1]
    return (envelope * hits).sum(axis=2) / positives[:, None]
