"""Where each query of an annotation file lies, so that a line is read when it is needed and none is held in memory.

An index has a row a query: offset, bytes and number of its line, and what is asked of all queries at once (video, task,
dataset, length, whether it teaches). It takes 34 bytes a line and is mapped, so that processes share its pages. The
lines themselves stay in the file that people edit: a copy in Arrow would take ten times as much, have to be made anew
with every change, and squeeze optional, nested fields into columns.

Every line is checked once. The index of a large file is kept under the SHA-256 of the file's content; where it is
found, all lines have passed. Each is checked again, by itself, when it is read.
"""

import hashlib
import json
import os
import re
from array import array
from collections.abc import Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from command_line.paths import cache_folder
from command_line.progress import Bar
from datamodules.query_files import query_from_dict
from datamodules.schema import TASKS, Query
from datamodules.skips import Skips
from datamodules.strict_json import decode, read_object

FORMAT = "whenlm-lines-1"
"""Of a kept index, and of what its lines were held against: a new rule for queries needs a new number."""
ROW = np.dtype(
    [("offset", "<i8"), ("size", "<u4"), ("number", "<u4"), ("video", "<u4"), ("task", "u1"), ("teaches", "?"),
     ("source", "<u4"), ("duration_s", "<f8")]
)  # fmt: skip
"""A query. ``video`` and ``source`` are places in lists of names; ``duration_s`` is NaN where the line says none."""
KEPT_FROM = 1 << 22
"""Bytes of a file whose index is kept; a smaller one is checked sooner than hashed and looked up."""
CACHE = cache_folder() / "lines"
BOM = b"\xef\xbb\xbf"
STEP = 1000
"""Lines between two looks at the progress bar."""
BAD = "line that is no query"


@dataclass(frozen=True)
class LineIndex:
    """The queries of an annotation file; any of them is read by its place."""

    path: Path
    rows: np.ndarray
    """(N,) of ``ROW``."""
    videos: Sequence[str]
    """Names; a row's ``video`` is a place in them."""
    sources: Sequence[str]
    bytes: int
    """Of the file, when it was indexed."""
    kept: Path | None = None
    """The file of ``rows``, where it is mapped."""

    def __len__(self) -> int:
        return len(self.rows)

    def query(self, place: int) -> Query:
        """Read one line.

        Raises:
            ValueError: naming file and line; the file changed since it was opened.
        """
        row = self.rows[place]
        where = f"{self.path}, line {row['number']}"
        try:
            return query_from_dict(decode(os.pread(self._file, int(row["size"]), int(row["offset"])).decode()))
        except ValueError as error:
            raise ValueError(f"{where}: {error}; the file changed while it was in use") from None

    @cached_property
    def _file(self) -> int:
        """A descriptor; ``pread`` moves no shared position, so that one inherited through fork is safe to use."""
        file = os.open(self.path, os.O_RDONLY)
        if os.fstat(file).st_size != self.bytes:
            os.close(file)
            raise ValueError(f"{self.path} has another size than when it was opened; start again")
        return file

    def __getstate__(self) -> dict:
        state = {key: value for key, value in self.__dict__.items() if key != "_file"}
        return state | ({"rows": None} if self.kept else {})

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        if self.kept:
            self.__dict__["rows"] = np.load(self.kept, mmap_mode="r", allow_pickle=False)

    def __del__(self) -> None:
        if file := self.__dict__.pop("_file", None):
            os.close(file)


def open_lines(path: Path, skips: Skips | None = None, cache: Path | None = None) -> LineIndex:
    """The index of an annotation file, whose lines have all been checked: now, or once before.

    Args:
        path: of the file.
        skips: what is done with a line that is no query; None: it is an error.
        cache: folder of kept indices; None: ``CACHE``. One that cannot be written to keeps nothing.

    Raises:
        ValueError: as ``query_files.read_queries`` does.
        OSError: the file is not there, or cannot be read.
    """
    path, cache = Path(path), CACHE if cache is None else cache
    if path.stat().st_size < KEPT_FROM:
        return check_lines(path, skips)[0]
    name = cache / file_fingerprint(path)
    kept = load(name, path)
    if kept and (skips is not None or not kept[1]):
        for number, what in kept[1]:
            skips.add(f"{path}, line {number}", BAD, what)
        return kept[0]
    index, bad = check_lines(path, skips)
    keep(name, index, bad)
    kept = load(name, path)
    return kept[0] if kept else index  # mapped, where it could be kept


def file_fingerprint(path: Path) -> str:
    """SHA-256 of a file's content, which is read piece by piece."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def spans(path: Path) -> Iterator[tuple[int, bytes]]:
    """Offset and bytes of every line, empty ones too; lines end as Python's text files know it."""
    with open(path, "rb") as file:
        offset = len(BOM) if file.read(len(BOM)) == BOM else 0
        file.seek(offset)
        for line in file:
            for part in re.split(rb"(?<=\r)(?!\n)(?=.)", line, flags=re.DOTALL) if b"\r" in line[:-2] else (line,):
                yield offset, part
                offset += len(part)


