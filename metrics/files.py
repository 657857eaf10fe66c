"""Files of predictions and annotations: read them strictly, say where they are wrong."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path


class FileError(ValueError):
    """A file that does not fit; the message is one line that names the file and the place."""


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
    except ValueError as error:
        place = f", line {line}" if line is not None else ""
        raise FileError(f"{path}{place}: {error}") from None


def read(path: Path | str) -> object:
    """The content of a JSON file; of a file with one JSON value a line, the list of these values.

    Raises:
        FileError: there is no such file, it is empty, not text or not JSON.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise FileError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise FileError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from None
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not lines:
        raise FileError(f"{path}: the file is empty")
    if path.suffix == ".jsonl" or (len(lines) > 1 and starts_whole(lines[0][1]) and starts_whole(lines[1][1])):
        return [decode(line, path, number) for number, line in lines]
    return decode(text, path)


def starts_whole(line: str) -> bool:
    """True for a line that is a JSON object by itself, as in a file with one record a line."""
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def rows(content: object, path: Path | str) -> list[Mapping]:
    """Content as a list of objects; a single object counts as one row.

    Raises:
        FileError: it is something else, or empty.
    """
    content = [content] if isinstance(content, Mapping) else content
    if not isinstance(content, list) or not content:
        raise FileError(f"{path}: expected a list of records, got {describe(content)}")
    for number, row in enumerate(content, 1):
        if not isinstance(row, Mapping):
            raise FileError(f"{path}, record {number}: expected an object, got {describe(row)}")
    return content


def each(path: Path | str) -> list[tuple[int, Mapping]]:
    """The records of a file, numbered from 1."""
    return list(enumerate(rows(read(path), path), 1))


def table(content: object, path: Path | str) -> Mapping:
    """Content as a non-empty object.

    Raises:
        FileError: it is something else, or empty.
    """
    if not isinstance(content, Mapping) or not content:
        raise FileError(f"{path}: expected an object of videos, got {describe(content)}")
    return content


def need(row: Mapping, keys: Sequence[str], where: str) -> object:
    """The value of the first of the keys that the row has.

    Raises:
        FileError: it has none of them.
    """
    for key in keys:
        if key in row:
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
    return f"{value!r}"[:60]


def fingerprint(path: Path | str) -> dict[str, str]:
    """Name and sha256 of a file."""
    return {"name": Path(path).name, "sha256": hashlib.sha256(Path(path).read_bytes()).hexdigest()}
