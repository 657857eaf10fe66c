"""The table of a paper: ours beside the published values, and under it what every number depends on."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

import yaml

from reports.escaping import escaped
from reports.measured import COST, Row

PUBLISHED = Path(__file__).with_name("published.yaml")
COUNTS = ("n", "unparsed", "invalid", "missing", "unknown")
"""Ends of the names of counts, which are no columns of a table."""
WHOLE = ("trained_numbers", "new_tokens")
"""Columns of counts."""
COMPARED = ("setting", "base", "features", "scoring")
"""Facts that are held against those of a paper."""


@dataclass(frozen=True)
class PaperTable:
    """Cells as text, row by row, and the footnotes that their marks name."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    footnotes: tuple[str, ...]

    def markdown(self) -> str:
        """For a README."""
        lines = [self.columns, ("---", *["---:"] * (len(self.columns) - 1)), *self.rows]
        table = "\n".join(f"| {' | '.join(_bar_free(cell) for cell in line)} |" for line in lines)
        return f"**{self.title}**\n\n{table}\n\n" + "\n".join(f"{note}  " for note in self.footnotes) + "\n"

    def csv(self) -> str:
        """For a spreadsheet; the footnotes stand behind the table."""
        buffer = io.StringIO()
        csv.writer(buffer).writerows([self.columns, *self.rows, [], *([note] for note in self.footnotes)])
        return buffer.getvalue()

    def html(self) -> str:
        """One page without a script."""
        head = "".join(f"<th>{escaped(cell)}</th>" for cell in self.columns)
        body = "".join(f"<tr>{''.join(f'<td>{escaped(cell)}</td>' for cell in row)}</tr>" for row in self.rows)
        notes = "".join(f"<li>{escaped(note)}</li>" for note in self.footnotes)
        style = "body{font:15px system-ui}td,th{padding:2px 10px;text-align:right}td:first-child{text-align:left}"
        return (
            f'<!doctype html><meta charset="utf-8"><title>{escaped(self.title)}</title><style>{style}'
            f"ul{{list-style:none;padding:0;font-size:13px}}</style><h1>{escaped(self.title)}</h1>"
            f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table><ul>{notes}</ul>\n"
        )


def published(benchmark: str) -> dict:
    """What papers print about a benchmark: ``title``, ``columns``, ``times`` and ``rows``.

    Raises:
        ValueError: nothing is known about it.
    """
    known = yaml.safe_load(PUBLISHED.read_text(encoding="utf-8"))
    if benchmark not in known:
        raise ValueError(f"no published numbers for {benchmark!r}; there are those of {', '.join(known)}")
    return known[benchmark]


def paper_table(rows: Sequence[Row], benchmark: str | None = None, columns: Sequence[str] | None = None) -> PaperTable:
    """Put ours and the published values into one table.

    Args:
        rows: ours.
        benchmark: whose published numbers stand below ours; None: none do.
        columns: names of metrics, with or without their task, and of costs; None: those of the published table, or all
            metrics that we have.

    Raises:
        ValueError: no row has any of the columns.
    """
    theirs = published(benchmark) if benchmark else {"title": "Results", "rows": [], "columns": []}
    names = tuple(columns or theirs["columns"] or _all_columns(rows))
    if not any(row.values(name) for row in rows for name in names):
        have = ", ".join(_all_columns(rows)) or "none"
        raise ValueError(f"no result has any of {', '.join(names)}; those there are: {have}")
    times, notes = theirs.get("times", 1), _Footnotes()
    lines = []
    for row in rows:
        scale = {name: 1 if row.is_cost(name) else times for name in names}
        cells = [_cell([scale[name] * value for value in row.values(name)], name in WHOLE) for name in names]
        unlike = [_against(row.protocol, other) for other in theirs["rows"]]
        lines.append((f"{row.label} {notes.mark(row.protocol, list(filter(None, unlike)))}", *cells))
    for other in theirs["rows"]:
        values = dict(zip(theirs["columns"], other["values"], strict=True))
        cells = [_number(values.get(name)) for name in names]
        facts = {name: other[name] for name in COMPARED if name in other} | {"source": other["source"]}
        lines.append((f"{other['system']} *paper* {notes.mark(facts)}", *cells))
    return PaperTable(theirs["title"], ("model", *names), tuple(lines), tuple(notes.lines))


def _all_columns(rows: Sequence[Row]) -> list[str]:
    found = dict.fromkeys(name for row in rows for one in row.metrics for name in one if not name.startswith(COST))
    names = dict.fromkeys(name.rpartition("/")[2] for name in found)
    return [name for name in names if name not in COUNTS]


def _cell(values: Sequence[float], count: bool = False) -> str:
    """Mean and standard deviation over seeds; of a count that all have, that."""
    if count and len({*values}) == 1:
        return f"{values[0]:,.0f}"
    if len(values) < 2:
        return _number(values[0] if values else None)
    return f"{mean(values):.1f} ± {stdev(values):.1f}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _bar_free(cell: str) -> str:
    return cell.replace("|", "\\|")


def _against(protocol: Mapping, other: Mapping) -> str:
    """What we did otherwise than a published system, as far as both say it; nothing if that is nothing."""
    both = [name for name in COMPARED if name in protocol and name in other and other[name] != "not stated"]
    unlike = [name for name in both if not other[name].lower().startswith(str(protocol[name]).lower())]
    words = ", ".join(f"{name} ({protocol[name]}, there {other[name]})" for name in unlike)
    return f"{other['system']} in {words}" if words else ""


class _Footnotes:
    """Gives each protocol a letter; rows with the same one share it."""

    def __init__(self):
        self.lines: list[str] = []
        self._marks: dict[str, str] = {}

    def mark(self, facts: Mapping, unlike: Sequence[str] = ()) -> str:
        """The mark of a row's protocol, with what differs from published systems."""
        words = "; ".join(f"{name}: {value}" for name, value in facts.items()) or "protocol unknown"
        if unlike:
            words += f". Differs from {'; from '.join(unlike)}"
        if words not in self._marks:
            number = len(self._marks)
            self._marks[words] = f"[{chr(ord('a') + number) if number < 26 else number}]"
            self.lines.append(f"{self._marks[words]} {words}.")
        return self._marks[words]
