"""Feature shards: write them, and read their videos by id.

A folder holds ``index.json`` (the header and the list of finished shards), ``shard-000000.tar`` and beside each tar its
``shard-000000.index.json`` (where every member lies). The tars hold records, see ``datamodules.records``.
"""

import fcntl
import hashlib
import io
import itertools
import json
import os
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path

from datamodules.names import VideoNames
from datamodules.records import DAMAGE, FeatureHeader, decode_duration, decode_record, member_key, to_members
from datamodules.schema import Video

FORMAT = "whenlm-shards-1"
INDEX = "index.json"
OPEN_FILES = 32


def _write_json(path: Path, content: Mapping) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(content, indent=1 if path.name == INDEX else None) + "\n")
    os.replace(partial, path)


def read_json(path: Path) -> dict:
    """The index of a folder or of a shard; raise naming the file if it is missing or no such index."""
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing; without it the shards cannot be read (prepare.py features writes it)"
        )
    try:
        content = json.loads(path.read_text())
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']!r} is not {FORMAT!r}")
        return content
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: not an index of feature shards ({error}); extract the features again") from None


def read_folder(folder: Path) -> tuple[FeatureHeader, list[dict]]:
    """The header and the shard list of a folder's index."""
    path = folder / INDEX
    content = read_json(path)
    try:
        for shard in content["shards"]:
            if Path(shard["file"]).name != shard["file"]:
                raise ValueError(f"shard {shard['file']!r} lies outside the folder")
        return FeatureHeader(**content["header"]), content["shards"]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}; extract the features again") from None


def index_path(tar: Path) -> Path:
    """Where the index of a shard lies."""
    return tar.with_suffix(".index.json")


def _check_size(tar: Path, size: int) -> None:
    """Raise if a tar is missing or has another size than its index says."""
    remedy = f"copy it again from its source, or delete it and {index_path(tar).name} and extract its videos again"
    if not tar.is_file():
        raise FileNotFoundError(f"{tar} is missing; {remedy}")
    if tar.stat().st_size != size:
        raise ValueError(f"{tar} has {tar.stat().st_size} bytes, its index says {size}: truncated or changed; {remedy}")


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
        _check_size(self.folder / shard["file"], shard["bytes"])
        self._shards[shard["file"]] = {key: shard[key] for key in ("file", "bytes", "sha256")}
        self._shards[shard["file"]]["records"] = len(shard["records"])
        self.finished_ids.update(record["id"] for record in shard["records"])

    def _write_index(self) -> None:
        if not self.leads:
            return
        shards = [self._shards[name] for name in sorted(self._shards)]
        _write_json(self.folder / INDEX, {"format": FORMAT, "header": asdict(self.header), "shards": shards})

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
        _write_json(index_path(self.folder / self._name), shard)
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
        self._tars = [self.folder / shard["file"] for shard in shards]
        self._records: dict[str, tuple[int, dict]] = {}
        self._files: dict[int, io.FileIO] = {}
        for number, (tar, shard) in enumerate(zip(self._tars, shards, strict=True)):
            _check_size(tar, shard["bytes"])
            for record in read_json(index_path(tar))["records"]:
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
