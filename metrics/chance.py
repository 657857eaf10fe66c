"""What is reached without looking at a video: constant windows, random windows, and answers that are nearly constant.

Windows are (start, end) as fractions of the video here. Q queries, W windows, R target windows of a query.
"""

from collections.abc import Sequence
from random import Random

import numpy as np

from metrics.grounded_qa import THRESHOLDS as EVIDENCE_THRESHOLDS
from metrics.grounding import THRESHOLDS
from metrics.spans import iou

GRID = 20
"""Constant windows begin and end at multiples of 1 / GRID; answers are alike that share a cell of so fine a grid."""
DRAWS = 20
"""Sets of random windows that are averaged."""
CHUNK = 1000
"""Queries compared at once."""


def constant_window(targets: Sequence[np.ndarray], evidence: bool = False) -> dict[str, float]:
    """The most that one window for all queries can reach on these very queries, each measure with its own.

    Args:
        targets: Q arrays (R, 2).
        evidence: the measures of grounded questions, and not those of moments.

    Returns:
        in percent, ``R1@0.3`` and so on and ``mIoU``; or ``IoU@0.3`` and so on, ``mIoU``, and the same of IoP.
    """
    windows = np.array([(a / GRID, b / GRID) for a in range(GRID) for b in range(a + 1, GRID + 1)])
    totals: dict[str, np.ndarray] = {}
    for start in range(0, len(targets), CHUNK):
        chunk = targets[start : start + CHUNK]
        for name, values in _measures(np.broadcast_to(windows, (len(chunk), *windows.shape)), chunk, evidence).items():
            totals[name] = totals.get(name, 0.0) + values.sum(axis=0)
    return {name: float(100 * total.max() / len(targets)) for name, total in totals.items()}


def random_window(targets: Sequence[np.ndarray], evidence: bool = False, seed: int = 0) -> dict[str, float]:
    """The mean over ``DRAWS`` sets of windows with two uniform ends; see ``constant_window``."""
    random = Random(seed)
    ends = [[sorted((random.random(), random.random())) for _ in targets] for _ in range(DRAWS)]
    values = _measures(np.array(ends).transpose(1, 0, 2), targets, evidence)
    return {name: float(100 * value.mean()) for name, value in values.items()}


def _measures(windows: np.ndarray, targets: Sequence[np.ndarray], evidence: bool) -> dict[str, np.ndarray]:
    """(Q, W) of each measure, for (Q, W, 2) windows."""
    ious, iops = np.zeros(windows.shape[:2]), np.zeros(windows.shape[:2])
    for row, (asked, true) in enumerate(zip(windows, targets, strict=True)):
        ious[row] = iou(asked, true).max(axis=1)
        if evidence:
            overlap = np.minimum(asked[:, None, 1], true[None, :, 1]) - np.maximum(asked[:, None, 0], true[None, :, 0])
            iops[row] = (np.maximum(overlap, 0) / (asked[:, 1] - asked[:, 0])[:, None]).max(axis=1)
    if not evidence:
        return {f"R1@{t:g}": ious >= t for t in THRESHOLDS} | {"mIoU": ious}
    found = {f"IoU@{t:g}": ious >= t for t in EVIDENCE_THRESHOLDS} | {"mIoU": ious}
    return found | {f"IoP@{t:g}": iops >= t for t in EVIDENCE_THRESHOLDS} | {"mIoP": iops}


def collapse(windows: Sequence[Sequence[float]]) -> float:
    """The percentage of windows that lie in the fullest cell of a ``GRID`` x ``GRID`` grid of (start, end).

    A model that answers from the language of a question repeats a few windows, whatever the video shows (VideoExpert,
    Fig. 2); compare with the same measure of the true windows.

    Args:
        windows: one a query. Without any it is 0.
    """
    if not len(windows):
        return 0.0
    cells = np.clip(np.asarray(windows, dtype=float)[:, :2] * GRID, 0, GRID - 1).astype(int)
    return float(100 * np.unique(cells, axis=0, return_counts=True)[1].max() / len(cells))
