"""Temporal windows and the overlap of two of them.

Shapes: S predicted windows, R target windows. A window is (start, end); any unit, seconds almost everywhere.
"""

import math
import sys
from collections.abc import Iterable, Sequence
from numbers import Real

import numpy as np

Windows = Sequence[Sequence[float]]
"""(start, end) each, or (start, end, score)."""
VARIANTS = ("exact", "cross", "hull", "eps", "eps_sorted", "float32")


def is_number(value: object) -> bool:
    """True for a finite int or float (numpy scalars included), False for bool, text, NaN and infinity."""
    if type(value) is not float and (not isinstance(value, (int, Real)) or isinstance(value, (bool, np.bool_))):
        return False
    return -sys.float_info.max <= value <= sys.float_info.max  # an int can be too large for a float


def is_valid(window: object) -> bool:
    """True for two finite numbers (start, end) with start <= end. A third number, the score, is allowed."""
    if not isinstance(window, (list, tuple, Sequence, np.ndarray)) or isinstance(window, str):
        return False
    return len(window) in (2, 3) and all(map(is_number, window)) and bool(window[0] <= window[1])


def count_invalid(answers: Iterable[Sequence | None]) -> int:
    """Windows of several answers that are not valid."""
    return sum(not is_valid(window) for windows in answers for window in windows or [])


def as_array(windows: Sequence) -> np.ndarray:
    """Windows as an array.

    Args:
        windows: S windows of two or three numbers.

    Returns:
        (S, 2) float64. An invalid window becomes (nan, nan), which overlaps nothing.
    """
    rows = [(window[0], window[1]) if is_valid(window) else (math.nan, math.nan) for window in windows]
    return np.array(rows, dtype=np.float64).reshape(-1, 2)


def iou(predicted: Sequence, target: Sequence, variant: str = "exact") -> np.ndarray:
    """Intersection over union of every predicted window with every target window.

    ``exact`` is the definition: overlap / length of the union; 0 for an invalid window and for two points. The
    others are what official evaluators compute; they differ for windows without length and in the last bits, which
    decide at exact thresholds: ``cross`` (QVHighlights mAP; 0/0 is NaN), ``hull`` (the smallest window around both
    as denominator; TimeChat, TimeLens, VTimeLLM, NExT-GQA, QVHighlights R1), ``eps`` (SODA and ActivityNet
    Captions; union + 1e-8), ``eps_sorted`` (TimeChat's dense captioning, which swaps inverted end points), and
    ``float32`` (nncore: E.T. Bench, VideoMind; 0/0 is NaN).

    Args:
        predicted: (..., S, 2) windows.
        target: (..., R, 2) windows.
        variant: one of ``VARIANTS``.

    Returns:
        (..., S, R) float64, or float32 for ``float32``.

    Raises:
        ValueError: unknown variant.
    """
    if variant not in VARIANTS:
        raise ValueError(f"unknown IoU variant {variant!r}; known: {', '.join(VARIANTS)}")
    dtype = np.float32 if variant == "float32" else np.float64
    p, g = (np.asarray(windows, dtype=dtype) for windows in (predicted, target))
    p, g = (windows if windows.ndim > 2 else windows.reshape(-1, 2) for windows in (p, g))
    p, g = p[..., :, None, :], g[..., None, :, :]
    if variant == "eps_sorted":
        p, g = np.sort(p, axis=-1), np.sort(g, axis=-1)
    overlap = np.maximum(0, np.minimum(p[..., 1], g[..., 1]) - np.maximum(p[..., 0], g[..., 0]))
    lengths = (p[..., 1] - p[..., 0]) + (g[..., 1] - g[..., 0])
    with np.errstate(divide="ignore", invalid="ignore"):
        if variant in ("cross", "float32"):
            return overlap / (lengths - overlap)
        if variant == "exact":
            ratio = overlap / (lengths - overlap)
            ordered = (p[..., 0] <= p[..., 1]) & (g[..., 0] <= g[..., 1])
            return np.where(ordered & np.isfinite(ratio), ratio, 0.0)
        hull = np.maximum(p[..., 1], g[..., 1]) - np.minimum(p[..., 0], g[..., 0])
        if variant == "hull":
            return np.divide(overlap, hull, out=np.zeros_like(overlap), where=hull != 0)
        return overlap / (np.minimum(hull, lengths) + 1e-8)
