"""Means that no order of the values changes."""

import math
from collections.abc import Iterable, Mapping

Row = Mapping[str, float]
"""The values of one query: metric -> value, in the metric's unit. A metric that it does not enter is absent."""


def mean(values: Iterable[float]) -> float:
    """The mean, summed exactly, so that no order of the values changes it. NaN for no value at all."""
    values = [float(value) for value in values]
    return math.fsum(values) / len(values) if values else math.nan


def harmonic(a: float, b: float) -> float:
    """The harmonic mean of two numbers, 0 where both are 0."""
    return 2 * a * b / (a + b) if a + b != 0 else 0.0


def column_means(rows: Iterable[Row]) -> dict[str, float]:
    """The mean of each metric over the rows that have it, in the order in which the metrics come up.

    Args:
        rows: one a query.
    """
    columns: dict[str, list[float]] = {}
    for row in rows:
        for name, value in row.items():
            columns.setdefault(name, []).append(value)
    return {name: mean(values) for name, values in columns.items()}
