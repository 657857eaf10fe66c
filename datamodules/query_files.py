"""Annotation files: one Query a line, as JSON."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path

from datamodules.record_schema import QUERY, VERSION
from datamodules.schema import Event, Part, Query, Turn
from datamodules.skips import Skips
from datamodules.strict_json import brief, decode, lines


def query_from_dict(record: Mapping) -> Query:
    """A Query from one decoded JSON object (the format of ``queries.jsonl``).

    Raises:
        ValueError: a key is unknown or missing, a value is of another type (see ``record_schema``), or one breaks the
            rules of Query, Event or Turn.
    """
    _check_version(record)
    QUERY.check(record)
    record = dict(record)
    record.pop("version", None)
    if record["task"] == "grounding" and record.get("events") == []:
        record["absent"] = True
    for key, read in LISTS.items():
        if key in record:
            record[key] = tuple(map(read, record[key]))
    if part := record.get("part"):
        record["part"] = Part(**part)
    return Query(**record)


def _check_version(record: object) -> None:
    """Raise ValueError for a line of a later version."""
    version = record.get("version", VERSION) if isinstance(record, dict) else VERSION
    if version != VERSION or isinstance(version, bool):
        raise ValueError(f"version {brief(version)} is of another WhenLM; this one reads version {VERSION}")


def _event(record: Mapping) -> Event:
    return Event(**record)


def _turn(record: Mapping) -> Turn:
    return Turn(**{**record, "events": tuple(map(_event, record.get("events", ())))})


LISTS = {"events": _event, "rejected": _event, "turns": _turn, "saliency": tuple, "options": str}
"""Fields that hold several, and what reads one of them."""


def query_to_dict(query: Query) -> dict:
    """The JSON object of a Query, without the fields that hold their default; ``query_from_dict`` is the way back."""
    record = _plain(query)
    if record.pop("absent", False):
        record["events"] = []
    return record


def _plain(value):
    if is_dataclass(value):
        filled = ((item.name, getattr(value, item.name), _default(item)) for item in fields(value))
        return {name: _plain(content) for name, content, default in filled if content != default}
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _default(item: Field):
    return item.default_factory() if item.default_factory is not MISSING else item.default


def write_queries(path: Path, queries) -> None:
    """Write an annotation file, one Query a line."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(query_to_dict(query), ensure_ascii=False) + "\n" for query in queries))


def read_queries(path: Path, skips: Skips | None = None) -> Iterator[Query]:
    """Read an annotation file.

    Args:
        path: of the file.
        skips: what is done with a line that is no query; None: it is an error.

    Raises:
        ValueError: naming file, line and key of malformed JSON, a bad record or an id seen before.
        FileNotFoundError: there is no such file.
    """
    seen: dict[str, int] = {}
    for number, line in lines(path):
        try:
            query = query_from_dict(decode(line))
            if query.id in seen:
                raise ValueError(f"id {query.id!r} was used in line {seen[query.id]} already")
        except ValueError as error:
            if skips is None:
                raise ValueError(f"{path}, line {number}: {error}") from None
            skips.add(f"{path}, line {number}", "line that is no query", str(error))
            continue
        seen[query.id] = number
        yield query
