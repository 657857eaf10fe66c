"""Temporal grounding: does the best window of a query overlap its target enough?

Windows are (start, end) in seconds. Q queries.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from metrics.records import AnswerMetric, mean
from metrics.spans import as_array, iou, is_valid

Windows = Sequence[Sequence[float]]
THRESHOLDS = (0.3, 0.5, 0.7)


@dataclass(frozen=True)
class Evaluator:
    """How one official evaluator compares two windows."""

    variant: str
    """IoU variant, see ``metrics.spans.iou``."""
    decimals: int | None = None
    """IoU is rounded to these before anything else."""


EVALUATORS = {
    "timechat": Evaluator("hull"),
    "timelens": Evaluator("hull"),
    "etchat": Evaluator("float32"),
    "videomind": Evaluator("float32"),
    "vtimellm": Evaluator("hull", decimals=2),
}


def best_ious(predicted: Windows, targets: Windows, evaluator: Evaluator | None = None) -> np.ndarray:
    """For each predicted window the IoU with the best of several target windows.

    Args:
        predicted: S windows; an invalid one (not two finite numbers, or end before start) gets 0.
        targets: R windows.
        evaluator: whose arithmetic; None: exact IoU.

    Returns:
        (S,) float64.
    """
    if not len(predicted) or not len(targets):
        return np.zeros(len(predicted))
    if evaluator is None:
        return iou(as_array(predicted), as_array(targets)).max(axis=1)
    overlaps = iou([w[:2] for w in predicted], [w[:2] for w in targets], evaluator.variant).astype(np.float64)
    overlaps = np.where(np.isfinite(overlaps), overlaps, 0.0).max(axis=1)
    return overlaps if evaluator.decimals is None else np.array([round(x, evaluator.decimals) for x in overlaps])


def recall_scores(overlaps: Sequence[np.ndarray], thresholds: Sequence[float], ranks: Sequence[int]) -> dict:
    """``R1@0.5`` and so on: the percentage of queries of which one of the first k values reaches the threshold.

    Args:
        overlaps: Q arrays, one value a predicted window, best window first.
        thresholds: inclusive.
        ranks: k.
    """
    return {
        f"R{k}@{t:g}": 100 * mean(bool((row[:k] >= t).any()) for row in overlaps) for k in ranks for t in thresholds
    }


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
    if evaluator is not None and evaluator not in EVALUATORS:
        raise ValueError(f"unknown evaluator {evaluator!r}; known: {', '.join(EVALUATORS)}")
    rules = EVALUATORS[evaluator] if evaluator else None
    overlaps = [best_ious(windows or [], target, rules) for windows, target in zip(predictions, targets, strict=True)]
    scores = recall_scores(overlaps, thresholds, ranks)
    scores["mIoU"] = 100 * mean(row[0] if len(row) else 0.0 for row in overlaps)
    scores["n"] = len(overlaps)
    scores["unparsed"] = sum(windows is None for windows in predictions)
    scores["invalid"] = sum(bool(windows) and not is_valid(windows[0]) for windows in predictions)
    return scores


class TemporalGrounding(AnswerMetric):
    """``grounding_scores`` over a data set; each query counts once. ``official``: TimeLens."""

    def compute(self) -> dict[str, Tensor]:
        """``R1@0.3``, ``R1@0.5``, ``R1@0.7``, ``mIoU`` in percent and ``n``, ``unparsed``, ``invalid``."""
        evaluator = "timelens" if self.policy == "official" else None
        return self.tensors(grounding_scores(*self.columns(), evaluator=evaluator))
