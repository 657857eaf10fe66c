"""Rewards for windows of time: how good is a predicted set of moments, as one number that learning can follow.

Pure functions of windows in seconds. A set is a list of (start, end); one flat (start, end) stands for a set of one.
"""

import math
from collections.abc import Callable, Sequence

from metrics.means import mean
from metrics.moment_sets import length, merged
from metrics.spans import is_number

Window = tuple[float, float]
Set = Sequence
"""Windows, or one flat (start, end)."""
TINY = 1e-16
STEPS = 512
"""Intervals of a numeric integral."""
EDGE = 6.0
"""Standard deviations beyond which a normal distribution is not looked at."""


def is_flat(windows: Set) -> bool:
    """True for one flat (start, end)."""
    return len(windows) == 2 and all(map(is_number, windows))


def as_set(windows: Set) -> list[Window]:
    """Windows as a list of (start, end)."""
    if is_flat(windows):
        return [(float(windows[0]), float(windows[1]))]
    return [(float(window[0]), float(window[1])) for window in windows]


def clipped(value: float, lowest: float = 0.0) -> float:
    """The value between the lowest and 1."""
    return float(max(lowest, min(1.0, value)))


def iou(prediction: Sequence[float], target: Sequence[float]) -> float:
    """Overlap of two windows over the smallest window around both; 0 where that has no length.

    Args:
        prediction: (start, end); a reversed one earns 0.
        target: (start, end).

    Source: TimeLens (2025), Time-R1 (2025).
    """
    hull = max(prediction[1], target[1]) - min(prediction[0], target[0])
    return max(min(prediction[1], target[1]) - max(prediction[0], target[0]), 0.0) / hull if hull > 0 else 0.0


def boundary_weighted_iou(prediction: Sequence[float], target: Sequence[float], duration_s: float) -> float:
    """IoU x (1 - |error of the start| / duration) x (1 - |error of the end| / duration).

    As published it is negative where a time is off by more than the video is long.

    Source: Time-R1 (2025).
    """
    starts = 1 - abs(target[0] - prediction[0]) / duration_s
    ends = 1 - abs(target[1] - prediction[1]) / duration_s
    return iou(prediction, target) * starts * ends


def shared(prediction: Set, target: Set) -> tuple[float, float, float]:
    """Seconds in both, in the merged prediction, and in the target.

    Target windows are taken as they are: those that overlap each other count twice, as where these rewards come from.
    """
    p, g = merged(as_set(prediction)), as_set(target)
    common = sum(max(0.0, min(end, b) - max(start, a)) for start, end in p for a, b in g)
    return common, length(p), length(g)


def union_iou(prediction: Set, target: Set) -> float:
    """IoU of two sets of windows; 1 where both are empty.

    ``metrics.moment_sets.union_iou`` also merges the target.

    Source: TimeLens2 (2026), ``tiou``.
    """
    if is_flat(prediction) and is_flat(target):
        return iou(prediction, target)
    if not len(prediction) or not len(target):
        return float(len(prediction) == len(target))
    common, predicted, wanted = shared(prediction, target)
    return clipped(common / (predicted + wanted - common + TINY))


def union_giou(prediction: Set, target: Set) -> float:
    """IoU of two sets less the share of the window around everything that neither covers, from -1 to 1.

    Source: Rezatofighi et al., Generalized IoU (2019); TimeLens2 (2026), ``tgiou``.
    """
    if not len(prediction) or not len(target):
        return float(len(prediction) == len(target))
    p, g = as_set(prediction), as_set(target)
    if is_flat(prediction) and is_flat(target):
        common = max(0.0, min(p[0][1], g[0][1]) - max(p[0][0], g[0][0]))
        union = length(p) + length(g) - common
        ratio = iou(prediction, target)
    else:
        p = merged(p, points=True)
        common, predicted, wanted = shared(p, g)
        union = predicted + wanted - common
        ratio = common / (union + TINY)  # above 1 where target windows overlap each other
    hull = max(end for _, end in (*p, *g)) - min(start for start, _ in (*p, *g)) if p else 0.0
    return clipped(ratio - (hull - union) / hull, lowest=-1.0) if hull > 0 else 0.0


