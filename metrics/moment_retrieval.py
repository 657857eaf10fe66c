"""Moment retrieval: ranked lists of windows, scored as detections (mAP) and by their first window (R@k).

Shapes: Q queries, P predicted windows (padded), G target windows (padded), T thresholds. Windows are in seconds.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from metrics.detection import AP_THRESHOLDS, NOTHING, Ranked, average_precisions, pad, pairwise
from metrics.means import Row, mean
from metrics.policies import check_policy
from metrics.spans import is_number, is_valid


@dataclass(frozen=True)
class Protocol:
    """What one evaluator of the field reports. Lengths in seconds."""

    ranges: Mapping[str, tuple[float, float] | None]
    """Range name -> (more than, at most); None keeps every target window."""
    recall_from: float = 0.5
    """R@k is reported at this threshold and every 0.05 above it, below 1."""
    ranks: tuple[int, ...] = (1,)
    mean_iou: bool = False
    start_distances: tuple[int, ...] = ()
    """R1@Ns: the start of the first window is at most N seconds off."""
    brief_recalls: tuple[float, ...] = (0.5, 0.7)
    empty_range: str = "raise"
    """Official treatment of a range without a query: ``raise``, ``zero``, or ``all`` queries."""
    max_windows: int = 10
    """Windows of a query that enter mAP."""

    @property
    def recall_thresholds(self) -> tuple[float, ...]:
        """The IoU thresholds of R@k."""
        steps = round((1 - self.recall_from) / 0.05)
        return tuple(round(self.recall_from + 0.05 * i, 2) for i in range(steps))


QVHIGHLIGHTS = Protocol({"short": (0, 10), "middle": (10, 30), "long": (30, 150), "full": None})
"""Lei et al., Detecting Moments and Highlights in Videos via Natural Language Queries (2021)."""


@dataclass
class Batch:
    """Ranked predictions and targets of Q queries as padded arrays."""

    starts: np.ndarray
    """(Q,) start of the first listed window, NaN where there is none."""
    targets: np.ndarray
    """(Q, G, 2), NaN where padded."""
    counts: np.ndarray
    """(Q,) windows that enter mAP."""
    overlaps: np.ndarray
    """(Q, P, G) IoU in ranked order, ``NOTHING`` where padded."""
    choice: np.ndarray
    """(Q, P', G) IoU in listed order that chooses a target window, ``NOTHING`` where padded."""
    value: np.ndarray
    """(Q, P', G) IoU in listed order that is compared with thresholds, ``NOTHING`` where padded."""
    lengths: np.ndarray = field(init=False)
    """(Q, G) seconds, NaN where padded."""

    def __post_init__(self):
        self.lengths = self.targets[..., 1] - self.targets[..., 0]


def by_score(windows: Ranked) -> list[Sequence[float]]:
    """Best score first; equal scores, and windows without scores, keep their order; a score that is none is last."""
    if any(len(window) < 3 for window in windows):
        return list(windows)
    return sorted(windows, key=lambda window: -window[2] if is_number(window[2]) else math.inf)


def batch(predictions: Sequence[Ranked | None], targets: Sequence[Ranked], policy: str, max_windows: int) -> Batch:
    """Ranks, pads and compares the windows of Q queries."""
    official = policy == "official"
    padded = pad(targets)
    if official:
        listed = [list(windows or []) for windows in predictions]
        ranked = [by_score(windows[:max_windows]) for windows in listed]
        choice = pairwise([windows[:5] for windows in listed], padded, "cross")
        value = pairwise([windows[:5] for windows in listed], padded, "hull")
        overlaps = pairwise(ranked, padded, "cross")
    else:
        # an unusable window keeps its rank, so that it costs precision, and overlaps nothing
        listed = [[clean(window) for window in by_score(windows or [])] for windows in predictions]
        ranked = [windows[:max_windows] for windows in listed]
        overlaps = pairwise(ranked, padded, "exact")
        choice = value = overlaps
    return Batch(
        starts=np.array([windows[0][0] if windows else math.nan for windows in listed], dtype=float),
        targets=padded,
        counts=np.array([len(windows) for windows in ranked], dtype=int),
        overlaps=overlaps,
        choice=choice,
        value=value,
    )


def clean(window: Sequence[float]) -> Sequence[float]:
    """The window, or (nan, nan) for an invalid one."""
    return window if is_valid(window) else (math.nan, math.nan)


def first_ious(data: Batch, keep: np.ndarray, ranks: int) -> np.ndarray:
    """(Q,) IoU of the best of the first ``ranks`` windows with the best kept target; 0 without a prediction.

    Args:
        data: Q queries.
        keep: (Q, G) bool, target windows of the length range.
        ranks: how many windows count.
    """
    choice = np.where(keep[:, None, :], data.choice, NOTHING)[:, :ranks].reshape(len(keep), -1)
    if not choice.shape[1]:
        return np.zeros(len(keep))
    best = choice.argmax(axis=1)  # NaN wins, the first of equals wins
    value = np.take_along_axis(data.value[:, :ranks].reshape(len(keep), -1), best[:, None], axis=1)[:, 0]
    return np.maximum(value, 0.0)


def range_values(data: Batch, keep: np.ndarray, protocol: Protocol) -> dict[tuple[str, str], np.ndarray]:
    """The values of every query of one length range, in percent.

    Args:
        data: Q queries, each with a kept target window.
        keep: (Q, G) bool.
        protocol: what to report.

    Returns:
        ("MR-mAP", "0.5"), ("MR-mAP", "average"), ("MR-R1", "0.5"), ("MR-mIoU", "") and so on -> (Q,).
    """
    overlaps = np.where(keep[:, None, :], data.overlaps, NOTHING)
    per_query = 100 * average_precisions(overlaps, data.counts, keep.sum(axis=1))
    values = {("MR-mAP", f"{t:g}"): per_query[:, i] for i, t in enumerate(AP_THRESHOLDS)}
    values["MR-mAP", "average"] = per_query.mean(axis=1)
    for k in protocol.ranks:
        value = first_ious(data, keep, k)
        values |= {(f"MR-R{k}", f"{t:g}"): 100.0 * (value >= t) for t in protocol.recall_thresholds}
        if k == 1 and protocol.mean_iou:
            values["MR-mIoU", ""] = 100 * value
    if protocol.start_distances:
        choice = np.where(keep[:, None, :], data.choice, NOTHING)[:, 0]
        start = np.take_along_axis(data.targets[..., 0], choice.argmax(axis=1)[:, None], axis=1)[:, 0]
        distance = np.abs(data.starts - start)
        values |= {("MR-R1", f"{d}s"): 100.0 * (distance <= d) for d in protocol.start_distances}
    return values


def nested(values: Mapping[tuple[str, str], float]) -> dict[str, dict[str, float] | float]:
    """``{"MR-mAP": {"0.5": .., "average": ..}, "MR-mIoU": ..}``."""
    found: dict[str, dict[str, float] | float] = {}
    for (metric, name), value in values.items():
        if name:
            found.setdefault(metric, {})[name] = float(value)
        else:
            found[metric] = float(value)
    return found


def retrieval_scores(
    predictions: Sequence[Ranked | None],
    targets: Sequence[Ranked],
    policy: str = "sound",
    protocol: Protocol = QVHIGHLIGHTS,
) -> dict[str, dict[str, dict[str, float] | float]]:
    """mAP and R@k of Q ranked lists, per length range of the target windows.

    ``sound``: windows are ranked by score before anything is cut, an invalid window overlaps nothing, a query
    without an answer scores 0, a range without a query is left out. ``official``: the first windows as listed are
    cut, R@k looks at the listed order, 0/0 overlaps are hits.

    Args:
        predictions: Q lists of (start, end, score); None or [] where there is no answer.
        targets: Q lists of (start, end), at least one each.
        policy: ``sound`` or ``official``.
        protocol: ranges and thresholds.

    Returns:
        Range name -> ``{"MR-mAP": {"0.5": .., "average": ..}, "MR-R1": {"0.5": ..}}`` in percent.

    Raises:
        ValueError: a query has no target window; or, under ``official``, no window (``None`` or []) or a range is
            empty where the official code fails.

    Source: Lei et al., QVHighlights (2021), section 5; Everingham et al., VOC (2010).
    """
    results = {}
    for name, (_, values) in by_range(predictions, targets, policy, protocol).items():
        results[name] = nested({key: mean(column) for key, column in values.items()})
    return results


def retrieval_rows(
    predictions: Sequence[Ranked | None],
    targets: Sequence[Ranked],
    policy: str = "sound",
    protocol: Protocol = QVHIGHLIGHTS,
) -> list[Row]:
    """The headline numbers of each query under the names of ``brief``; the arguments are those of ``retrieval_scores``.

    A query is absent from the numbers of a length range in which it has no target window.
    """
    found: list[dict] = [{} for _ in targets]
    for name, (used, values) in by_range(predictions, targets, policy, protocol).items():
        for i, query in enumerate(np.flatnonzero(used)):
            found[query][name] = nested({key: column[i] for key, column in values.items()})
    return [brief(row, protocol, fill=False) for row in found]


Values = dict[tuple[str, str], np.ndarray]


def by_range(
    predictions: Sequence[Ranked | None], targets: Sequence[Ranked], policy: str, protocol: Protocol
) -> dict[str, tuple[np.ndarray, Values]]:
    """Range name -> which queries have a target window in it, (Q,) bool, and ``range_values`` of these.

    Raises:
        ValueError: as ``retrieval_scores``.
    """
    official = check_policy(policy) == "official"
    if any(not len(target) for target in targets):
        raise ValueError("every query of moment retrieval needs at least one target window")
    if official and any(not windows for windows in predictions):
        raise ValueError("a query has no window and the official evaluator stops there; use the sound policy")
    data = batch(predictions, targets, policy, protocol.max_windows)
    results = {}
    for name, limits in protocol.ranges.items():
        keep = ~np.isnan(data.lengths)
        if limits:
            keep &= (data.lengths > limits[0]) & (data.lengths <= limits[1])
        used = keep.any(axis=1)
        if not used.any():
            if official and protocol.empty_range == "raise":
                raise ValueError(f"no target window is in the range {name!r}, where the official evaluator stops")
            if not official or protocol.empty_range == "zero":
                continue
            keep = ~np.isnan(data.lengths)
            used = keep.any(axis=1)
        part = Batch(*(getattr(data, key)[used] for key in list(Batch.__dataclass_fields__)[:-1]))
        results[name] = (used, range_values(part, keep[used], protocol))
    return results


def brief(results: Mapping[str, Mapping], protocol: Protocol = QVHIGHLIGHTS, fill: bool = True) -> dict[str, float]:
    """The headline numbers under their official names, such as ``MR-full-mAP@0.5`` and ``MR-short-mAP``.

    Args:
        results: from ``retrieval_scores``.
        protocol: the one of the results.
        fill: write 0 for a range that is not there, where the protocol does.
    """
    scores = {}
    for name, values in results.items():
        scores[f"MR-{name}-mAP"] = values["MR-mAP"]["average"]
        if "MR-mIoU" in values:
            scores[f"MR-{name}-mIoU"] = values["MR-mIoU"]
    if fill and protocol.empty_range == "zero":
        scores = {f"MR-{name}-mAP": 0.0 for name in ("short", "middle", "long")} | scores
    if "full" not in results:
        return scores
    full = results["full"]
    for t in ("0.5", "0.75"):
        scores[f"MR-full-mAP@{t}"] = full["MR-mAP"][t]
    for k in protocol.ranks:
        for t in protocol.brief_recalls:
            scores[f"MR-full-R{k}@{t:g}"] = full[f"MR-R{k}"][f"{t:g}"]
    for d in protocol.start_distances:
        scores[f"MR-full-R1@{d}s"] = full["MR-R1"][f"{d}s"]
    return scores
