"""Video and image files: find them, choose their frames, decode them.

A video reader never crosses a fork: decord hangs there.

Shape suffixes: T frames, H height, W width.
"""

import json
import math
import os
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from datamodules.records import member_key

VIDEO_TYPES = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v", ".mpg", ".mpeg", ".flv", ".wmv", ".ts")
IMAGE_TYPES = (".jpg", ".jpeg", ".png")
DECODE_ERRORS = (ValueError, RuntimeError, OSError, IndexError, Image.DecompressionBombError)
"""What a bad file makes decord (RuntimeError), PIL and the checks here raise."""


@cache
def load_decord():
    """The one place that loads decord, which happens where a file is decoded and not before.

    decord2 3.4.0 loads every library under ``site-packages/nvidia`` for the whole process, libnvblas among them. Torch,
    where it comes later, then takes its matrix products from libnvblas, which has no CPU library to pass them on to: a
    segmentation fault at the first float32 product. So torch comes first.
    """
    import torch  # noqa: F401  (before decord, see above)

    import decord  # isort: skip

    decord.logging.set_level(decord.logging.QUIET)  # what matters is raised; the rest would bury our own message
    return decord


@dataclass(frozen=True)
class Source:
    """One file to extract: the whole of it, or the seconds from ``start_s`` to ``end_s``."""

    id: str
    path: Path
    start_s: float | None = None
    end_s: float | None = None

    def __post_init__(self):
        member_key(self.id)
        for key in ("start_s", "end_s"):
            if not isinstance(getattr(self, key), (int, float, type(None))):
                raise ValueError(f"{key} must be a number of seconds, got {getattr(self, key)!r}")


@dataclass(frozen=True)
class Sampling:
    """Which frames of a video are encoded: exactly one of a number of frames and a rate."""

    frames: int | None = None
    fps: float | None = None

    @classmethod
    def parse(cls, text: str) -> "Sampling":
        """``uniform 100`` or ``1.0 fps``, the wording of FeatureHeader.sampling."""
        match text.split():
            case ["uniform", frames] if frames.isdecimal() and int(frames) > 0:
                return cls(frames=int(frames))
            case [fps, "fps"] if fps.replace(".", "", 1).isdecimal() and float(fps) > 0:
                return cls(fps=float(fps))
        raise ValueError(f"sampling must read like 'uniform 100' or '1.0 fps', got {text!r}")

    def __str__(self) -> str:
        return f"uniform {self.frames}" if self.frames else f"{self.fps} fps"

    def indices(self, total_frames: int, fps: float, start_s: float | None = None, end_s: float | None = None):
        """Frame numbers to decode.

        Args:
            total_frames: frames in the file.
            fps: average frame rate of the file.
            start_s: begin of the clip inside the file.
            end_s: end of the clip inside the file.

        Returns:
            (T,) int array, non-decreasing; short clips repeat frames.

        Raises:
            ValueError: the clip is empty or begins after the end of the file.

        Source: VTimeLLM, ``mm_utils.py`` for the uniform rule (both ends included, truncated to int).
        """
        first = 0 if start_s is None else max(int(fps * start_s), 0)
        last = total_frames - 1 if end_s is None else min(int(fps * end_s), total_frames - 1)
        if last < first or (end_s is not None and end_s <= (start_s or 0.0)):
            raise ValueError(f"the clip {start_s}..{end_s} s is empty in a file of {total_frames / fps:.2f} s")
        if self.frames:
            return np.linspace(first, last, self.frames).astype(np.int32)
        length_s = min(total_frames / fps, math.inf if end_s is None else end_s) - max(start_s or 0.0, 0.0)
        count = max(1, math.ceil(length_s * self.fps - 1e-6))
        return np.minimum(np.round(first + np.arange(count) * fps / self.fps).astype(np.int32), last)


@dataclass(frozen=True)
class Decoded:
    """One step of decoding: some pixels, or the end of a file with its times, or why it could not be read."""

    source: Source
    pixels: np.ndarray | None = None
    """(T, H, W, 3) uint8, each frame once."""
    video: dict | None = None
    """Duration and times (see Video), and ``repeat`` (T,): which distinct frame each sampled frame is."""
    error: Exception | None = None


