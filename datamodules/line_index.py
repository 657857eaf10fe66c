"""Where each query of an annotation file lies, so that a line is read when it is needed and none is held in memory.

An index has a row a query: offset, bytes and number of its line, and what is asked of all queries at once (video, task,
dataset, length, whether it teaches). It takes 34 bytes a line and a few dozen a video, and is mapped, so that processes
share its pages. The lines themselves stay in the file that people edit: a copy in Arrow would take ten times as much,
have to be made anew with every change, and squeeze optional, nested fields into columns.

Every line is checked once. The index of a large file is kept under the SHA-256 of the file's content; where it is
found, all lines have passed. Each is checked again, by itself, when it is read.
"""

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from datamodules import kept
from datamodules.line_check import ROW, Checked, check_pieces
from datamodules.name_table import DTYPES, NameTable
from datamodules.query_files import query_from_dict
from datamodules.schema import TASKS, Query
from datamodules.skips import Skips
from datamodules.strict_json import decode

FORMAT = f"whenlm-lines-2 {' '.join(TASKS)}"
"""Of a kept index, and of what its lines were held against: a new rule for queries needs a new number."""
ARRAYS = {"rows": ROW} | DTYPES
BAD = "line that is no query"


@dataclass(frozen=True)
class LineIndex:
    """The queries of an annotation file; any of them is read by its place."""

    path: Path
    rows: np.ndarray
    """(N,) of ``ROW``."""
    videos: NameTable
    """A row's ``video`` is a place in it."""
    sources: list[str]
    bytes: int
    """Of the file, when it was indexed."""
    kept: Path | None = None
    """Where ``rows`` and ``videos`` are, if they are mapped."""

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
        return state | ({"rows": None, "videos": None} if self.kept else {})

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        if self.kept:
            if (found := load(self.kept, self.path)) is None:
                raise ValueError(f"{self.kept} is not there any more, or was changed; start again")
            self.__dict__.update(rows=found[0].rows, videos=found[0].videos)

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
    path, cache = Path(path), kept.CACHE if cache is None else cache
    if path.stat().st_size < kept.KEPT_FROM:
        return check_lines(path, skips)[0]
    name = cache / fingerprint(path, cache)
    with kept.alone(name):
        found = load(name, path)
        if not found or (found[1] and skips is None):  # whose error is told by who checks
            index, bad = check_lines(path, skips)
            about = {"format": FORMAT, "bytes": index.bytes, "bad": bad, "sources": index.sources}
            kept.keep(name, about, {"rows": index.rows} | index.videos.arrays)
            again = load(name, path)
            return again[0] if again else index  # mapped, where it could be kept
    for number, what in found[1]:
        skips.add(f"{path}, line {number}", BAD, what)
    return found[0]


def fingerprint(path: Path, cache: Path | None = None) -> str:
    """SHA-256 of a file's content; a large one is read again only where it was touched."""
    return kept.remembered("sha256", [path], lambda: kept.file_fingerprint(path), cache)


def load(name: Path, path: Path) -> tuple[LineIndex, list[tuple[int, str]]] | None:
    """A kept index and the lines that are no queries; None where there is none that is whole and of this format."""
    try:
        about, arrays = kept.load(name, FORMAT, ARRAYS)
        videos = NameTable.from_arrays(arrays)
        index = LineIndex(path, arrays["rows"], videos, about["sources"], about["bytes"], name)
        return index, [(int(number), what) for number, what in about["bad"]]
    except (KeyError, TypeError, ValueError):
        return None


def check_lines(path: Path, skips: Skips | None = None) -> tuple[LineIndex, list[tuple[int, str]]]:
    """Read and check every line of an annotation file, keeping none.

    Returns:
        the index, and the numbers of lines that are no queries, with what is wrong with them.

    Raises:
        ValueError, OSError: as ``open_lines`` does.
    """
    path, size = Path(path), os.stat(path).st_size
    found: list[Checked] = []
    bad: list[tuple[int, str]] = []
    for one in check_pieces(path):
        for number, what in one.bad:
            refuse(skips, path, number, what, bad)
        if one.broken:
            raise ValueError(f"{path}: not UTF-8 text ({one.broken})")
        found.append(one)
    videos, of_video = NameTable.merged([one.videos for one in found])
    sources, of_source = NameTable.merged([one.sources for one in found])
    for one, video, source in zip(found, of_video, of_source, strict=True):
        one.rows["video"], one.rows["source"] = video[one.rows["video"]], source[one.rows["source"]]
    rows = np.concatenate([one.rows for one in found])
    ids = np.concatenate([one.ids for one in found])
    index = LineIndex(path, rows, videos, list(sources), size)
    once = without_repeats(index, ids, skips, bad)
    return LineIndex(path, once, videos, index.sources, size), bad


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
    order = hashes.argsort(kind="stable")
    same = np.flatnonzero(np.diff(hashes[order]) == 0)
    alike = np.unique(order[np.concatenate([same, same + 1])]) if len(same) else same
    seen: dict[str, int] = {}
    repeats = []
    for place in alike.tolist():
        number, name = int(index.rows["number"][place]), index.query(place).id
        if name in seen:
            refuse(skips, index.path, number, f"id {name!r} was used in line {seen[name]} already", bad)
            repeats.append(place)
        else:
            seen[name] = number
    return np.delete(index.rows, repeats) if repeats else index.rows
