"""Writing feature shards, see ``datamodules.shard_index`` for their layout."""

import fcntl
import hashlib
import io
import itertools
import os
import tarfile
from dataclasses import asdict
from pathlib import Path

from datamodules.records import FeatureHeader, member_key, to_members
from datamodules.schema import Video
from datamodules.shard_index import FORMAT, INDEX, check_size, index_path, read_folder, read_json, write_json


class ShardWriter:
    """Writes videos into a folder of shards; a context manager.

    A shard counts as finished when its index is in place, which happens last: whatever kills the process, a half
    written shard is written again. Leaving the context, even through an error, finishes the current shard.

    Several processes may write into one folder if one of them leads, opens it first and collects last, and each shard
    number (see ``begin``) belongs to one of them.

    Args:
        folder: new, or one that an earlier writer with the same header began; then it goes on after its last shard.
        header: how the features are made.
        max_records: videos in a shard.
        max_bytes: a shard that has grown beyond this is finished.
        leads: whether this process locks the folder and writes its index.

    Raises:
        ValueError: the folder has another header, one of its shards is damaged, or another process writes into it.
    """

    def __init__(
        self,
        folder: Path,
        header: FeatureHeader,
        max_records: int = 256,
        max_bytes: int = 2**30,
        leads: bool = True,
    ):
        self.folder, self.header, self.leads = Path(folder), header, leads
        self.max_records, self.max_bytes = max_records, max_bytes
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = self._lock_folder() if leads else None
        self._shards: dict[str, dict] = {}
        self._file, self._number = None, None
        self.finished_ids: set[str] = set()
        """Ids in finished shards."""
        self.added = 0
        """Videos of this writer."""
        if (self.folder / INDEX).is_file():
            header.check_same(read_folder(self.folder)[0], "this run", str(self.folder))
        self.collect()

    def collect(self) -> None:
        """Take up the shards that lie in the folder, whoever finished them."""
        for path in sorted(self.folder.glob("shard-*.index.json")):
            if path.name.replace(".index.json", ".tar") not in self._shards:
                self._register(read_json(path))
        self._write_index()

    def begin(self, number: int) -> None:
        """Finish the current shard; what is added next goes into the shard with this number.

        Where that one exists or grows too large, ``shard-000007_001.tar`` follows ``shard-000007.tar``. So the name of
        a shard depends on what is in it, and not on what was written before.
        """
        self.finish_shard()
        self._number = number

    def _lock_folder(self) -> io.TextIOWrapper:
        """Refuse a second writer. The lock goes away with the process."""
        lock = open(self.folder / ".lock", "w")  # noqa: SIM115  (open as long as the writer)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            raise ValueError(f"another process is writing into {self.folder}") from None
        return lock

    def _register(self, shard: dict) -> None:
        check_size(self.folder / shard["file"], shard["bytes"])
        self._shards[shard["file"]] = {key: shard[key] for key in ("file", "bytes", "sha256")}
        self._shards[shard["file"]]["records"] = len(shard["records"])
        self.finished_ids.update(record["id"] for record in shard["records"])

    def _write_index(self) -> None:
        if not self.leads:
            return
        shards = [self._shards[name] for name in sorted(self._shards)]
        write_json(self.folder / INDEX, {"format": FORMAT, "header": asdict(self.header), "shards": shards})

    def _open_shard(self) -> None:
        if self._number is None:
            names = (f"shard-{number:06d}.tar" for number in itertools.count())
        else:
            parts = itertools.chain([""], (f"_{part:03d}" for part in itertools.count(1)))
            names = (f"shard-{self._number:06d}{part}.tar" for part in parts)
        self._name = next(name for name in names if name not in self._shards)
        self._file = open(self.folder / f"{self._name}.partial", "wb")  # noqa: SIM115  (closed by finish_shard)
        self._records: dict[str, dict] = {}
        self._bytes, self._sha256 = 0, hashlib.sha256()

    def add(self, video: Video) -> None:
        """Append one video.

        Raises:
            ValueError: its id is in the folder already, or it does not fit the header.
        """
        key = member_key(video.id)
        if video.id in self.finished_ids or (self._file and video.id in self._records):
            raise ValueError(f"video {video.id!r} is in {self.folder} already; ids must be unique")
        self.header.check_video(video)
        if self._file is None:
            self._open_shard()
        blocks, offsets, position = [], {}, self._bytes
        for name, content in to_members(video).items():
            info = tarfile.TarInfo(f"{key}.{name}")
            info.size = len(content)
            head, padding = info.tobuf(tarfile.GNU_FORMAT), bytes(-len(content) % tarfile.BLOCKSIZE)
            offsets[name] = [position + len(head), len(content)]
            blocks += [head, content, padding]
            position += len(head) + len(content) + len(padding)
        self._append(b"".join(blocks))
        self._records[video.id] = {"id": video.id, "key": key, "members": offsets}
        self.added += 1
        if len(self._records) >= self.max_records or self._bytes >= self.max_bytes:
            self.finish_shard()

    def _append(self, block: bytes) -> None:
        self._file.write(block)
        self._sha256.update(block)
        self._bytes += len(block)

    def finish_shard(self) -> None:
        """Close the current shard, if there is one, and let it count."""
        if self._file is None:
            return
        partial = Path(self._file.name)
        with self._file:
            self._file.truncate(self._bytes)  # an interrupted write may have left half a record
            self._file.seek(self._bytes)
            self._append(bytes(2 * tarfile.BLOCKSIZE))  # the end of a tar
            self._file.flush()
            os.fsync(self._file.fileno())
        self._file = None
        os.replace(partial, self.folder / self._name)
        shard = {"file": self._name, "bytes": self._bytes, "sha256": self._sha256.hexdigest()}
        shard = {"format": FORMAT, **shard, "records": list(self._records.values())}
        write_json(index_path(self.folder / self._name), shard)
        self._register(shard)
        self._write_index()

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, *error) -> None:
        try:
            self.finish_shard()
        finally:
            if self._lock:
                self._lock.close()
