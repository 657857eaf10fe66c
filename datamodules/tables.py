"""Tables that say what was made and what was left out."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Column, Table

from datamodules.skips import Skip

ROWS = 20
"""The longest list of skips that is printed whole."""
console = Console()


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence]) -> None:
    """Print one table; long cells are folded, never cut."""
    table = Table(*(Column(column, overflow="fold") for column in columns), title=title)
    for row in rows:
        table.add_row(*map(str, row))
    console.print(table, markup=False)


def print_skipped(skipped: Sequence[Skip]) -> None:
    """Print the first skips, where there are any."""
    if skipped:
        rows = [(skip.where, skip.reason, skip.detail) for skip in skipped[:ROWS]]
        if len(skipped) > ROWS:
            rows.append(("...", f"{len(skipped) - ROWS} more in skipped.jsonl", ""))
        print_table("skipped", ("file", "reason", "detail"), rows)


def print_made(what: str, where: Path, about: Mapping) -> None:
    """Print what was written, and facts about it."""
    print_table(what, ("written to", str(where)), about.items())
