"""Every line of an annotation file held against what a query is, by all cores at once and without keeping a query.

A file is cut into pieces of whole lines. Where there are several, processes check them side by side; what they find is
put together in the order of the file.
"""

import os
import re
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from command_line.progress import Bar
from command_line.signals import end_with_parent
from datamodules.name_table import NameTable
from datamodules.query_files import query_from_dict
from datamodules.schema import TASKS
from datamodules.strict_json import decode

ROW = np.dtype(
    [("offset", "<i8"), ("size", "<u4"), ("number", "<u4"), ("video", "<u4"), ("task", "u1"), ("teaches", "?"),
     ("source", "<u4"), ("duration_s", "<f8")]
)  # fmt: skip
"""A query: offset, bytes and number of its line; ``video`` and ``source`` are places in lists of names; ``duration_s``
is NaN where the line says none."""
PIECE = 1 << 24
"""Bytes of a file that a process checks at once."""
PROCESSES = 16
BOM = b"\xef\xbb\xbf"


@dataclass
class Checked:
    """What a piece of a file, or all of it, holds."""

    rows: np.ndarray
    """(N,) of ``ROW``."""
    ids: np.ndarray
    """(N,) int64 hashes of the ids, the same in all processes that check one file."""
    videos: NameTable
    sources: NameTable
    lines: int = 0
    """Empty ones and those that are no query too."""
    bad: list[tuple[int, str]] = field(default_factory=list)
    """Numbers of lines that are no queries, and what is wrong with them."""
    broken: str = ""
    """Why the rest of the piece is no text."""


def check_pieces(path: Path) -> Iterator[Checked]:
    """What the pieces of a file hold, in its order; line numbers count from the beginning of the file.

    Raises:
        OSError: the file is not there, or cannot be read.
    """
    size, lines = os.stat(path).st_size, 0
    cuts = pieces(path, size)
    with _processes(len(cuts)) as several:
        found = several(partial(check_piece, path), cuts)
        with Bar(f"bytes checked of {path}", size) if len(cuts) > 1 else nullcontext() as bar:
            for (begin, end), one in zip(cuts, found, strict=True):
                one.rows["number"] += lines
                one.bad = [(number + lines, what) for number, what in one.bad]
                lines += one.lines
                yield one
                if bar:
                    bar.advance(end - begin)


def pieces(path: Path, size: int) -> list[tuple[int, int]]:
    """Beginning and end of pieces of a file, each of whole lines; one where the file is small."""
    cuts = [0]
    with open(path, "rb") as file:
        while cuts[-1] + PIECE < size:
            file.seek(cuts[-1] + PIECE)
            file.readline()
            cuts.append(min(file.tell(), size))
    if cuts[-1] < size or len(cuts) == 1:
        cuts.append(size)
    return list(pairwise(cuts))


@contextmanager
def _processes(count: int) -> Iterator:
    """``map`` over processes; the built-in one where there is one piece, or a process cannot be copied."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    if min(count, cores) == 1 or sys.platform != "linux":
        yield map
        return
    fork = get_context("fork")  # copies of this process share the hash of ids
    pool = ProcessPoolExecutor(min(count, cores, PROCESSES), fork, end_with_parent)
    try:
        yield pool.map
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def check_piece(path: Path, piece: tuple[int, int]) -> Checked:
    """What a piece of a file holds; line numbers count from its beginning."""
    found, ids, bad, number, broken = [], [], [], 0, ""
    videos: dict[str, int] = {}
    sources: dict[str, int] = {}
    for number, (offset, line) in enumerate(spans(path, *piece), 1):
        try:
            if not (text := line.decode()).strip():
                continue
        except UnicodeDecodeError as error:
            broken = f"{error.reason} at byte {offset + error.start}"
            break
        try:
            query = query_from_dict(decode(text))
        except ValueError as error:
            bad.append((number, str(error)))
            continue
        duration_s = float("nan") if query.duration_s is None else query.duration_s
        found.append((offset, len(line), number, videos.setdefault(query.video, len(videos)), TASKS.index(query.task),
                      query.teaches, sources.setdefault(query.source, len(sources)), duration_s))  # fmt: skip
        ids.append(hash(query.id))
    rows, tables = np.array(found, ROW), {}
    for name, known in (("video", videos), ("source", sources)):
        tables[name], places = NameTable.of(known)
        rows[name] = places[rows[name]]
    return Checked(rows, np.array(ids, np.int64), tables["video"], tables["source"], number, bad, broken)


def spans(path: Path, begin: int, end: int) -> Iterator[tuple[int, bytes]]:
    """Offset and bytes of every line of a piece, empty ones too; lines end as Python's text files know it."""
    with open(path, "rb") as file:
        offset = begin or (len(BOM) if file.read(len(BOM)) == BOM else 0)
        file.seek(offset)
        for line in file:
            for part in re.split(rb"(?<=\r)(?!\n)(?=.)", line, flags=re.DOTALL) if b"\r" in line[:-2] else (line,):
                yield offset, part
                offset += len(part)
            if offset >= end:
                return
