"""Temporal grounding: does the best window of a query overlap its target enough?

Windows are (start, end) in seconds. Q queries.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from metrics.means import Row, column_means
from metrics.spans import Windows, as_array, iou, is_valid

THRESHOLDS = (0.3, 0.5, 0.7)


@dataclass(frozen=True)
class Evaluator:
    """How one official evaluator compares two windows."""

    variant: str
    """IoU variant, see ``metrics.spans.iou``."""
    decimals: int | None = None
    """IoU is rounded to these before anything else, by Python's rule."""
    single: bool = False
    """IoU and threshold are compared in single precision, where 7/10 reaches 0.7."""
    strict: bool = False
    """IoU has to be above the threshold."""
    keeps_nan: bool = False
    """0/0 stays NaN: it makes mIoU NaN and reaches no threshold."""


EVALUATORS = {
    "timechat": Evaluator("hull"),
    "timelens": Evaluator("hull"),
    "lmms_eval": Evaluator("hull"),
    "etchat": Evaluator("float32"),
    "etbench": Evaluator("float32", keeps_nan=True),
    "videomind": Evaluator("float32", single=True),
    "vtimellm": Evaluator("hull", decimals=2),
    "ego4d": Evaluator("hull", strict=True),
}


def best_ious(predicted: Windows, targets: Windows, evaluator: Evaluator | None = None) -> np.ndarray:
    """For each predicted window the IoU with the best of several target windows.

    Args:
        predicted: S windows; an invalid one (not two finite numbers, or end before start) gets 0.
        targets: R windows.
        evaluator: whose arithmetic; None: exact IoU.

    Returns:
        (S,) float64; float32 where the evaluator compares in single precision.
    """
    if not len(predicted) or not len(targets):
        return np.zeros(len(predicted))
    if evaluator is None:
        return iou(as_array(predicted), as_array(targets)).max(axis=1)
    overlaps = iou([w[:2] for w in predicted], [w[:2] for w in targets], evaluator.variant)
    if not evaluator.single:
        overlaps = overlaps.astype(np.float64)
    if not evaluator.keeps_nan:
        overlaps = np.where(np.isfinite(overlaps), overlaps, overlaps.dtype.type(0))
    best = overlaps.max(axis=1)
    # numpy rounds 0.295 up, Python to the nearer of the two
    return best if evaluator.decimals is None else np.array([round(float(x), evaluator.decimals) for x in best])


def recall_row(overlaps: np.ndarray, thresholds: Sequence[float], ranks: Sequence[int], strict: bool = False) -> Row:
    """``R1@0.5`` and so on of one query: 100 where one of the first k values reaches the threshold, else 0.

    Args:
        overlaps: one value a predicted window, best window first.
        thresholds: inclusive, unless strict.
        ranks: k.
        strict: a value has to be above the threshold.
    """
    compare = np.greater if strict else np.greater_equal
    return {f"R{k}@{t:g}": 100.0 * bool(compare(overlaps[:k], t).any()) for k in ranks for t in thresholds}


def grounding_rows(
    predictions: Sequence[Windows | None],
    targets: Sequence[Windows],
    thresholds: Sequence[float] = THRESHOLDS,
    ranks: Sequence[int] = (1,),
    evaluator: str | None = None,
) -> list[Row]:
    """R@k and IoU of each query, in percent; the arguments are those of ``grounding_scores``."""
    if evaluator is not None and evaluator not in EVALUATORS:
        raise ValueError(f"unknown evaluator {evaluator!r}; known: {', '.join(EVALUATORS)}")
    rules = EVALUATORS[evaluator] if evaluator else None
    rows = []
    for windows, target in zip(predictions, targets, strict=True):
        overlaps = best_ious(windows or [], target, rules)
        row = recall_row(overlaps, thresholds, ranks, bool(rules) and rules.strict)
        rows.append({**row, "mIoU": 100 * float(overlaps[0]) if len(overlaps) else 0.0})
    return rows


def grounding_scores(
    predictions: Sequence[Windows | None],
    targets: Sequence[Windows],
    thresholds: Sequence[float] = THRESHOLDS,
    ranks: Sequence[int] = (1,),
    evaluator: str | None = None,
) -> dict[str, float]:
    """R@k and mIoU of Q queries. Every query counts: one without an answer has IoU 0.

    Args:
        predictions: Q lists of windows, best first; None where no window could be read from the answer (counted as
            ``unparsed``), [] where there is no answer.
        targets: Q lists of windows; the one that fits best counts.
        thresholds: IoU that a window must reach (inclusive) to count as found.
        ranks: k of R@k: one of the first k windows must reach the threshold.
        evaluator: a name in ``EVALUATORS``, to get its last bits; None: exact IoU.

    Returns:
        ``R1@0.5`` and so on and ``mIoU`` (of the first window) in percent; the counts ``n``, ``unparsed`` and
        ``invalid`` (queries whose first window is not two finite numbers in order: IoU 0).

    Raises:
        ValueError: unknown evaluator.

    Source: Gao et al., TALL (2017), section 5.2: R@n, IoU=m.
    """
    rows = grounding_rows(predictions, targets, thresholds, ranks, evaluator)
    names = [f"R{k}@{t:g}" for k in ranks for t in thresholds] + ["mIoU"]
    return {
        **dict.fromkeys(names, float("nan")),
        **column_means(rows),
        "n": len(rows),
        "unparsed": sum(windows is None for windows in predictions),
        "invalid": sum(bool(windows) and not is_valid(windows[0]) for windows in predictions),
    }
