"""Features of one's own videos, made once and found again by content."""

import hashlib
import io
import json
import os
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np

from datamodules.kept import file_fingerprint
from datamodules.records import ARRAYS, DAMAGE, FeatureHeader
from datamodules.schema import Video

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "whenlm" / "features"
Part = tuple[float, float] | None
"""Seconds of a video that were read; None: all of it."""


class FeatureCache:
    """A folder of feature files, named by the content of the video, how features are made, and which part was read.

    Args:
        folder: made when something is kept; None: nothing is kept.
    """

    def __init__(self, folder: Path | None = CACHE):
        self.folder = folder
        self._digests: dict[tuple, str] = {}

    def get(self, file: Path, header: FeatureHeader, part: Part, make: Callable[[], Video]) -> Video:
        """The features of a video, kept ones where there are any; a kept file that is damaged is made again."""
        if self.folder is None:
            return make()
        path = self.path(file, header, part)
        try:
            return _read(path)
        except (OSError, zipfile.BadZipFile, zlib.error, *DAMAGE):
            video = make()
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
        partial.write_bytes(_content(video))
        os.replace(partial, path)
        return video

    def has(self, file: Path, header: FeatureHeader, part: Part) -> bool:
        """Whether the features of a video are kept."""
        return self.folder is not None and self.path(file, header, part).is_file()

    def path(self, file: Path, header: FeatureHeader, part: Part) -> Path:
        """Where the features of a video are kept. The name of an encoder does not matter where its digest is known."""
        made = asdict(header) | ({"encoder": ""} if header.encoder_sha256 else {})
        key = json.dumps([self._digest(file), made, part], sort_keys=True)
        return self.folder / f"{hashlib.sha256(key.encode()).hexdigest()}.npz"

    def _digest(self, file: Path) -> str:
        about = file.stat()
        key = (str(file), about.st_size, about.st_mtime_ns)
        if key not in self._digests:
            self._digests[key] = file_fingerprint(file)
        return self._digests[key]


def _content(video: Video) -> bytes:
    arrays = {name: array for name in ARRAYS if (array := getattr(video, name)) is not None}
    about = json.dumps({"id": video.id, "duration_s": float(video.duration_s), "source": video.source}).encode()
    buffer = io.BytesIO()
    np.savez(buffer, about=np.frombuffer(about, np.uint8), frame_times_s=video.frame_times_s, **arrays)
    return buffer.getvalue()


def _read(path: Path) -> Video:
    with np.load(path, allow_pickle=False) as kept:
        about = json.loads(kept["about"].tobytes())
        return Video(**about, **{name: kept[name] for name in kept.files if name != "about"})
