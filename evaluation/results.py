"""Scores as people read them."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.table import Table


def metrics_table(
    scores: Mapping[str, float], title: str, decimals: int = 2, beside: Mapping[str, Mapping[str, float]] | None = None
) -> Table:
    """One metric a line.

    Args:
        scores: of the model.
        title: of the table.
        decimals: that are shown.
        beside: name of another column -> what stands there, for the metrics that it has.
    """
    others = {name: column for name, column in (beside or {}).items() if column}
    table = Table("metric", "value", *others, title=title)
    for name in scores:
        cells = [column.get(name) for column in (scores, *others.values())]
        table.add_row(name, *("-" if cell is None else shown(cell, decimals) for cell in cells))
    return table


def shown(value: float, decimals: int = 2) -> str:
    """A number, without decimals that are all 0."""
    return f"{value:.{decimals}f}".removesuffix("." + "0" * decimals)


def report_table(report: Mapping) -> Table:
    """The metrics of a report of ``metrics.score``: with intervals, and beside another file, where it holds them."""
    intervals, other = report.get("intervals"), report.get("against", {}).get("metrics")
    columns = ["metric", "value"] + ["95 %"] * bool(intervals)
    columns += ["against", "change", "95 %", "not worse"] * bool(other)
    decimals = 4 if report["protocol"]["unit"].startswith("fractions") else 2
    table = Table(*columns)
    for name, value in report["metrics"].items():
        row = [name, shown(value, 4)]
        if intervals:
            row.append(interval(intervals.get(name), decimals))
        if other and name in other:
            pair = other[name]
            bounds = interval((pair["low"], pair["high"]), decimals)
            row += [shown(pair["second"], 4), f"{pair['difference']:+.{decimals}f}", bounds]
            row.append(f"{100 * pair['above']:.1f} %")
        table.add_row(*row)
    return table


def interval(bounds: Sequence[float] | None, decimals: int) -> str:
    """Two bounds; "-" for a number that has none."""
    return "-" if bounds is None else f"{bounds[0]:.{decimals}f} .. {bounds[1]:.{decimals}f}"


def write_rows(path: Path, rows: Mapping[str, Mapping[str, float]]) -> None:
    """A csv with one line a query; a value that a query does not have stays empty."""
    columns = list(dict.fromkeys(name for row in rows.values() for name in row))
    write_csv(path, ["query", *columns], ([query, *(row.get(c, "") for c in columns)] for query, row in rows.items()))


def write_csv(path: Path, columns: Sequence[str], rows) -> None:
    """A csv in UTF-8."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)
