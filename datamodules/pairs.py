"""Queries with what gives their videos: as many as the annotations have, each line read when it is asked for."""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import numpy as np

from datamodules.leakage import About
from datamodules.line_index import LineIndex, open_lines
from datamodules.schema import TASKS, Query
from datamodules.shards import ShardReader
from datamodules.video_reader import VideoReader

AT_ONCE = 1 << 16
"""Numbers that are Python objects at a time."""
Pair = tuple[VideoReader, Query]
"""A query and what gives its video."""


@dataclass(frozen=True)
class Lines:
    """Some queries of one annotation file."""

    reader: VideoReader | None
    """None: nobody asks for the videos."""
    index: LineIndex
    places: np.ndarray | range
    """(N,) of the queries in the index."""

    def __len__(self) -> int:
        return len(self.places)

    @property
    def rows(self) -> np.ndarray:
        """(N,) of ``line_index.ROW``."""
        return self.index.rows if isinstance(self.places, range) else self.index.rows[self.places]

    def where(self, keep: np.ndarray) -> "Lines":
        """Those of ``keep`` (N,) bool."""
        return Lines(self.reader, self.index, np.asarray(self.places)[keep])


class Pairs(Sequence[Pair]):
    """The queries of one or several annotation files, in their order.

    Args:
        parts: of each file.
    """

    def __init__(self, parts: Sequence[Lines]):
        self.parts = [part for part in parts if len(part)]
        self._ends = list(accumulate(map(len, self.parts)))

    @classmethod
    def joined(cls, several: Sequence["Pairs"]) -> "Pairs":
        """All of them, one after the other."""
        return cls([part for pairs in several for part in pairs.parts])

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, place: int) -> Pair:
        place = place + len(self) if place < 0 else place
        if not 0 <= place < len(self):
            raise IndexError(f"pair {place} of {len(self)}")
        number = bisect_right(self._ends, place)
        part = self.parts[number]
        begin = self._ends[number - 1] if number else 0
        return part.reader, part.index.query(int(part.places[place - begin]))

    def __iter__(self) -> Iterator[Pair]:
        for part in self.parts:
            yield from ((part.reader, part.index.query(int(place))) for place in part.places)

    def where(self, keep: Callable[[np.ndarray], np.ndarray]) -> "Pairs":
        """Those for whose rows (N,) ``keep`` gives true (N,)."""
        return Pairs([part.where(keep(part.rows)) for part in self.parts])

    def about(self) -> Iterator[About]:
        """What queries are about, those that are alike once, without reading lines."""
        for part in self.parts:
            index, rows = part.index, part.rows
            kinds = len(TASKS) * max(len(index.sources), 1)
            codes = rows["video"] * np.int64(kinds) + rows["task"] * np.int64(len(index.sources)) + rows["source"]
            codes.sort()
            starts = np.flatnonzero(np.diff(codes, prepend=-1))
            counts = np.diff(starts, append=len(codes))
            for begin in range(0, len(starts), AT_ONCE):
                some = slice(begin, begin + AT_ONCE)
                for code, count in zip(codes[starts[some]].tolist(), counts[some].tolist(), strict=True):
                    video, kind = divmod(code, kinds)
                    task, source = divmod(kind, len(index.sources))
                    yield About(index.videos[video], TASKS[task], index.sources[source], count)

    def places(self) -> Iterator[tuple[VideoReader, str]]:
        """What gives the video of each query, and its name, without reading lines."""
        for part in self.parts:
            yield from ((part.reader, part.index.videos[video]) for video in part.rows["video"].tolist())

    def videos(self) -> np.ndarray:
        """(N,) int64, alike for queries about one video of one file."""
        begins = accumulate((len(part.index.videos) for part in self.parts), initial=0)
        codes = [part.rows["video"] + np.int64(begin) for part, begin in zip(self.parts, begins)]  # noqa: B905
        return np.concatenate(codes) if codes else np.empty(0, np.int64)

    def shards(self) -> np.ndarray:
        """(N,) int64, alike for queries whose videos lie in one shard, for an order that stays near a few places."""
        found, begin = [], 0
        for part in self.parts:
            used, video = np.unique(part.rows["video"], return_inverse=True)
            shards = _shards(part, used)
            found.append((shards - shards.min() + begin)[video])
            begin += int(np.ptp(shards)) + 1
        return np.concatenate(found) if found else np.empty(0, np.int64)

    def part_of(self, place: int) -> int:
        """Number of the file, among ``parts``, that a query is of."""
        return bisect_right(self._ends, place)


def _shards(part: Lines, videos: np.ndarray) -> np.ndarray:
    """(M,) int64 numbers of the shards of videos (M,) of a file."""
    names, reader = part.index.videos, part.reader
    if isinstance(reader, ShardReader):
        return reader.shards_at(reader.places(names)[videos])
    return np.array([reader.shard_of(names[video]) for video in videos.tolist()], np.int64)


class Queries(Sequence[Query]):
    """The queries of pairs, without what gives their videos."""

    def __init__(self, pairs: Pairs):
        self.pairs = pairs

    @classmethod
    def of_file(cls, path: Path) -> "Queries":
        """Those of an annotation file. Raises ValueError and OSError as ``line_index.open_lines`` does."""
        return cls.of_index(open_lines(path))

    @classmethod
    def of_index(cls, index: LineIndex) -> "Queries":
        """All of an index."""
        return cls(Pairs([Lines(None, index, range(len(index)))]))

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, place: int) -> Query:
        return self.pairs[place][1]

    def about(self) -> Iterator[About]:
        """What they are about, those that are alike once, without reading lines."""
        return self.pairs.about()


class ByVideo:
    """The queries of an annotation file by the video that they are about; each is read when it is asked for.

    Args:
        path: of the file.

    Raises:
        ValueError, OSError: as ``line_index.open_lines`` does.
    """

    def __init__(self, path: Path):
        self._index = open_lines(path)
        self.all = Queries.of_index(self._index)
        videos = self._index.rows["video"]
        self._order = videos.argsort(kind="stable").astype(np.uint32)
        self._starts = np.searchsorted(videos[self._order], np.arange(len(self._index.videos) + 1))

    def of(self, video: str) -> Iterator[Query]:
        """Those about one video, in the order of the file."""
        if (code := self._index.videos.find(video)) is not None:
            for place in self._order[self._starts[code] : self._starts[code + 1]].tolist():
                yield self._index.query(place)
