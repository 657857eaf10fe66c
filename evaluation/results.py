"""Scores as people read them."""

from collections.abc import Mapping

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
        table.add_row(name, *("-" if cell is None else _number(cell, decimals) for cell in cells))
    return table


def _number(value: float, decimals: int) -> str:
    return f"{value:.{decimals}f}".removesuffix("." + "0" * decimals)
