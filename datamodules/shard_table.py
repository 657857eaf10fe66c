"""Where every record of a folder of shards lies, in few bytes a video: made once of a large folder, and then mapped."""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from command_line.progress import Bar
from datamodules import kept
from datamodules.name_table import DTYPES, HASH, NameTable
from datamodules.names import VideoNames
from datamodules.shard_index import INDEX, index_path, read_places

FORMAT = "whenlm-places-1"
"""Of a kept table: a new rule for what an index may hold needs a new number."""
U4, I8 = np.dtype("<u4"), np.dtype("<i8")
ARRAYS = DTYPES | {"files": HASH, "nested": U4, "shard": U4, "at": I8, "size": I8}


@dataclass(eq=False)
class ShardTable:
    """The records of a folder, in the order of ``names.ids``.

    Shape suffixes: N records, K members that records of the folder have.
    """

    names: VideoNames
    members: list[str]
    """(K)."""
    shard: np.ndarray
    """(N,) number of its shard."""
    at: np.ndarray
    """(N, K) where a member begins; -1: there is none."""
    size: np.ndarray
    """(N, K) bytes of a member."""
    kept: Path | None = None
    """Where the arrays are, if they are mapped."""

    def __len__(self) -> int:
        return len(self.shard)

    def record(self, place: int) -> dict:
        """What the index says of a record: ``id``, and offset and size of the ``members``."""
        each = zip(self.members, self.at[place].tolist(), self.size[place].tolist(), strict=True)
        return {"id": self.names.ids[place], "members": {name: (at, size) for name, at, size in each if at >= 0}}

    def on_disk(self) -> np.ndarray:
        """(N,) places in the order in which the records lie on disk."""
        return np.lexsort((self.at.max(axis=1, initial=-1), self.shard))

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """What it is made of, by the names in ``ARRAYS``."""
        names = {"files": self.names.files, "nested": self.names.nested}
        return self.names.ids.arrays | names | {"shard": self.shard, "at": self.at, "size": self.size}

    def __getstate__(self) -> dict:
        return {"kept": self.kept} if self.kept else self.__dict__

    def __setstate__(self, state: dict) -> None:
        if state["kept"]:
            if (found := load(state["kept"])) is None:
                raise ValueError(f"{state['kept']} is not there any more, or was changed; start again")
            state = found.__dict__
        self.__dict__.update(state)


def open_table(folder: Path, tars: Sequence[Path], sizes: Sequence[int], cache: Path | None = None) -> ShardTable:
    """Where the records of a folder lie.

    Args:
        folder: what ShardWriter wrote.
        tars: its shards.
        sizes: their bytes.
        cache: folder of kept tables; None: ``kept.CACHE``.

    Raises:
        ValueError: an index is damaged, or an id is in it twice.
        FileNotFoundError: an index is missing.
    """
    files = [folder / INDEX, *map(index_path, tars)]
    if not all(path.is_file() for path in files) or sum(path.stat().st_size for path in files) < kept.KEPT_FROM:
        return build(folder, tars, sizes)
    name = (kept.CACHE if cache is None else cache) / kept.file_fingerprint(*files)
    with kept.alone(name):
        if (found := load(name)) is None:
            made = build(folder, tars, sizes)
            kept.keep(name, {"format": FORMAT, "members": made.members}, made.arrays)
            found = load(name) or made
    return found


def load(name: Path) -> ShardTable | None:
    """A kept table; None where there is none that is whole and of this format."""
    try:
        about, arrays = kept.load(name, FORMAT, ARRAYS)
        names = VideoNames.of_table(NameTable.from_arrays(arrays), arrays["files"], arrays["nested"])
        places = (np.asarray(arrays[key]) for key in ("shard", "at", "size"))
        return ShardTable(names, about["members"], *places, name)
    except (KeyError, TypeError, ValueError):
        return None


def build(folder: Path, tars: Sequence[Path], sizes: Sequence[int]) -> ShardTable:
    """Read the indices of all shards. Raises as ``open_table`` does."""
    ids, counts, members = [], [], {}
    entries = array("q")  # of every member: its record, its name, where it begins, its size
    with Bar(f"indices read of {folder}", len(tars)) as bar:
        for tar, size in zip(tars, sizes, strict=True):
            found = read_places(tar, size)
            for number, record in enumerate(found, len(ids)):
                for name, where in record["members"].items():
                    entries.extend((number, members.setdefault(name, len(members)), *where))
            ids += [record["id"] for record in found]
            counts.append(len(found))
            bar.advance()
    table, places = NameTable.of(ids)
    shard = np.empty(len(ids), U4)
    shard[places] = np.repeat(np.arange(len(tars)), counts)
    if (twice := table.repeated()) is not None:
        first, second = sorted(shard[twice : twice + 2].tolist())
        raise ValueError(
            f"{folder}: id {table[twice]!r} is in {tars[first].name} and in {tars[second].name}; keep one of them"
        )
    at, size = (np.full((len(ids), len(members)), -1, I8) for _ in range(2))
    record, member, begin, length = np.array(entries, I8).reshape(-1, 4).T
    at[places[record], member], size[places[record], member] = begin, length
    return ShardTable(VideoNames.of_table(table), list(members), shard, at, size)
