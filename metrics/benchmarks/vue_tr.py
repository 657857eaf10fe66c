"""VUE-TR (v1 and v2): temporal retrieval in long videos, scored as areas under curves over 101 thresholds."""

import math

import numpy as np

from metrics.means import Row
from metrics.spans import Windows

THRESHOLDS = np.linspace(0, 1, 101)


def area(value: float, strict: bool = False) -> float:
    """Area under the curve of "does the value reach the threshold", by trapezoids over ``THRESHOLDS``.

    Args:
        value: from 0 to 1.
        strict: it has to be above the threshold.
    """
    heights = ((value > THRESHOLDS) if strict else (value >= THRESHOLDS)).astype(float)
    return float((heights[1:] + heights[:-1]).sum() / 200)


def official_row(predicted: Windows, targets: Windows, version: int = 2) -> Row:
    """What the official evaluator makes of one query, in percent.

    Starts are rounded down and ends up to whole seconds. For IoU the predicted windows are merged and the targets are
    not; for precision and recall neither, and the two lists are walked through in the order in which they are
    listed. Without a prediction there is no precision, unless (version 2) there is no target, either.

    Args:
        predicted: windows in the order of the file.
        targets: windows.
        version: 1 or 2.

    Returns:
        ``IoU``, ``Precision``, ``Recall``; absent where the query does not enter the mean.
    """
    windows = [[math.floor(start), math.ceil(end)] for start, end, *_ in predicted]
    row = {"IoU": 100 * area(overlap_ratio(windows, targets), strict=True)}
    p, g = ([[min(window), max(window)] for window in listed] for listed in (windows, targets))
    common = walked_overlap(g, p)
    seconds = sum(end - start for start, end in p), sum(end - start for start, end in g)
    if seconds == (0, 0) and version == 2:
        row["Precision"] = 100 * area(1.0)
    elif seconds[0]:
        row["Precision"] = 100 * area(common / seconds[0])
    return {**row, "Recall": 100 * area(common / seconds[1])} if seconds[1] else row


def overlap_ratio(predicted: list, targets: Windows) -> float:
    """IoU of the merged predicted windows with the targets as they are; at most 1."""
    if not len(targets):
        return 0.0 if predicted else 1.0
    merged: list[list[float]] = []
    for start, end in sorted(predicted, key=lambda window: window[0]):
        if merged and start <= merged[-1][1]:
            merged[-1][1] = max(merged[-1][1], end)
        else:
            merged.append([start, end])
    merged = [window for window in merged if window[0] <= window[1]]
    if not merged:
        return 0.0
    common = sum(max(0.0, min(e, t[1]) - max(s, t[0])) for s, e in merged for t in targets)
    union = sum(e - s for s, e in merged) + sum(t[1] - t[0] for t in targets) - common
    return max(min(1.0, common / (union + 1e-16)), 0.0)


def walked_overlap(first: list, second: list) -> float:
    """Seconds in both lists as found by walking through them side by side; too few where one is not sorted."""
    i = j = 0
    total = 0.0
    while i < len(first) and j < len(second):
        (a, b), (c, d) = first[i], second[j]
        if a <= d and c <= b:
            total += min(b, d) - max(a, c)
        if b < d:
            i += 1
        else:
            j += 1
    return total
