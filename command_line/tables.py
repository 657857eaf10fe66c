"""Tables on the terminal."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Column, Table

console = Console()


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence]) -> None:
    """Print one table; long cells are folded, never cut."""
    table = Table(*(Column(column, overflow="fold") for column in columns), title=title)
    for row in rows:
        table.add_row(*map(str, row))
    console.print(table, markup=False)


def print_made(what: str, where: Path, about: Mapping) -> None:
    """Print what was written, and facts about it."""
    print_table(what, ("written to", str(where)), about.items())