def find_sources(videos: Path) -> tuple[list[Source], int]:
    """What to extract.

    Args:
        videos: a folder (searched with its subfolders), one video or image, a ``.jsonl`` list of
            ``{"id", "path", "start_s", "end_s"}`` (only ``path`` is needed), or a text list of ``path`` or
            ``id<TAB>path``. Paths in a list are relative to it. Without an id, it is the path below the folder (the
            list's), without the ending: ``tacos/s1`` for ``tacos/s1.mp4``; of a file elsewhere, the name alone.

    Returns:
        The sources, and how many files of a folder were left aside because they are neither video nor image.

    Raises:
        FileNotFoundError: there is no such folder, list or file.
        ValueError: a bad line (naming it), or nothing found.
    """
    videos = Path(videos)
    if not videos.exists():
        raise FileNotFoundError(f"{videos}: no such folder, list or file")
    others = 0
    if videos.is_dir():
        files = sorted(path for path in videos.rglob("*") if path.is_file())
        sources = [
            Source(_id(path, videos), path) for path in files if path.suffix.lower() in VIDEO_TYPES + IMAGE_TYPES
        ]
        others = len(files) - len(sources)
    elif videos.suffix.lower() in VIDEO_TYPES + IMAGE_TYPES:
        sources = [Source(videos.stem, videos)]
    else:
        sources = list(_read_list(videos))
    if not sources:
        raise ValueError(f"{videos}: no video or image found ({others} other files); known: {', '.join(VIDEO_TYPES)}")
    return sources, others


def _id(file: Path, folder: Path) -> str:
    below = Path(os.path.relpath(file, folder)).with_suffix("")
    return below.name if ".." in below.parts else below.as_posix()


def _read_list(path: Path) -> Iterator[Source]:
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            if path.suffix == ".jsonl":
                entry = json.loads(line)
                unknown = set(entry) - {"id", "path", "start_s", "end_s"}
                if unknown or not isinstance(entry.get("path"), str):
                    raise ValueError(f"needs a path, and id, start_s and end_s at most, got {sorted(entry)}")
            else:
                name, tab, file = line.partition("\t")
                entry = {"id": name, "path": file} if tab else {"path": line.strip()}
            file = path.parent / entry["path"]
            yield Source(entry.get("id", _id(file, path.parent)), file, entry.get("start_s"), entry.get("end_s"))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}, line {number}: {error}") from None


def _check_whole(path: Path) -> None:
    """Raise ValueError for an mp4 or mov that was cut off. Decoders read what is left as a shorter video."""
    if path.suffix.lower() not in (".mp4", ".mov", ".m4v"):
        return
    length, at = path.stat().st_size, 0
    with open(path, "rb") as file:
        while at + 8 <= length:  # one box after the other: size, name, content
            file.seek(at)
            size, name = struct.unpack(">I4s", file.read(8))
            size = int.from_bytes(file.read(8), "big") if size == 1 else size or length - at
            if name in (b"moov", b"mdat", b"moof") and at + size > length:
                raise ValueError(f"cut off: {name.decode()} ends at byte {at + size}, the file has {length}")
            at += max(size, 8)


def decode(source: Source, sampling: Sampling, chunk_frames: int) -> Iterator[Decoded]:
    """Decode one file in chunks; the last item carries the times. Raises one of DECODE_ERRORS for a bad file."""
    try:
        yield from _decode(source, sampling, chunk_frames)
    except Exception as error:
        if type(error).__name__ == "DECORDError":  # derived from Exception alone
            raise RuntimeError(str(error)) from None
        raise


def _decode(source: Source, sampling: Sampling, chunk_frames: int) -> Iterator[Decoded]:
    if not source.path.is_file():
        raise FileNotFoundError("no such file")
    if source.path.suffix.lower() in IMAGE_TYPES:
        with Image.open(source.path) as image:
            yield Decoded(source, pixels=np.array(image.convert("RGB"))[None])
        yield Decoded(source, video={"duration_s": 0.0, "frame_times_s": np.zeros(1), "repeat": np.zeros(1, int)})
        return
    _check_whole(source.path)
    reader = load_decord().VideoReader(str(source.path), num_threads=1)  # files are decoded side by side instead
    total, fps = len(reader), reader.get_avg_fps()
    if total < 2:
        raise ValueError(f"{total} frame(s): too short for a video (give an image as jpg or png)")
    if not math.isfinite(fps) or fps <= 0:
        raise ValueError(f"the file states a frame rate of {fps}")
    start_s = max(source.start_s or 0.0, 0.0)
    indices = sampling.indices(total, fps, source.start_s, source.end_s)
    distinct, repeat = np.unique(indices, return_inverse=True)
    for at in range(0, len(distinct), chunk_frames):
        yield Decoded(source, pixels=reader.get_batch(distinct[at : at + chunk_frames]).asnumpy())
    # The first frame may begin just before start_s (its number is rounded down).
    times_s = np.maximum(indices / fps - start_s, 0.0)
    duration_s = min(total / fps, math.inf if source.end_s is None else source.end_s) - start_s
    yield Decoded(source, video={"duration_s": duration_s, "frame_times_s": times_s, "repeat": repeat})


def first_line(error: Exception) -> str:
    """One line of a message, without the clock and the source line that decord puts in front."""
    lines = str(error).strip().splitlines()
    return re.sub(r"\[\d\d:\d\d:\d\d\] \S+: ", "", lines[0]) if lines else type(error).__name__