def check_lines(path: Path, skips: Skips | None = None) -> tuple[LineIndex, list[tuple[int, str]]]:
    """Read and check every line of an annotation file, keeping none.

    Returns:
        the index, and the numbers of lines that are no queries, with what is wrong with them.

    Raises:
        ValueError, OSError: as ``open_lines`` does.
    """
    size, columns = os.stat(path).st_size, [array(code) for code in "qIIIBBId"]
    ids, bad = array("q"), []
    videos: dict[str, int] = {}
    sources: dict[str, int] = {}
    told = size >= KEPT_FROM and os.environ.get("LOCAL_RANK", "0") == "0"
    with Bar(f"bytes checked of {path}", size) if told else nullcontext() as bar:
        for number, (offset, line) in enumerate(spans(path), 1):
            if bar and number % STEP == 0:
                bar.advance(offset - bar.done)
            try:
                text = line.decode()
            except UnicodeDecodeError as error:
                where = f"{error.reason} at byte {offset + error.start}"
                raise ValueError(f"{path}: not UTF-8 text ({where})") from None
            if not text.strip():
                continue
            try:
                query = query_from_dict(decode(text))
            except ValueError as error:
                refuse(skips, path, number, str(error), bad)
                continue
            row = (offset, len(line), number, videos.setdefault(query.video, len(videos)), TASKS.index(query.task),
                   query.teaches, sources.setdefault(query.source, len(sources)),
                   float("nan") if query.duration_s is None else query.duration_s)  # fmt: skip
            for column, value in zip(columns, row, strict=True):
                column.append(value)
            ids.append(hash(query.id))
    rows = np.empty(len(ids), ROW)
    for name, column in zip(ROW.names, columns, strict=True):
        rows[name] = column
    index = LineIndex(Path(path), rows, list(videos), list(sources), size)
    once = without_repeats(index, np.frombuffer(ids, np.int64) if ids else np.empty(0, np.int64), skips, bad)
    return LineIndex(index.path, once, index.videos, index.sources, size), bad


def refuse(skips: Skips | None, path: Path, number: int, what: str, bad: list[tuple[int, str]]) -> None:
    """Raise ValueError, or count a line that is no query."""
    if skips is None:
        raise ValueError(f"{path}, line {number}: {what}")
    skips.add(f"{path}, line {number}", BAD, what)
    bad.append((number, what))


def without_repeats(index: LineIndex, hashes: np.ndarray, skips: Skips | None, bad: list) -> np.ndarray:
    """The rows (M,) of an index without those whose id an earlier line has.

    Args:
        index: of the file.
        hashes: (N,) of the ids; ids whose hashes are alike are read and compared.
        skips: what is done with the others.
        bad: they are added to it.
    """
    _, inverse, counts = np.unique(hashes, return_inverse=True, return_counts=True)
    seen: dict[str, int] = {}
    repeats = []
    for place in np.flatnonzero(counts[inverse] > 1).tolist():
        number, name = int(index.rows["number"][place]), index.query(place).id
        if name in seen:
            refuse(skips, index.path, number, f"id {name!r} was used in line {seen[name]} already", bad)
            repeats.append(place)
        else:
            seen[name] = number
    return np.delete(index.rows, repeats)


def keep(name: Path, index: LineIndex, bad: list[tuple[int, str]]) -> None:
    """Write an index beside others; where that cannot be, nothing is kept. What says that it is whole comes last."""
    about = {"format": FORMAT, "lines": len(index), "bytes": index.bytes, "bad": bad}
    about |= {"tasks": list(TASKS), "videos": list(index.videos), "sources": list(index.sources)}
    mark = f".{os.getpid()}.partial"
    rows, words = name.with_suffix(f".npy{mark}"), name.with_suffix(f".json{mark}")
    try:
        name.parent.mkdir(parents=True, exist_ok=True)
        with open(rows, "wb") as file:
            np.save(file, index.rows, allow_pickle=False)
        words.write_text(json.dumps(about), encoding="utf-8")
        os.replace(rows, name.with_suffix(".npy"))
        os.replace(words, name.with_suffix(".json"))
    except OSError:
        for partial in (rows, words):
            with suppress(OSError):
                partial.unlink()


def load(name: Path, path: Path) -> tuple[LineIndex, list[tuple[int, str]]] | None:
    """A kept index and the lines that are no queries; None where there is none that is whole and of this format."""
    try:
        about = read_object(name.with_suffix(".json"))
        if about["format"] != FORMAT or about["tasks"] != list(TASKS):
            return None
        rows = np.load(name.with_suffix(".npy"), mmap_mode="r", allow_pickle=False)
        if rows.dtype != ROW or rows.shape != (about["lines"],):
            return None
        index = LineIndex(path, rows, about["videos"], about["sources"], about["bytes"], name.with_suffix(".npy"))
        return index, [(int(number), what) for number, what in about["bad"]]
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        return None
