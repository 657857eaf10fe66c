"""What all annotation readers share: strict files, and a collector that refuses or counts what cannot be used."""

import csv
import io
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from datamodules.schema import Event, Query
from datamodules.skips import OnError, Skips
from datamodules.strict_json import unique

REPAIRED = "repaired"
"""Begins what is counted of windows that were mended."""
MENDS = "; --repair true mends such windows"
LAYOUT = (TypeError, AttributeError, LookupError, ArithmeticError, RecursionError)
"""What reading an entry raises that is of another layout than its reader knows."""
KEYS = 8
"""The keys that a message names."""
MOMENT_S = 1.0
"""Length that a window without any is given: a frame, at one frame a second (MeCo)."""
FRAMES_RATIO = 4.0
"""An event that ends after this many times the length of its video was not measured in seconds."""


def read_text(path: Path) -> str:
    """The text of a file. Raises ValueError if it is not UTF-8."""
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from None


def read_json(path: Path):
    """The content of a JSON file.

    Raises:
        ValueError: not UTF-8, not JSON (naming line and column), or a key that is there twice.
    """
    text = read_text(path)
    try:
        return json.loads(text, object_pairs_hook=unique)
    except RecursionError:
        raise ValueError(f"{path}: not JSON that can be read: it is nested too deeply") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not JSON (line {error.lineno}, column {error.colno}: {error.msg})") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def read_csv(path: Path) -> tuple[list[str], list[tuple[str, dict]]]:
    """The columns of a csv, and its rows with their places. Raises ValueError if it is none."""
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""))
    try:
        return list(reader.fieldnames or []), [(f"line {reader.line_num}", row) for row in reader]
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: no csv ({error})") from None


def describe(content) -> str:
    """What was found in a file, in a few words."""
    if isinstance(content, dict):
        if not content:
            return "an empty object"
        first, more = next(iter(content.values())), max(len(content) - KEYS, 0)
        keys = ", ".join(map(repr, list(content)[:KEYS])) + (f" and {more} more" if more else "")
        return f"an object with the keys {keys}" + (f" (the first: {describe(first)})" if type(first) is dict else "")
    if isinstance(content, list):
        return f"a list of {len(content)}, the first {describe(content[0])}" if content else "an empty list"
    return repr(content)[:80]


