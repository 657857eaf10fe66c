"""Tables on the terminal, and text that is harmless on it."""

import sys
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

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


class PlainConsole(Console):
    """A console on which texts are only texts: markup and names of emoji in them stay as they are, and what would
    steer a terminal is written as an escape, also in the cells and titles of tables.
    """

    def __init__(self, **settings):
        super().__init__(**settings, markup=False, emoji=False)

    def render_str(self, text: str, **settings) -> Text:
        """As rich does, without markup; every plain string that is printed comes through here."""
        return super().render_str(shown(text), **settings | {"markup": False, "emoji": False})


console = PlainConsole()


def say(*lines: object, style: str | None = None) -> None:
    """Print lines, however long they are, for people and for scripts that read them."""
    for line in lines:
        console.print(str(line), style=style, highlight=False, soft_wrap=True)


def complain(program: str, words: object) -> None:
    """Print what went wrong to the error stream."""
    sys.stderr.write(f"{program}: {shown(words)}\n")


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence]) -> None:
    """Print one table; long cells are folded, never cut."""
    table = Table(*(Column(shown(column), overflow="fold") for column in columns), title=shown(title))
    for row in rows:
        table.add_row(*map(shown, row))
    console.print(table)


def print_written(*paths: Path) -> None:
    """The last line of a command: what was written, and where. It is printed when the command is quiet, too."""
    if paths:
        quiet, console.quiet = console.quiet, False
        names = ", ".join(map(str, paths)).replace("\n", "\\n")  # one line, whatever a name holds
        say(f"Written: {names}")
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
