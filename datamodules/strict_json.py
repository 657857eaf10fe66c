"""JSON from files that anyone may have written: read strictly, and held against a schema that says what is wrong.

pydantic carries the schemas: it knows unknown and missing keys, types and bounds, and names the place of what is wrong.
For a query it takes about half as long as ``json.loads`` and a quarter of what building the ``Query`` takes.
"""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field, Strict, TypeAdapter, ValidationError

STRICT = ConfigDict(extra="forbid")
"""Of an object whose keys are all known."""
LONGEST = 30_000
"""Characters of one annotated text: many times more than people write of a video, and than a model takes."""
Words = Annotated[str, Strict(), Field(max_length=LONGEST)]
"""A text."""
Text = Annotated[str, Strict()]
"""A text of any length."""
Name = Annotated[str, Strict(), Field(min_length=1, max_length=LONGEST)]
"""A text that is not empty."""
Number = Annotated[float, Strict(), Field(allow_inf_nan=False)]
"""A finite number; neither a boolean nor a text that looks like one."""
Count = Annotated[int, Strict(), Field(ge=0)]
Flag = Annotated[bool, Strict()]

WORDS = {
    "string_type": "must be text",
    "string_unicode": "must be text that can be written as UTF-8",
    "string_too_short": "must be a non-empty string",
    "string_too_long": f"must have at most {LONGEST} characters",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "bool_type": "must be true or false",
    "list_type": "must be a list",
    "dict_type": "must be an object",
    "typed_dict_type": "must be an object",
    "none_required": "must be null",
}
"""Kind of an error -> what people are told; all others have pydantic's words."""


def decode(text: str | bytes) -> Any:
    """The content of a JSON text.

    Raises:
        ValueError: it is not JSON, is nested too deeply, or has a key twice.
    """
    try:
        return DECODER.decode(text if isinstance(text, str) else text.decode(json.detect_encoding(text)))
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}" if error.lineno > 1 else f"column {error.colno}"
        raise ValueError(f"not JSON ({error.msg} at {where})") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"not JSON: not UTF-8 text ({error.reason} at byte {error.start})") from None
    except RecursionError:
        raise ValueError("not JSON that can be read: it is nested too deeply") from None


def unique(pairs: list[tuple]) -> dict:
    """An object without repeated keys; json would keep the last one silently."""
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"key {twice!r} is there twice; remove one of them")
    return found


def read(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        ValueError: naming the file, see ``decode``.
        OSError: it is not there, or cannot be read.
    """
    try:
        return decode(Path(path).read_bytes().removeprefix(b"\xef\xbb\xbf"))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def read_object(path: Path) -> dict:
    """The object in a JSON file. Raises ValueError, also for other content, and OSError as ``read`` does."""
    content = read(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path}: the content must be an object, got {brief(content)}")
    return content


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a text file that are not empty, with their numbers.

    Raises:
        ValueError: naming the file; it is not UTF-8 text.
        OSError: it is not there, or cannot be read.
    """
    try:
        with open(path, encoding="utf-8-sig") as content:
            for number, line in enumerate(content, 1):
                if line.strip():
                    yield number, line
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from None


class Schema:
    """What a file holds.

    Args:
        kind: a ``TypedDict`` or another type, as pydantic reads it.
    """

    def __init__(self, kind: Any):
        self._adapter = TypeAdapter(kind)

    def check(self, value: Any) -> None:
        """Raise ValueError that names key and value of the first thing that is wrong; the value stays as it is."""
        try:
            self._adapter.validate_python(value)
        except ValidationError as error:
            errors = error.errors(include_url=False)
            misspelt = [one for one in errors if one["type"] == "extra_forbidden"]  # which is why another is missing
            raise ValueError(_said((misspelt or errors)[0])) from None


def _said(error: dict) -> str:
    """An error of pydantic in words for people."""
    *above, last = place = [str(part) for part in error["loc"]] or [""]
    if error["type"] == "missing":
        return f"{_of(above)}key {last!r} is missing"
    if error["type"] == "extra_forbidden":
        return f"{_of(above)}unknown key {last!r}"
    words = WORDS.get(error["type"]) or error["msg"].replace("Input should", "must", 1)
    return f"{'.'.join(place) or 'the content'} {words}, got {brief(error['input'])}"


def _of(above: list[str]) -> str:
    return f"{'.'.join(above)}: " if above else ""


DECODER = json.JSONDecoder(object_pairs_hook=unique)
"""Made once: ``json.loads`` makes one for every text."""


def brief(value: Any) -> str:
    """A value as a message shows it: in one line, and not all of a long one."""
    try:
        written = repr(value)
    except (ValueError, RecursionError):  # an int of more digits than Python writes; a structure too deep
        return f"a very large {type(value).__name__}"
    return written if len(written) <= 80 else f"{written[:77]}..."