def number(value, what: str) -> float:
    """A finite number. Raises ValueError for anything else, text and booleans included."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{what} is not a number: {value!r}")
    return float(value)


class Records:
    """The queries of one annotation file, while it is read.

    Args:
        path: the file.
        on_error: ``fail`` at the first entry that cannot be used, or ``skip`` it and count.
        layouts: what is understood, for the message about anything else.
        repair: mend windows as MeCo's code does, and count them, see ``repaired``; False: refuse them.
    """

    def __init__(self, path: Path, on_error: OnError, layouts: str, repair: bool = False):
        self.path, self.layouts, self.skips, self.repair = Path(path), layouts, Skips(on_error), repair
        self.notes: Counter[str] = Counter()
        """What became of queries that were kept, by reason."""
        self._queries: dict[str, Query] = {}
        self._events = self._overrun = self._frames = 0

    def refuse(self, content) -> ValueError:
        """The error about an unknown layout."""
        found = content if isinstance(content, str) else describe(content)
        return ValueError(f"{self.path}: unknown layout: {found}. Understood: {self.layouts}")

    def json(self):
        """The content of a JSON file. Raises ValueError for any other file, naming the layouts, or for broken JSON."""
        if self.path.suffix in (".jsonl", ".csv", ".txt"):
            raise self.refuse(f"a {self.path.suffix} file")
        return read_json(self.path)

    @contextmanager
    def entry(self, where: str) -> Iterator[None]:
        """What goes wrong inside is refused, or counted by the words before the first colon."""
        try:
            yield
        except KeyError as error:
            self.skips.add(f"{self.path}, {where}", f"no key {error}")
        except LAYOUT as error:
            self.skips.add(f"{self.path}, {where}", "entry of another layout", repr(error))
        except ValueError as error:
            reason, _, detail = str(error).replace(", got ", ": ", 1).partition(": ")
            self.skips.add(f"{self.path}, {where}", reason, detail)

    def rows(self, keys: Sequence[str]) -> list[tuple[str, dict]]:
        """The objects of a ``.jsonl``, a ``.csv`` or of a JSON list, each with its place in the file.

        Raises:
            ValueError: the first of them lacks one of the keys, or there is none; or (``fail``) a line is not JSON.
        """
        if self.path.suffix == ".csv":
            rows = read_csv(self.path)[1]
        elif self.path.suffix == ".jsonl":
            rows = self._lines()
        else:
            content = self.json()
            if not isinstance(content, list):
                raise self.refuse(content)
            rows = [(f"record {place}", row) for place, row in enumerate(content)]
        if not rows or not isinstance(rows[0][1], dict) or not set(keys) <= set(rows[0][1]):
            raise self.refuse([row for _, row in rows])
        return rows

    def _lines(self) -> list[tuple[str, dict]]:
        rows = []
        for place, line in enumerate(read_text(self.path).split("\n"), 1):
            if line.strip():
                with self.entry(f"line {place}"):
                    try:
                        rows.append((f"line {place}", json.loads(line, object_pairs_hook=unique)))
                    except json.JSONDecodeError as error:
                        raise ValueError(f"not JSON: {error.msg} at column {error.colno}") from None
                    except RecursionError:
                        raise ValueError("not JSON: nested too deeply") from None
        return rows

    def event(self, span, duration_s: float | None, caption: str = "") -> Event:
        """An event of a video that lasts ``duration_s`` (None: unknown).

        Raises:
            ValueError: no pair of numbers, end before start, or outside the video.
        """
        try:
            start_s, end_s = (number(time_s, "time") for time_s in span)
        except (TypeError, ValueError):
            raise ValueError(f"timestamps are not a pair of numbers: {span!r}") from None
        if self.repair:
            start_s, end_s, faults = repaired(start_s, end_s, duration_s)
            self.notes.update(f"{REPAIRED}: {fault}" for fault in faults)
        if end_s <= start_s:
            raise ValueError(f"end is not after the start: {start_s}..{end_s} s{MENDS}")
        self._events += 1
        if start_s < 0 or (duration_s and not inside(start_s, end_s, duration_s)):
            self._overrun += 1
            frames = bool(duration_s) and end_s > FRAMES_RATIO * duration_s
            self._frames += frames
            hint = "; frame numbers? Divide them by the frame rate" if frames else MENDS
            raise ValueError(f"event outside the video: {start_s}..{end_s} s of {duration_s} s{hint}")
        return Event(start_s, end_s, caption)

    def add(self, query: Query) -> None:
        """Keep a query. Raises ValueError for an id that was used before."""
        if query.id in self._queries:
            raise ValueError(f"query id used before: {query.id!r}")
        self._queries[query.id] = query

    def finish(self) -> tuple[list[Query], Counter[str]]:
        """The queries, how many entries were left out for each reason, and what was noted of the others.

        Raises:
            ValueError: most events lie outside their videos by so much that they must be frame numbers.
        """
        if self._frames and 2 * self._overrun > self._events:
            raise ValueError(
                f"{self.path}: {self._overrun} of {self._events} events lie outside their videos, {self._frames} of "
                f"them by more than {FRAMES_RATIO:g} times its length: these are frame numbers, not seconds. "
                "Divide them by the frame rate of each video"
            )
        return list(self._queries.values()), self.skips.counts + self.notes


def repaired(start_s: float, end_s: float, duration_s: float | None) -> tuple[float, float, list[str]]:
    """A window inside its video that begins before it ends, and what was wrong with it.

    Ends that are the wrong way round are swapped, what lies outside the video is cut off, and a window without length
    becomes one second around its place. A window that begins behind the video, or ends so far behind that it must count
    frames, stays as it is. Source: MeCo, ``meco/train/train.py``.

    Args:
        start_s: as annotated.
        end_s: as annotated.
        duration_s: of the video; None: unknown.
    """
    faults = []
    if end_s < start_s:
        start_s, end_s, faults = end_s, start_s, ["end before start, swapped"]
    last_s = math.inf if duration_s is None else duration_s
    if start_s >= last_s or end_s > FRAMES_RATIO * last_s or end_s < 0:
        return start_s, end_s, faults
    if start_s < 0 or end_s > last_s + Query.TOLERANCE_S:
        start_s, end_s = max(start_s, 0.0), min(end_s, last_s)
        faults.append("event outside the video, cut at its ends")
    if end_s <= start_s:
        centre_s = max(min(start_s, last_s - MOMENT_S / 2), MOMENT_S / 2)
        start_s, end_s = max(centre_s - MOMENT_S / 2, 0.0), min(centre_s + MOMENT_S / 2, last_s)
        faults.append(f"event without length, made {MOMENT_S:g} s long")
    return start_s, end_s, faults


def repaired_times(times: Mapping[str, float], duration_s: float | None) -> tuple[dict[str, float], list[str]]:
    """Marker -> seconds with each window ``repaired`` whose two ends are named, and what was wrong."""
    times, wrong = dict(times), []
    for start in [marker for marker in times if marker.startswith("<s")]:
        if (end := start.replace("<s", "<e")) in times:
            times[start], times[end], faults = repaired(times[start], times[end], duration_s)
            wrong += faults
    return times, wrong


def inside(start_s: float, end_s: float, duration_s: float) -> bool:
    """Whether an event begins inside its video and ends there but for the rounding of published files."""
    return start_s < duration_s and end_s <= duration_s + Query.TOLERANCE_S
