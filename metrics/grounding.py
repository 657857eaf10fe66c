"""Temporal grounding: does the best window of a query overlap its target enough?

Windows are (start, end) in seconds. Q queries.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import ge, gt

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


def query_ious(predictions: Sequence[Windows], targets: Sequence[Windows], evaluator: Evaluator | None) -> list[list]:
    """For each predicted window the IoU with the best of several target windows.

    Args:
        predictions: Q lists of windows; an invalid one (not two finite numbers, or end before start) gets 0.
        targets: Q lists of windows.
        evaluator: whose arithmetic; None: exact IoU.

    Returns:
        Q lists of floats, one a predicted window; of float32 where the evaluator compares in single precision.
    """
    pairs = [(p, g) for ps, gs in zip(predictions, targets, strict=True) for p in ps for g in gs]
    if not pairs:
        return [[0.0] * len(windows) for windows in predictions]
    left, right = zip(*pairs, strict=True)
    if evaluator is None:
        left, right = as_array(left), as_array(right)
    # every pair is a problem of its own: (pairs, 1, 2) against (pairs, 1, 2)
    left, right = (np.array([w[:2] for w in side], dtype=np.float64).reshape(-1, 1, 2) for side in (left, right))
    overlaps = iou(left, right, evaluator.variant if evaluator else "exact").reshape(-1)
    if not (evaluator and evaluator.single):
        overlaps = overlaps.astype(np.float64)
    if not (evaluator and evaluator.keeps_nan):
        overlaps = np.where(np.isfinite(overlaps), overlaps, overlaps.dtype.type(0))
    values = iter(overlaps if evaluator and evaluator.single else overlaps.tolist())
    best = [
        [max_or_nan([next(values) for _ in gs]) if len(gs) else 0.0 for _ in ps]
        for ps, gs in zip(predictions, targets, strict=True)
    ]
    if evaluator is None or evaluator.decimals is None:
        return best
    # numpy rounds 0.295 up, Python to the nearer of the two
    return [[round(value, evaluator.decimals) for value in row] for row in best]


def best_ious(predicted: Windows, targets: Windows, evaluator: Evaluator | None = None) -> np.ndarray:
    """(S,) IoU of each of S windows with the best of several target windows; the arguments are those of a query."""
    return np.array(query_ious([predicted], [targets], evaluator)[0])


def max_or_nan(values: Sequence[float]) -> float:
    """The largest value; NaN where there is one."""
    return max(values) if all(value == value for value in values) else float("nan")


def recall_row(
    overlaps: Sequence[float], thresholds: Sequence[float], ranks: Sequence[int], strict: bool = False
) -> Row:
    """``R1@0.5`` and so on of one query: 100 where one of the first k values reaches the threshold, else 0.

    Args:
        overlaps: one value a predicted window, best window first.
        thresholds: inclusive, unless strict.
        ranks: k.
        strict: a value has to be above the threshold.
    """
    reaches = gt if strict else ge
    return {f"R{k}@{t:g}": 100.0 * any(reaches(value, t) for value in overlaps[:k]) for k in ranks for t in thresholds}


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
    first = [(windows or [])[: max((*ranks, 1))] for windows in predictions]
    strict = bool(rules) and rules.strict
    return [
        {**recall_row(overlaps, thresholds, ranks, strict), "mIoU": 100 * float(overlaps[0]) if overlaps else 0.0}
        for overlaps in query_ious(first, targets, rules)
    ]


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
