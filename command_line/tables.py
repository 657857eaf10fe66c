"""Tables on the terminal, and text that is harmless on it."""

import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.table import Column, Table

console = Console()

JOINERS = "\u200c\u200d"
"""Invisible characters that emoji and some scripts are written with."""


def shown(text: object) -> str:
    """Text from files and models as a terminal may have it: what would steer it is written as an escape.

    These are control characters other than line breaks, marks that turn the direction of the line, and bytes of a name
    that are no UTF-8.
    """
    return "".join(map(_harmless, str(text)))


def _harmless(character: str) -> str:
    if character == "\n" or character in JOINERS or unicodedata.category(character) not in ("Cc", "Cf", "Cs"):
        return character
    return character.encode("unicode_escape", "surrogatepass").decode() if character != "\t" else " "


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence]) -> None:
    """Print one table; long cells are folded, never cut."""
    table = Table(*(Column(shown(column), overflow="fold") for column in columns), title=shown(title))
    for row in rows:
        table.add_row(*map(shown, row))
    console.print(table, markup=False)


def print_written(*paths: Path) -> None:
    """The last line of a command: what was written, and where. It is printed when the command is quiet, too."""
    if paths:
        quiet, console.quiet = console.quiet, False
        console.print(
            f"Written: {', '.join(shown(path) for path in paths)}", markup=False, highlight=False, soft_wrap=True
        )
        console.quiet = quiet


def print_made(what: str, where: Path, about: Mapping) -> None:
    """Print what was written, facts about it, and the last line."""
    print_table(what, ("written to", str(where)), about.items())
    print_written(where)


@contextmanager
def quieted(arguments: Sequence[str]) -> Iterator[list[str]]:
    """Arguments without ``--quiet``; where they had it, tables and bars are left out until the end."""
    console.quiet = "--quiet" in arguments
    try:
        yield [argument for argument in arguments if argument != "--quiet"]
    finally:
        console.quiet = False
