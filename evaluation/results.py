"""Scores as people read them."""

from rich.table import Table


def metrics_table(scores: dict[str, float], title: str, decimals: int = 2) -> Table:
    """One metric a line."""
    table = Table("metric", "value", title=title)
    for name, value in scores.items():
        table.add_row(name, f"{value:.{decimals}f}".removesuffix("." + "0" * decimals))
    return table
