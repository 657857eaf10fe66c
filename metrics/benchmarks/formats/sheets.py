"""Tables as rows of records: csv, tsv and the first sheet of an xlsx workbook, as evaluation harnesses write them."""

import csv
import io
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

SHEETS = (".csv", ".tsv", ".xlsx")
LARGEST = 2**30
"""Bytes of an unpacked part of a workbook."""
NAMES = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
LETTERS = re.compile(r"[A-Z]+")


def read_sheet(path: Path) -> list[dict]:
    """The rows of a table under the names of its first row; an empty cell is None, a number of an xlsx a number.

    Raises:
        ValueError: not a table, or a row is longer than the first one.
    """
    rows = list(workbook_rows(path) if path.suffix.lower() == ".xlsx" else text_rows(path))
    if len(rows) < 2:
        raise ValueError("the table has no row under its head")
    head = ["" if name is None else str(name) for name in rows[0]]
    records = []
    for number, row in enumerate(rows[1:], 2):
        if len(row) > len(head):
            raise ValueError(f"row {number} has {len(row)} cells, the head has {len(head)}")
        cells = [*row, *[None] * (len(head) - len(row))]
        records.append({name: cell for name, cell in zip(head, cells, strict=True) if name})
    return records


def text_rows(path: Path) -> Iterator[list]:
    """The rows of a csv or tsv file."""
    csv.field_size_limit(LARGEST)
    text = path.read_text(encoding="utf-8-sig")
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    try:
        for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter):
            if row:
                yield [cell if cell != "" else None for cell in row]
    except csv.Error as error:
        raise ValueError(f"no table ({error})") from None


def workbook_rows(path: Path) -> Iterator[list]:
    """The rows of the first sheet of a workbook.

    Raises:
        ValueError: it is no workbook, or too large.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            sheets = sorted(name for name in archive.namelist() if re.fullmatch(r"xl/worksheets/sheet\d+\.xml", name))
            if not sheets:
                raise ValueError("no workbook: it holds no sheet")
            shared = shared_texts(archive)
            tree = ElementTree.fromstring(
                member(archive, min(sheets, key=lambda name: int(re.findall(r"\d+", name)[0])))
            )
    except (zipfile.BadZipFile, ElementTree.ParseError, KeyError) as error:
        raise ValueError(f"no workbook ({error})") from None
    for row in tree.iter(f"{NAMES}row"):
        cells: list = []
        for cell in row.iter(f"{NAMES}c"):
            place = column(cell.get("r", "")) if cell.get("r") else len(cells)
            cells += [None] * (place - len(cells))
            cells.append(value(cell, shared))
        yield cells


def member(archive: zipfile.ZipFile, name: str) -> bytes:
    """The content of a part of a workbook.

    Raises:
        ValueError: it is too large.
    """
    if archive.getinfo(name).file_size > LARGEST:
        raise ValueError(f"{name} is too large")
    return archive.read(name)


def shared_texts(archive: zipfile.ZipFile) -> list[str]:
    """The texts that cells refer to by number."""
    if "xl/sharedStrings.xml" not in archive.namelist():
        return []
    tree = ElementTree.fromstring(member(archive, "xl/sharedStrings.xml"))
    return ["".join(part.text or "" for part in item.iter(f"{NAMES}t")) for item in tree.iter(f"{NAMES}si")]


def column(place: str) -> int:
    """The number of a column, from a place such as "AB12"."""
    number = 0
    for letter in LETTERS.match(place)[0]:
        number = 26 * number + ord(letter) - ord("A") + 1
    return number - 1


def value(cell: ElementTree.Element, shared: list[str]) -> object:
    """The content of a cell."""
    kind = cell.get("t", "n")
    if kind == "inlineStr":
        return "".join(part.text or "" for part in cell.iter(f"{NAMES}t"))
    content = cell.findtext(f"{NAMES}v")
    if content is None:
        return None
    if kind == "s":
        return unescaped(shared[int(content)])
    if kind == "n":
        number = float(content)
        return int(number) if number.is_integer() else number
    return content == "1" if kind == "b" else content


def unescaped(text: str) -> str:
    """Text without the escapes of characters that XML cannot hold (_x000D_)."""
    return re.sub(r"_x([0-9A-Fa-f]{4})_", lambda match: chr(int(match[1], 16)), text)
