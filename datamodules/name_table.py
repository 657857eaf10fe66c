"""Names of as many videos as there are, in little memory, and found at once in other tables of names.

Shape suffixes: N names, M those of another table, B bytes of all of them.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from struct import unpack

import numpy as np

HASH = np.dtype("<u8")
DTYPES = {"text": np.dtype("u1"), "ends": np.dtype("<i8"), "first": HASH, "second": HASH}
"""Of the arrays of a table."""
AT_ONCE = 1 << 20
"""Names whose text is copied at once."""


@dataclass(frozen=True, eq=False)
class NameTable(Sequence[str]):
    """Different names, sorted by a hash of 128 bits: those of two names do not meet."""

    text: np.ndarray
    """(B,) their UTF-8, one behind the other."""
    ends: np.ndarray
    """(N,) where each ends."""
    first: np.ndarray
    """(N,) one half of the hash."""
    second: np.ndarray
    """(N,) the other half."""

    @classmethod
    def of(cls, names: Iterable[str]) -> tuple["NameTable", np.ndarray]:
        """Different names, and the place (N,) of each in the table."""
        written = [_written(name) for name in names]
        text = np.frombuffer(b"".join(written), np.uint8)
        first, second = np.frombuffer(b"".join(map(_hash, written)), HASH).reshape(-1, 2).T
        ends = np.cumsum(np.fromiter(map(len, written), np.int64, len(written)))
        order = np.lexsort((second, first))
        return cls(text, ends, first, second)._taken(order), np.argsort(order)

    @classmethod
    def merged(cls, tables: Sequence["NameTable"]) -> tuple["NameTable", list[np.ndarray]]:
        """All names, each once, and the places in the new table of those of each old one."""
        if not tables:
            return cls.of(())[0], []
        begins = np.cumsum([0, *(len(table.text) for table in tables)])
        ends = [table.ends + begin for table, begin in zip(tables, begins, strict=False)]
        text, first, second = (np.concatenate([getattr(table, key) for table in tables]) for key in ("text", *HALVES))
        order = np.lexsort((second, first))
        new = np.ones(len(order), bool)
        new[1:] = (np.diff(first[order]) != 0) | (np.diff(second[order]) != 0)
        places = np.empty(len(order), np.int64)
        places[order] = np.cumsum(new) - 1
        sizes = np.cumsum([len(table) for table in tables])[:-1]
        return cls(text, np.concatenate(ends), first, second)._taken(order[new]), np.split(places, sizes)

    def _taken(self, places: np.ndarray) -> "NameTable":
        """The names at these places."""
        starts = np.concatenate([[0], self.ends[:-1]]) if len(self) else self.ends
        sizes, parts = (self.ends - starts)[places], [np.empty(0, np.uint8)]
        for begin in range(0, len(places), AT_ONCE):
            size = sizes[begin : begin + AT_ONCE]
            shift = starts[places[begin : begin + AT_ONCE]] - (np.cumsum(size) - size)
            parts.append(self.text[np.repeat(shift, size) + np.arange(size.sum())])
        ends = np.cumsum(sizes, dtype=np.int64)
        return NameTable(np.concatenate(parts), ends, self.first[places], self.second[places])

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """What it is made of, by the names in ``DTYPES``."""
        return {name: getattr(self, name) for name in DTYPES}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "NameTable":
        """A table of such arrays, which stay mapped; numpy takes longer for single numbers of its class for those."""
        return cls(*(np.asarray(arrays[name]) for name in DTYPES))

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, place: int) -> str:
        start = self.ends[place - 1] if place else 0
        return self.text[start : self.ends[place]].tobytes().decode(errors="surrogatepass")

    def __iter__(self) -> Iterator[str]:
        return (self[place] for place in range(len(self)))

    def find(self, name: str) -> int | None:
        """The place of a name; None: it is not here."""
        first, second = unpack("<QQ", _hash(_written(name)))
        place = int(self.first.searchsorted(np.uint64(first)))
        while place < len(self.first) and self.first[place] == first:
            if self.second[place] == second:
                return place
            place += 1
        return None

    def places_of(self, other: "NameTable") -> np.ndarray:
        """(M,) where each name of another table is in this one; -1: ``find`` may know."""
        if not len(self):
            return np.full(len(other), -1)
        found = np.minimum(np.searchsorted(self.first, other.first), len(self) - 1)
        return np.where((self.first[found] == other.first) & (self.second[found] == other.second), found, -1)

    def repeated(self) -> int | None:
        """The place of a name that stands behind itself; None: they differ, as they should."""
        same = np.flatnonzero((np.diff(self.first) == 0) & (np.diff(self.second) == 0))
        return int(same[0]) if len(same) else None


HALVES = ("first", "second")


def first_half(name: str) -> int:
    """64 bits of the hash of a name."""
    return int.from_bytes(_hash(_written(name))[:8], "little")


def _written(name: str) -> bytes:
    return name.encode(errors="surrogatepass")


def _hash(written: bytes) -> bytes:
    return blake2b(written, digest_size=16).digest()
