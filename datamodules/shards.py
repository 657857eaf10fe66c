"""Feature shards: read their videos by id, see ``datamodules.shard_index`` for their layout."""

import io
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from command_line.progress import Bar
from datamodules.names import VideoNames
from datamodules.records import DAMAGE, decode_duration, decode_record
from datamodules.schema import Video
from datamodules.shard_index import check_checksum, check_size, read_folder, read_places

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
        self.header, shards = read_folder(self.folder)
        self._shards = shards
        self._tars = [self.folder / shard["file"] for shard in shards]
        self._records: dict[str, tuple[int, dict]] = {}
        self._files: dict[int, io.FileIO] = {}
        for number, (tar, shard) in enumerate(zip(self._tars, shards, strict=True)):
            check_size(tar, shard["bytes"])
            for record in read_places(tar, shard["bytes"]):
                if record["id"] in self._records:
                    other = self._tars[self._records[record["id"]][0]].name
                    raise ValueError(
                        f"{self.folder}: id {record['id']!r} is in {other} and in {tar.name}; keep one of them"
                    )
                self._records[record["id"]] = number, record
        self._names = VideoNames(self._records)

    @property
    def ids(self) -> list[str]:
        """Ids of all videos, in the order in which they lie on disk."""
        return list(self._records)

    def __len__(self) -> int:
        return len(self._records)

    def __contains__(self, video_id: str) -> bool:
        return self._names.find(video_id) is not None

    def shard_of(self, video_id: str) -> int:
        """Number of the shard that holds a video; videos of one shard are near each other on disk."""
        return self._find(video_id)[0]

    def read(self, video_id: str) -> Video:
        """One video.

        Raises:
            ValueError: there is no such video, or its record is damaged (naming file, id and key).
        """
        return self._decoded(video_id, partial(decode_record, header=self.header))

    def duration_s(self, video_id: str) -> float:
        """Length of a video, without reading its features. Raises ValueError as ``read`` does."""
        return self._decoded(video_id, decode_duration)

    def _decoded(self, video_id: str, decode: Callable):
        number, record = self._find(video_id)
        try:
            return decode(record, partial(self._pread, number))
        except DAMAGE as error:
            where = f"{self._tars[number]}: record {record['id']!r} (key {record['key']})"
            raise ValueError(f"{where} is damaged: {error}. prepare.py verify lists all of them") from None

    def check_checksums(self) -> None:
        """Read all bytes of the folder, and raise ValueError naming the first shard that is not as it was written."""
        with Bar(f"checksums of {self.folder}", len(self._tars)) as bar:
            for tar, shard in zip(self._tars, self._shards, strict=True):
                check_checksum(tar, shard["sha256"])
                bar.advance()

    def remedy(self, video_id: str) -> str:
        """What to do about a video that is not here."""
        return self._names.remedy(video_id, "extract its features")

    def _find(self, video_id: str) -> tuple[int, dict]:
        found = self._names.find(video_id)
        if found is None:
            others = f"{self.folder} has no video {video_id!r} ({len(self)} others)"
            raise ValueError(f"{others}; {self.remedy(video_id)}")
        return self._records[found]

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
