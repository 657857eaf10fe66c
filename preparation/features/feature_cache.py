"""Features that were made while training, kept on disk up to a size."""

import hashlib
import json
import os
import tarfile
import warnings
from collections.abc import Mapping
from dataclasses import asdict
from io import BytesIO
from pathlib import Path

from datamodules.records import DAMAGE, FeatureHeader, from_members, to_members
from datamodules.schema import Video
from preparation.features.decoding import Source

STAMP = "file.json"
RECOUNT_SHARE = 0.01
"""A process counts the bytes of the others anew when it has added this share of the most there may be."""


class FeatureCache:
    """A folder with one file a video, which processes share.

    When it is full nothing more is kept, and nothing is thrown away: each epoch reads every video once, in another
    order, so those that were kept are found in every epoch, while of the latest ones most would be gone before they are
    asked for again.

    Args:
        folder: a folder for each way to make features is made in it.
        header: how these are made.
        most_bytes: that all its files may take. Several processes may exceed it by a hundredth each.
    """

    def __init__(self, folder: Path, header: FeatureHeader, most_bytes: float):
        name = hashlib.sha256(json.dumps(asdict(header), sort_keys=True).encode()).hexdigest()[:16]
        self.root, self.folder, self.header, self.most_bytes = Path(folder), Path(folder) / name, header, most_bytes
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "header.json").write_text(json.dumps(asdict(header), indent=1) + "\n")
        others = _bytes(self.root) - _bytes(self.folder)
        if others > most_bytes / 2:
            warnings.warn(
                f"{others / 1e9:.3g} of the {most_bytes / 1e9:.3g} GB of {folder} hold features that were made in "
                f"another way; to make room delete its folders but {name}",
                stacklevel=2,
            )
        self._used = self._added = None
        """Bytes of all files when they were counted, and of one's own since then."""

    def get(self, source: Source) -> Video | None:
        """The features of a file, unless there are none, they are damaged, or the file has changed since."""
        try:
            with tarfile.open(self._path(source), "r:") as archive:
                members = {member.name: archive.extractfile(member).read() for member in archive}
            if json.loads(members.pop(STAMP)) != _stamp(source):
                return None
            video = from_members({name: bytearray(content) for name, content in members.items()})
            self.header.check_video(video)
            return video
        except (OSError, tarfile.TarError, *DAMAGE):
            return None

    def put(self, source: Source, video: Video) -> None:
        """Keep the features of a file, if there is room."""
        members = {STAMP: json.dumps(_stamp(source)).encode()} | to_members(video)
        size = sum(map(len, members.values()))
        if self._used is None or self._added > RECOUNT_SHARE * self.most_bytes:
            self._used, self._added = _bytes(self.root), 0
        if self._used + self._added + size > self.most_bytes:
            return
        path = self._path(source)
        partial = path.with_suffix(f".{os.getpid()}.partial")
        try:
            _write(partial, members)
            os.replace(partial, path)
            self._added += size
        except OSError as error:
            partial.unlink(missing_ok=True)
            self.most_bytes = 0
            warnings.warn(f"nothing more is kept in {self.folder}: {error}", stacklevel=2)

    def _path(self, source: Source) -> Path:
        return self.folder / f"{hashlib.sha256(source.id.encode(errors='surrogatepass')).hexdigest()[:32]}.tar"


def _write(path: Path, members: Mapping[str, bytes]) -> None:
    with tarfile.open(path, "w:") as archive:
        for name, content in members.items():
            about = tarfile.TarInfo(name)
            about.size = len(content)
            archive.addfile(about, BytesIO(content))


def _stamp(source: Source) -> dict:
    """What the features of a file depend on, as far as the file goes."""
    status = source.path.stat()
    about = {"path": str(source.path.resolve()), "bytes": status.st_size, "changed_ns": status.st_mtime_ns}
    return about | {"start_s": source.start_s, "end_s": source.end_s}


def _bytes(folder: Path) -> int:
    """That lie in a folder and the folders in it; files may go while they are counted."""
    total = 0
    for entry in os.scandir(folder):
        try:
            total += _bytes(Path(entry)) if entry.is_dir() else entry.stat().st_size
        except FileNotFoundError:
            continue
    return total
