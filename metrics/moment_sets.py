"""Sets of moments: a query has several target windows, and all of them are wanted.

Windows are (start, end) in seconds; S predicted ones, R targets.
"""

from collections.abc import Sequence

import numpy as np

from metrics.means import Row, harmonic, mean
from metrics.spans import Windows, as_array, iou, is_valid

THRESHOLDS = (0.3, 0.5, 0.7)


def merged(windows: Windows, points: bool = False) -> list[tuple[float, float]]:
    """The same moments as windows that do not overlap or touch, in order.

    Args:
        windows: any order; invalid ones are left out.
        points: keep windows without length.
    """
    found: list[list[float]] = []
    for start, end in sorted((w[0], w[1]) for w in windows if is_valid(w) and (points or w[0] < w[1])):
        if found and start <= found[-1][1]:
            found[-1][1] = max(found[-1][1], end)
        else:
            found.append([start, end])
    return [(float(start), float(end)) for start, end in found]


def length(windows: Windows) -> float:
    """The sum of the lengths of windows."""
    return float(sum(end - start for start, end, *_ in windows))


def overlap(predicted: Windows, targets: Windows) -> float:
    """Seconds that lie in both of two sets of windows.

    Args:
        predicted: windows that do not overlap each other.
        targets: the same.
    """
    p, g = (np.asarray([w[:2] for w in windows], dtype=float).reshape(-1, 2) for windows in (predicted, targets))
    ends = np.minimum(p[:, None, 1], g[None, :, 1]) - np.maximum(p[:, None, 0], g[None, :, 0])
    return float(np.maximum(ends, 0).sum())


def union_iou(predicted: Windows, targets: Windows) -> float:
    """Intersection over union of two sets of moments, whatever windows they are cut into.

    Args:
        predicted: S windows; invalid ones count as if they were not there.
        targets: R windows.

    Returns:
        From 0 to 1. 1 where both sets are empty: to say nothing is right where there is nothing.
    """
    p, g = merged(predicted), merged(targets)
    common = overlap(p, g)
    whole = length(p) + length(g) - common
    return common / whole if whole else 1.0


def precision_recall(predicted: Windows, targets: Windows) -> tuple[float, float]:
    """The share of the predicted seconds that lie in a target, and of the target seconds that are predicted.

    0 where there is nothing to share, 1 where both sets are empty.
    """
    p, g = merged(predicted), merged(targets)
    if not p and not g:
        return 1.0, 1.0
    common = overlap(p, g)
    return common / length(p) if p else 0.0, common / length(g) if g else 0.0


def assigned_ious(predicted: Windows, targets: Windows) -> list[float]:
    """IoU of the pairs of the one-to-one assignment with the largest sum of IoU.

    Args:
        predicted: S windows; an invalid one overlaps nothing.
        targets: R windows.

    Returns:
        min(S, R) values.
    """
    from scipy.optimize import linear_sum_assignment

    overlaps = iou(as_array(predicted), as_array(targets))
    rows, columns = linear_sum_assignment(-overlaps)
    return overlaps[rows, columns].tolist()


def set_row(predicted: Windows | None, targets: Windows, thresholds: Sequence[float] = THRESHOLDS) -> Row:
    """How well a set of windows answers a query that has several moments.

    Args:
        predicted: S windows; None: no answer could be read.
        targets: R windows.
        thresholds: IoU that a pair must reach.

    Returns:
        ``tIoU`` of the unions; ``C-Acc``: as many windows as moments; ``tP@t``, ``tR@t``, ``tF1@t`` of the best
        assignment of windows to moments; ``EtF1``: their mean F1, 0 where the count is wrong. In percent.

    Source: OMTG-Bench (one-to-many temporal grounding); Kuhn (1955) for the assignment.
    """
    windows = list(predicted or [])
    count = 100.0 * (predicted is not None and len(windows) == len(targets))
    row = {"tIoU": 100 * (union_iou(windows, targets) if predicted is not None else 0.0), "C-Acc": count}
    ious = assigned_ious(windows, targets) if windows and len(targets) else []
    empty = predicted is not None and not windows and not len(targets)
    for t in thresholds:
        hits = sum(value >= t for value in ious)
        precision, recall = (hits / n if n else float(empty) for n in (len(windows), len(targets)))
        row |= {
            f"tP@{t:g}": 100 * precision,
            f"tR@{t:g}": 100 * recall,
            f"tF1@{t:g}": 100 * harmonic(precision, recall),
        }
    row["EtF1"] = mean(row[f"tF1@{t:g}"] for t in thresholds) * count / 100
    return row


def retrieval_row(predicted: Windows | None, targets: Windows) -> Row:
    """IoU, precision and recall of the seconds of two sets of moments, in percent.

    The mean of each over the queries is the area under the curve of the share of queries that reach a threshold.

    Args:
        predicted: windows; None: no answer could be read, which scores 0.
        targets: windows; [] where nothing is to be found.

    Returns:
        ``IoU``, ``Precision``, and ``Recall`` where there is a target.

    Source: Vidi (2025), VUE-TR.
    """
    if predicted is None:
        return {"IoU": 0.0, "Precision": 0.0, **({"Recall": 0.0} if len(targets) else {})}
    precision, recall = precision_recall(predicted, targets)
    row = {"IoU": 100 * union_iou(predicted, targets), "Precision": 100 * precision}
    return {**row, "Recall": 100 * recall} if len(targets) else row
