"""Files of predictions and annotations: read them strictly, say where they are wrong."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from metrics.benchmarks.formats.sheets import SHEETS, read_sheet

KIND_NAMES = {list: "a list", Mapping: "an object", str: "text", int: "a whole number"}


T = TypeVar("T")


class FileError(ValueError):
    """A file that does not fit; the message is one line that names the file and the place."""


class Collector:
    """Keeps the records of annotation files that can be used; what becomes of the others is said by ``on_error``.

    Args:
        on_error: ``fail``: the first bad record is an error; ``skip``: bad records are left out and counted.
    """

    def __init__(self, on_error: str = "fail"):
        self.on_error = on_error
        self.skipped: Counter[str] = Counter()
        """What was wrong -> how often."""
        self.first = ""
        """The first message, with its place."""

    def add(self, make: Callable[[], T]) -> list[T]:
        """What ``make`` gives, in a list; an empty one for a record that is left out.

        Raises:
            FileError: the record is bad, and ``on_error`` is ``fail``.
        """
        try:
            return [make()]
        except FileError as error:
            if self.on_error == "fail":
                raise
            self.first = self.first or str(error)
            self.skipped[str(error).rpartition(": ")[2]] += 1
            return []

    def report(self) -> dict:
        """For the protocol: how many records were left out, and why."""
        if not self.skipped:
            return {}
        return {"skipped": sum(self.skipped.values()), "skipped_first": self.first}


def unique_keys(pairs: Sequence[tuple[str, object]]) -> dict:
    """A JSON object without repeated keys.

    Raises:
        ValueError: a key is there twice; json alone keeps the last one silently.
    """
    found: dict = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"{key!r} is there twice")
        found[key] = value
    return found


def decode(text: str, path: Path, line: int | None = None) -> object:
    """One JSON value.

    Raises:
        FileError: with file and line.
    """
    try:
        return json.loads(text, object_pairs_hook=unique_keys)
    except json.JSONDecodeError as error:
        where = line if line is not None else error.lineno
        raise FileError(f"{path}, line {where}: not JSON ({error.msg} at column {error.colno})") from None
    except (ValueError, RecursionError) as error:
        place = f", line {line}" if line is not None else ""
        raise FileError(f"{path}{place}: {error}") from None


def read(path: Path | str, collector: Collector | None = None) -> object:
    """The content of a JSON file; of a file with one JSON value a line, or of a table, the list of these values.

    A folder stands for the parts of predictions that an evaluation has written so far.

    Args:
        path: the file or folder.
        collector: what becomes of lines that are not JSON; None: the first one is an error.

    Raises:
        FileError: there is no such file, it is empty, not text or not JSON.
    """
    path = Path(path)
    if path.is_dir():
        return read_parts(path)
    if path.suffix.lower() in SHEETS:
        try:
            return read_sheet(path)
        except (ValueError, OSError) as error:
            raise FileError(f"{path}: {error}") from None
    text = read_text(path)
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if path.suffix == ".jsonl" or (len(lines) > 1 and starts_whole(lines[0][1]) and starts_whole(lines[1][1])):
        collector = collector or Collector()
        return [value for n, line in lines for value in collector.add(partial(decode, line, path, n))]
    return decode(text, path)


def read_parts(folder: Path) -> list:
    """The records of the parts ``predictions.rank0.jsonl`` .. of a run that goes on, or of ``predictions.jsonl``.

    The last line of a part may be half written; it does not count. A query that two parts answer counts once.

    Raises:
        FileError: there is neither.
    """
    parts = prediction_files(folder)
    if parts == [folder / "predictions.jsonl"]:
        return read(parts[0])
    found: list = []
    for part in parts:
        lines = part.read_bytes().split(b"\n")
        lines = lines[:-1]  # what stands behind the last line break is not whole
        found += [decode(line.decode("utf-8"), part, i) for i, line in enumerate(lines, 1) if line.strip()]
    if not found:
        raise FileError(f"{folder}: holds no predictions.jsonl and no predictions.rank*.jsonl with a line in it")
    return list({row.get("query_id"): row for row in map(dict, found)}.values())


def prediction_files(folder: Path) -> list[Path]:
    """The files that hold the predictions of a run folder."""
    whole = folder / "predictions.jsonl"
    return sorted(folder.glob("predictions.rank*.jsonl")) or ([whole] if whole.is_file() else [])


def read_text(path: Path) -> str:
    """The text of a file, without a byte order mark.

    Raises:
        FileError: there is no such file, it is empty or not text.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise FileError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise FileError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from None
    if not text.strip():
        raise FileError(f"{path}: the file is empty")
    return text


