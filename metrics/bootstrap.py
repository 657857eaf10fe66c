"""How sure is a number? Bootstrap intervals over queries, and two systems compared query by query.

Q queries, M metrics, B draws.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from metrics.means import Row, column_means

LEVEL = 0.95
CHUNK = 64
"""Draws that are computed at once."""
Summary = Callable[[Mapping[str, float]], Mapping[str, float]]


def table(rows: Mapping[str, Row], names: Sequence[str]) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Values (Q, M), 0 where absent; which are there (Q, M); and the names of the M columns."""
    columns = list(dict.fromkeys(name for row in rows.values() for name in row))
    values = np.array([[rows[name].get(column, np.nan) for column in columns] for name in names], dtype=float)
    there = np.array([[column in rows[name] for column in columns] for name in names], dtype=float)
    return np.where(there > 0, values, 0.0), there, columns


def draws(names: Sequence[str], count: int, seed: int, strata: Mapping[str, str] | None) -> np.ndarray:
    """(B, Q) how often each query is drawn: as many as there are, with replacement, within each group."""
    rng = np.random.default_rng(seed)
    groups: dict[str, list[int]] = {}
    for i, name in enumerate(names):
        groups.setdefault(strata[name] if strata else "", []).append(i)
    times = np.zeros((count, len(names)), dtype=np.int32)
    for places in groups.values():
        size = len(places)
        for draw in times:
            draw[places] = np.bincount(rng.integers(0, size, size), minlength=size)
    return times


def resampled(rows: Mapping[str, Row], times: np.ndarray, names: Sequence[str], summary: Summary) -> list[Mapping]:
    """The metrics of each draw."""
    values, there, columns = table(rows, names)
    found = []
    for start in range(0, len(times), CHUNK):
        part = times[start : start + CHUNK].astype(float)
        with np.errstate(invalid="ignore", divide="ignore"):
            means = (part @ values) / (part @ there)
        found += [summary(dict(zip(columns, row.tolist(), strict=True))) for row in means]
    return found


def quantiles(metrics: Sequence[Mapping], level: float) -> dict[str, tuple[float, float]]:
    """The middle ``level`` of the values of each metric over draws."""
    edges = [(1 - level) / 2, (1 + level) / 2]
    found = {}
    for name in metrics[0]:
        values = np.array([draw[name] for draw in metrics if name in draw], dtype=float)
        low, high = np.nanquantile(values, edges) if np.isfinite(values).any() else (np.nan, np.nan)
        found[name] = (float(low), float(high))
    return found


def intervals(
    rows: Mapping[str, Row],
    summary: Summary = dict,
    count: int = 1000,
    level: float = LEVEL,
    seed: int = 0,
    strata: Mapping[str, str] | None = None,
) -> dict[str, tuple[float, float]]:
    """Percentile bootstrap intervals of all metrics.

    Queries are drawn independently of each other; where several are about one video they are not quite, and the
    intervals are a little too narrow.

    Args:
        rows: query -> values.
        summary: means of the columns -> metrics.
        count: B.
        level: share of the draws inside the interval.
        seed: of the draws.
        strata: query -> group to draw within; None: there is one group.

    Returns:
        metric -> (low, high).

    Raises:
        ValueError: no query, or no draw.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13.
    """
    if not rows or count < 1:
        raise ValueError("a bootstrap needs a query and a draw at least")
    names = sorted(rows)
    return quantiles(resampled(rows, draws(names, count, seed, strata), names, summary), level)


def paired(
    first: Mapping[str, Row],
    second: Mapping[str, Row],
    summary: Summary = dict,
    count: int = 1000,
    level: float = LEVEL,
    seed: int = 0,
    strata: Mapping[str, str] | None = None,
) -> dict[str, dict[str, float]]:
    """Two systems on the same queries: the difference of each metric, with a paired bootstrap interval.

    Args:
        first: query -> values.
        second: the same queries; others are left out on both sides.
        summary: means of the columns -> metrics.
        count: B.
        level: share of the draws inside the interval.
        seed: of the draws; each draw takes the same queries of both.
        strata: query -> group to draw within.

    Returns:
        metric -> ``first``, ``second``, ``difference`` (first - second), ``low``, ``high``, and ``above``: the share
        of draws in which the first is better or equal.

    Raises:
        ValueError: no query in common.
    """
    names = sorted(first.keys() & second.keys())
    if not names:
        raise ValueError("the two have no query in common")
    times = draws(names, count, seed, strata)
    own = [{name: rows[name] for name in names} for rows in (first, second)]
    metrics = [resampled(rows, times, names, summary) for rows in own]
    values = [summary(column_means(rows.values())) for rows in own]
    gaps = [{k: a[k] - b[k] for k in a if k in b} for a, b in zip(*metrics, strict=True)]
    edges = quantiles(gaps, level)
    found = {}
    for name, (low, high) in edges.items():
        a, b = values[0][name], values[1][name]
        above = float(np.mean([gap[name] >= 0 for gap in gaps if name in gap]))
        found[name] = {"first": a, "second": b, "difference": a - b, "low": low, "high": high, "above": above}
    return found


def moved(first: Mapping[str, Row], second: Mapping[str, Row], metric: str) -> list[tuple[str, float, float]]:
    """The queries whose value of a metric differs: (query, first, second), the largest difference first."""
    pairs = [
        (name, first[name][metric], second[name][metric])
        for name in first.keys() & second.keys()
        if metric in first[name] and metric in second[name] and first[name][metric] != second[name][metric]
    ]
    return sorted(pairs, key=lambda item: (-abs(item[1] - item[2]), item[0]))