def matched_giou(prediction: Set, target: Set) -> float:
    """The mean of (1 + GIoU) / 2 of the n-th window with the n-th target, by start; one without a partner earns 0.

    Source: MUSEG (2025); TimeLens2 (2026), ``ngiou``.
    """
    p, g = (sorted(window for window in as_set(windows) if window[0] < window[1]) for windows in (prediction, target))
    count = max(len(p), len(g))
    return sum((1 + union_giou(a, b)) / 2 for a, b in zip(p, g, strict=False)) / count if count else 0.0


def precision_weighted_iou(prediction: Set, target: Set, second: Set | None = None, alpha: float = 0.6) -> float:
    """IoU ** alpha x precision ** (1 - alpha): windows that cover too much earn less.

    Args:
        prediction: windows.
        target: windows.
        second: another annotator's; precision is then that within what both of them marked.
        alpha: weight of IoU.

    Source: TimeLens2 (2026), ``precision_weight_iou`` and ``dual_anno_precision_weight_iou``.
    """
    marked = as_set(target)
    if second is not None:
        common = [(max(a, c), min(b, d)) for a, b in marked for c, d in as_set(second)]
        marked = merged([window for window in common if window[1] > window[0]])
    if not len(prediction) or not marked:
        return 0.0
    inside, predicted, _ = shared(prediction, marked)
    precision = clipped(inside / (predicted + TINY)) if predicted > 0 else 0.0
    return union_iou(prediction, target) ** alpha * precision ** (1 - alpha)


def length_ratio_penalty(prediction: Set, target: Set) -> float:
    """-|log10 of the predicted seconds over those of the target|, windows not merged. Source: TimeLens2 (2026)."""
    seconds = [sum(max(0.0, end - start) for start, end in as_set(windows)) for windows in (prediction, target)]
    return -abs(math.log10((seconds[0] + 1e-6) / (seconds[1] + 1e-6)))


def cumulative(windows: Sequence[Window]) -> Callable[[float], float]:
    """The distribution function of a second that is drawn evenly from merged windows."""
    whole = length(windows)
    return lambda time: clipped(sum(max(0.0, min(time, end) - start) for start, end in windows) / whole)


def wasserstein1(prediction: Set, target: Set) -> float:
    """How far, on average, the seconds of one set have to move to lie evenly over the other: the integral of |F - G|.

    Exact: between the ends of windows both distribution functions are straight lines.

    Args:
        prediction: windows of which one at least has a length.
        target: the same.

    Returns:
        seconds.

    Source: Villani, Optimal Transport (2009), in one dimension; TimeLens2 (2026).
    """
    p, g = merged(as_set(prediction)), merged(as_set(target))
    first, second = cumulative(p), cumulative(g)
    edges = sorted({time for window in (*p, *g) for time in window})
    gaps = [first(time) - second(time) for time in edges]
    total = 0.0
    for left, right, a, b in zip(edges, edges[1:], gaps, gaps[1:], strict=False):
        crossing = a * b < 0
        height = (a * a + b * b) / (abs(a) + abs(b)) if crossing else abs(a) + abs(b)
        total += height * (right - left) / 2
    return total


def wasserstein2(prediction: Set, target: Set) -> float:
    """As ``wasserstein1``, for squared distances: the root of the integral of (F^-1 - G^-1) ** 2, exact."""
    sets = [merged(as_set(windows)) for windows in (prediction, target)]
    wholes = [length(windows) for windows in sets]
    shares = sorted({share for windows, whole in zip(sets, wholes, strict=True) for share in masses(windows, whole)})
    slope, total = wholes[0] - wholes[1], 0.0
    for left, right in zip(shares, shares[1:], strict=False):
        middle, width = (left + right) / 2, right - left
        times = [quantile(windows, whole * middle) for windows, whole in zip(sets, wholes, strict=True)]
        total += (times[0] - times[1]) ** 2 * width + slope * slope * width**3 / 12
    return math.sqrt(max(total, 0.0))


def masses(windows: Sequence[Window], whole: float) -> list[float]:
    """0, and the share of all seconds up to the end of each window; the last is 1."""
    shares = [0.0]
    for start, end in windows:
        shares.append(min(shares[-1] + (end - start) / whole, 1.0))
    return [*shares[:-1], 1.0]