def starts_whole(line: str) -> bool:
    """True for a line that is a JSON object by itself, as in a file with one record a line."""
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def rows(content: object, path: Path | str, collector: Collector | None = None) -> list[Mapping]:
    """Content as a list of objects; a single object counts as one row.

    Args:
        content: of the file.
        path: its path, for messages.
        collector: what becomes of values that are no object; None: the first one is an error.

    Raises:
        FileError: it is something else, or empty.
    """
    content = [content] if isinstance(content, dict) else content
    if not isinstance(content, list) or not content:
        raise FileError(f"{path}: expected a list of records, got {describe(content)}")
    collector = collector or Collector()
    places = ((row, f"{path}, record {number}") for number, row in enumerate(content, 1))
    return [row for place in places for row in collector.add(partial(record, *place))]


def record(value: object, where: str) -> Mapping:
    """The value, which has to be an object.

    Raises:
        FileError: it is something else.
    """
    if not isinstance(value, dict):
        raise FileError(f"{where}: expected an object, got {describe(value)}")
    return value


def each(path: Path | str, collector: Collector | None = None) -> list[tuple[int, Mapping]]:
    """The records of a file, numbered from 1."""
    return list(enumerate(rows(read(path, collector), path, collector), 1))


def table(content: object, path: Path | str) -> Mapping:
    """Content as a non-empty object.

    Raises:
        FileError: it is something else, or empty.
    """
    if not isinstance(content, dict) or not content:
        raise FileError(f"{path}: expected an object of videos, got {describe(content)}")
    return content


def first_of(row: Mapping, keys: Sequence[str], default: object = None) -> object:
    """The value of the first of the keys that the row has and that is not null."""
    return next((row[key] for key in keys if row.get(key) is not None), default)


def need(row: object, keys: Sequence[str], where: str, kind: type = object) -> object:
    """The value of the first of the keys that the row has.

    Args:
        row: a record.
        keys: in order of preference.
        where: file and place, for messages.
        kind: what the value has to be: one of ``KIND_NAMES``, or object for anything.

    Raises:
        FileError: the row is no object, has none of the keys, or the value is of another kind.
    """
    row = record(row, where)
    for key in keys:
        if key in row:
            if not isinstance(row[key], kind):
                raise FileError(f"{where}: {key!r} must be {KIND_NAMES[kind]}, got {describe(row[key])}")
            return row[key]
    raise FileError(f"{where}: no key {' or '.join(map(repr, keys))}; it has {', '.join(map(repr, row)) or 'none'}")


def by_id(pairs: Iterable[tuple[str, object]], path: Path | str) -> dict:
    """Values by id.

    Raises:
        FileError: an id is there twice.
    """
    found: dict = {}
    for number, (key, value) in enumerate(pairs, 1):
        if key in found:
            raise FileError(f"{path}, record {number}: id {key!r} is there twice; keep one of them")
        found[key] = value
    return found


def describe(value: object) -> str:
    """A few words about a value, for messages."""
    if isinstance(value, (list, Mapping)):
        return f"an empty {type(value).__name__}" if not value else f"a {type(value).__name__} of {len(value)}"
    return f"{value!r:.60}"


def fingerprint(path: Path | str) -> dict[str, str]:
    """Name and sha256 of a file."""
    digest = hashlib.sha256()
    for part in prediction_files(Path(path)) if Path(path).is_dir() else [Path(path)]:
        digest.update(part.read_bytes())
    return {"name": Path(path).name, "sha256": digest.hexdigest()}
