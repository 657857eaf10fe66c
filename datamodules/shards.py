"""Feature shards: read their videos by id, see ``datamodules.shard_index`` for their layout."""

import io
import math
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from command_line.progress import Bar
from datamodules import kept
from datamodules.name_table import NameTable
from datamodules.records import DAMAGE, decode_duration, decode_record, member_key
from datamodules.schema import Video
from datamodules.shard_index import check_checksum, check_size, read_folder
from datamodules.shard_table import open_table

OPEN_FILES = 32


class ShardReader:
    """Random access to the videos of a folder, by offset. Cheap to pickle, safe in forked workers.

    A video is asked for by its id, or by the end of it where that is enough (see ``VideoNames``).

    Args:
        folder: what ShardWriter wrote.

    Raises:
        FileNotFoundError: no index, or a missing shard.
        ValueError: a truncated or changed shard, or an id in two shards.
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self.header, self._shards = read_folder(self.folder)
        self._tars = [self.folder / shard["file"] for shard in self._shards]
        sizes = [shard["bytes"] for shard in self._shards]
        for tar, size in zip(self._tars, sizes, strict=True):
            check_size(tar, size)
        self._table = open_table(self.folder, self._tars, sizes)
        self._files: dict[int, io.FileIO] = {}

    @property
    def ids(self) -> list[str]:
        """Ids of all videos, in the order in which they lie on disk."""
        return [self._table.names.ids[place] for place in self._table.on_disk().tolist()]

    def __len__(self) -> int:
        return len(self._table)

    def __contains__(self, video_id: str) -> bool:
        return self._table.names.place(video_id) is not None

    def shard_of(self, video_id: str) -> int:
        """Number of the shard that holds a video; videos of one shard are near each other on disk."""
        return int(self._table.shard[self._find(video_id)])

    def places(self, names: NameTable) -> np.ndarray:
        """(M,) numbers of the videos that are meant by names; -1: there is none."""
        return self._table.names.places(names)

    def shards_at(self, places: np.ndarray) -> np.ndarray:
        """(M,) numbers of the shards of videos (M,), see ``places``."""
        return self._table.shard[places].astype(np.int64)

    def durations_s(self, places: np.ndarray) -> np.ndarray:
        """(M,) lengths of videos (M,), see ``places``; NaN where a record is damaged."""
        name = self._table.kept and kept.beside(self._table.kept, "lengths", self._tars)
        if name is None:
            return np.array([self._length(place) for place in places.tolist()], float)
        with kept.alone(name):
            found = kept.load(name, "lengths", {"s": np.dtype("<f8")})
            if found is None:
                with Bar(f"lengths of videos read of {self.folder}", len(self)) as bar:
                    lengths = np.empty(len(self))
                    for place in self._table.on_disk().tolist():
                        lengths[place] = self._length(place)
                        bar.advance()
                kept.keep(name, {"format": "lengths"}, {"s": lengths})
                found = {}, {"s": lengths}
        return found[1]["s"][places]

    def _length(self, place: int) -> float:
        try:
            return self._decoded(place, decode_duration)
        except ValueError:
            return math.nan

    def read(self, video_id: str) -> Video:
        """One video.

        Raises:
            ValueError: there is no such video, or its record is damaged (naming file, id and key).
        """
        return self._decoded(self._find(video_id), partial(decode_record, header=self.header))

    def duration_s(self, video_id: str) -> float:
        """Length of a video, without reading its features. Raises ValueError as ``read`` does."""
        return self._decoded(self._find(video_id), decode_duration)

    def _decoded(self, place: int, decode: Callable):
        number, record = int(self._table.shard[place]), self._table.record(place)
        try:
            return decode(record, partial(self._pread, number))
        except DAMAGE as error:
            where = f"{self._tars[number]}: record {record['id']!r} (key {member_key(record['id'])})"
            raise ValueError(f"{where} is damaged: {error}. prepare.py verify lists all of them") from None

    def check_checksums(self) -> None:
        """Read all bytes of the folder, and raise ValueError naming the first shard that is not as it was written."""
        with Bar(f"checksums of {self.folder}", len(self._tars)) as bar:
            for tar, shard in zip(self._tars, self._shards, strict=True):
                check_checksum(tar, shard["sha256"])
                bar.advance()

    def remedy(self, video_id: str) -> str:
        """What to do about a video that is not here."""
        return self._table.names.remedy(video_id, "extract its features")

    def _find(self, video_id: str) -> int:
        place = self._table.names.place(video_id)
        if place is None:
            others = f"{self.folder} has no video {video_id!r} ({len(self)} others)"
            raise ValueError(f"{others}; {self.remedy(video_id)}")
        return place

    def _pread(self, number: int, offset: int, size: int) -> bytearray:
        # pread moves no shared file position, so a descriptor inherited through fork is safe to use.
        if number not in self._files:
            if len(self._files) >= OPEN_FILES:
                self._files.pop(next(iter(self._files))).close()
            self._files[number] = open(self._tars[number], "rb", buffering=0)  # noqa: SIM115
        content = bytearray(size)  # arrays that lie in it can be written to
        found = os.preadv(self._files[number].fileno(), [content], offset)
        if found != size:
            raise ValueError(f"{size} bytes at {offset} expected, {found} found")
        return content

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_files": {}}