def quantile(windows: Sequence[Window], seconds: float) -> float:
    """The time up to which so many seconds of the windows lie."""
    for start, end in windows:
        if seconds <= end - start:
            return start + seconds
        seconds -= end - start
    return windows[-1][1]


def decayed(prediction: Set, target: Set, beta: float, distance: Callable[[list, list], float], scale: str) -> float:
    """exp(-beta x distance / seconds); 1 for two empty sets, 0 for one.

    Args:
        prediction: windows.
        target: windows.
        beta: how steeply it falls.
        distance: of two sets of merged windows, in seconds.
        scale: ``target`` or ``union``: whose seconds the distance is measured in.
    """
    p, g = merged(as_set(prediction)), merged(as_set(target))
    if not p or not g:
        return float(not p and not g)
    return math.exp(-beta * distance(p, g) / length(g if scale == "target" else merged([*p, *g])))


def transport_reward(prediction: Set, target: Set, beta: float = 1.0) -> float:
    """exp(-beta x W1 / seconds of the target): 1 for the same seconds, less for every second of distance.

    It tells a near miss from a far one where IoU is 0 for both.

    Args:
        prediction: windows.
        target: windows.
        beta: TimeLens2 trains with 1 (``twass1``); its ``twass`` without a number is 3.

    Source: TimeLens2 (2026).
    """
    return decayed(prediction, target, beta, wasserstein1, "target")


def squared_transport_reward(prediction: Set, target: Set, beta: float = 3.0) -> float:
    """exp(-beta x W2 / seconds of the union). Source: TimeLens2 (2026), ``r2twass``."""
    return decayed(prediction, target, beta, wasserstein2, "union")


def endpoint_reward(prediction: Set, target: Set, beta: float = 3.0) -> float:
    """exp(-beta x W1 of the starts and ends / seconds of the union). Source: TimeLens2 (2026), ``tdirac``."""

    def distance(p: list, g: list) -> float:
        points = [sorted(time for window in windows for time in window) for windows in (p, g)]
        edges = sorted({time for group in points for time in group})
        share = [[mean(time <= edge for time in group) for edge in edges] for group in points]
        return sum(abs(a - b) * (right - left) for a, b, left, right in zip(*share, edges, edges[1:], strict=False))

    return decayed(prediction, target, beta, distance, "union")


def centre_reward(prediction: Set, target: Set, beta: float = 3.0, width: float = 0.5) -> float:
    """Each window as a normal distribution around its centre, standard deviation ``width`` times its length.

    exp(-beta x W1 of the mixtures / seconds of the union). Source: TimeLens2 (2026), ``tcgauss``.
    """
    return blurred_reward(prediction, target, beta, width, lambda start, end: [(start + end) / 2])


def soft_endpoint_reward(prediction: Set, target: Set, beta: float = 3.0, width: float = 0.08) -> float:
    """As ``centre_reward``, around both ends of each window. Source: TimeLens2 (2026), ``tbgauss``."""
    return blurred_reward(prediction, target, beta, width, lambda start, end: [start, end])


def blurred_reward(
    prediction: Set, target: Set, beta: float, width: float, centres: Callable[[float, float], list[float]]
) -> float:
    """The reward of mixtures of normal distributions, integrated by trapezoids."""

    def distance(p: list, g: list) -> float:
        bells = [
            [(c, max(abs(width) * (e - s), 1e-6)) for s, e in windows for c in centres(s, e)] for windows in (p, g)
        ]
        low = min(centre - EDGE * sigma for group in bells for centre, sigma in group)
        high = max(centre + EDGE * sigma for group in bells for centre, sigma in group)
        step = (high - low) / STEPS
        heights = [abs(mixture(bells[0], low + i * step) - mixture(bells[1], low + i * step)) for i in range(STEPS + 1)]
        return step * (sum(heights) - (heights[0] + heights[-1]) / 2)

    return decayed(prediction, target, beta, distance, "union")


def mixture(bells: Sequence[tuple[float, float]], time: float) -> float:
    """The distribution function of a mixture of normal distributions (centre, standard deviation)."""
    return mean((1 + math.erf((time - centre) / sigma / math.sqrt(2))) / 2 for centre, sigma in bells)
