"""Frames of a video or image file, each with the time at which it is shown. Everything that decodes does it here.

What a second means: ``docs/time.md``.

Shape suffixes: T frames, H height, W width.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from preparation.features.pictures import Mistaken, PictureReader
from preparation.features.refusal import Refused
from preparation.features.sampling import Sampling, clip_length_s
from preparation.features.sources import IMAGE_TYPES, Source, find_sources
from preparation.features.timeline import Timeline, read_timeline
from preparation.features.wholeness import check_bytes

__all__ = ["DECODE_ERRORS", "Decoded", "SampledFrames", "Sampling", "Source", "decode", "find_sources", "sample_frames"]

DECODE_ERRORS = (ValueError, OSError, Image.DecompressionBombError)
"""What a bad file makes PIL and the checks here raise."""


@dataclass(frozen=True, eq=False)
class SampledFrames:
    """Frames of a clip. Times count from the begin of the clip."""

    pixels: np.ndarray
    """(T, H, W, 3) uint8, as a player shows them."""
    frame_times_s: np.ndarray
    """(T,) when each frame is shown, non-decreasing; where the file has too few pictures, one stands several times."""
    duration_s: float
    reader: str
    """How it was decoded."""


@dataclass(frozen=True, eq=False)
class Decoded:
    """One step of decoding: some pixels, or the end of a file with its times, or why it could not be read."""

    source: Source
    pixels: np.ndarray | None = None
    """(T, H, W, 3) uint8, each frame once."""
    video: dict | None = None
    """Duration, times and reader (see Video), and ``repeat`` (T,): which distinct frame each sampled frame is."""
    error: Exception | None = None


def sample_frames(
    path: Path, sampling: Sampling, start_s: float | None = None, end_s: float | None = None
) -> SampledFrames:
    """Frames of a video or image file, all in memory; ``decode`` gives them piece by piece.

    Times are those at which the container has the pictures shown, counted from the first picture of the file that is
    shown, and then from ``start_s``. A picture that was on the screen before ``start_s`` has the time 0.

    Args:
        path: the file.
        sampling: which frames.
        start_s: begin of the clip in the file; None: that of the file.
        end_s: end of the clip in the file; None, or later than the end of the file: that of the file.

    Returns:
        T frames; of an image one, with a duration of 0.

    Raises:
        ValueError: the file is no video, is cut off or damaged, or the clip is not in it; one line with what to do.
        FileNotFoundError: there is no such file.
    """
    source, chunks = Source(Path(path).stem or "file", Path(path), start_s, end_s), []
    try:
        *steps, end = decode(source, sampling, chunk_frames=32)
    except (OSError, Image.DecompressionBombError) as error:
        if isinstance(error, FileNotFoundError):
            raise FileNotFoundError(f"{path}: {error}") from None
        raise ValueError(f"{path}: {first_line(error)}") from None
    except ValueError as error:
        raise ValueError(f"{path}: {first_line(error)}") from None
    chunks = [step.pixels for step in steps]
    about = end.video
    pixels = np.concatenate(chunks)[about["repeat"]]
    return SampledFrames(pixels, about["frame_times_s"], about["duration_s"], about["reader"])


def decode(source: Source, sampling: Sampling, chunk_frames: int) -> Iterator[Decoded]:
    """Decode one file in chunks of distinct frames; the last item carries the times.

    Raises one of DECODE_ERRORS for a bad file.
    """
    if source.path.suffix.lower() in IMAGE_TYPES:
        yield from _decode_image(source)
        return
    for decoded in (False, True):
        timeline, given = read_timeline(source.path, decoded), 0
        try:
            for step in _decode_video(source, sampling, chunk_frames, timeline):
                yield step
                given += 1
            return
        except Mistaken:
            if given or decoded:
                what = "its pictures are not where its container has them"
                raise Refused("not whole", what, "write it anew: ffmpeg -i FILE NEW.mp4") from None


def _decode_image(source: Source) -> Iterator[Decoded]:
    if not source.path.is_file():
        check_bytes(source.path)
    with Image.open(source.path) as image:
        yield Decoded(source, pixels=np.array(image.convert("RGB"))[None])
    about = {"duration_s": 0.0, "frame_times_s": np.zeros(1), "repeat": np.zeros(1, int), "reader": "Pillow"}
    yield Decoded(source, video=about)


def _decode_video(source: Source, sampling: Sampling, chunk_frames: int, timeline: Timeline) -> Iterator[Decoded]:
    chosen = sampling.choose(timeline, source.start_s, source.end_s)
    distinct, repeat = np.unique(chosen, return_inverse=True)
    reader, chunk = PictureReader(source.path, timeline), []
    for picture in reader.read(timeline.pts[distinct]):
        chunk.append(picture)
        if len(chunk) == chunk_frames:
            yield Decoded(source, pixels=np.stack(chunk))
            chunk = []
    if chunk:
        yield Decoded(source, pixels=np.stack(chunk))
    times_s = np.maximum(timeline.times_s[chosen] - max(source.start_s or 0.0, 0.0), 0.0)
    duration_s = clip_length_s(timeline.duration_s, source.start_s, source.end_s)
    about = {"duration_s": duration_s, "frame_times_s": times_s, "repeat": repeat, "reader": reader.name}
    yield Decoded(source, video=about | {"sound_lead_s": timeline.sound_lead_s})


def first_line(error: Exception) -> str:
    """One line of a message."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
