"""Parts of videos as files of their own: H.264 and AAC in an mp4, cut at the frame.

Between key frames a video can only be cut by encoding it again; copying would begin at the key frame before.
"""

import math
import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import av

TICK = Fraction(1, 90_000)
"""Time base of the pictures; frames keep their own times."""
SOUGHT = ("mp4", "matroska")
"""Containers that know when each picture is shown, so that seeking is right; others are read from the start."""
QUALITY = {"crf": "20", "preset": "veryfast"}


def cut(
    file: Path,
    target: Path,
    start_s: float = 0.0,
    end_s: float = math.inf,
    seen: Callable[[float], None] = lambda second: None,
) -> None:
    """Write the pictures from ``start_s`` on and before ``end_s``, and the sound that belongs to them.

    Args:
        file: the video.
        target: an mp4; it is there when it is whole.
        start_s: seconds behind the first picture, where the clip begins.
        end_s: where it ends.
        seen: called with the seconds of the clip that are done, now and then.

    Raises:
        ValueError: the video cannot be decoded, has no picture in that time, or no encoder is here.
    """
    import av  # where a file is opened, and not before: it brings libraries of its own

    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")
    try:
        with av.open(str(file)) as source, av.open(str(partial), "w", format="mp4") as sink:
            pictures = _Cutter(source, sink, start_s, end_s).run(seen)
        if not pictures:
            raise ValueError(f"{file} has no picture from {start_s:.1f} to {end_s:.1f} s")
        os.replace(partial, target)
    except av.codec.codec.UnknownCodecError as error:
        raise ValueError(f"{target.name} cannot be written: this PyAV has no encoder {error}") from None
    except (av.FFmpegError, OSError) as error:
        raise ValueError(f"{file}: {error.strerror or error}") from None
    finally:
        partial.unlink(missing_ok=True)


class _Cutter:
    """Decodes one container and encodes what lies in a time into another."""

    def __init__(self, source: "av.container.InputContainer", sink: "av.container.OutputContainer", start_s, end_s):
        if not source.streams.video:
            raise ValueError(f"{source.name} holds no video")
        self.source, self.sink, self.start_s, self.end_s = source, sink, start_s, end_s
        self.video = source.streams.video[0]
        self.video.thread_type = "AUTO"
        self.sound = source.streams.audio[0] if source.streams.audio else None
        first = next(source.decode(self.video))
        self.zero_s, shown = first.time, _upright(first)  # times count from the first picture
        self.picture = sink.add_stream("libx264", rate=self.video.average_rate or 30, options=QUALITY)
        context = self.picture.codec_context
        context.width, context.height, context.pix_fmt = shown.width, shown.height, "yuv420p"
        context.time_base = TICK
        context.sample_aspect_ratio = self.video.sample_aspect_ratio or Fraction(1)
        self.voice = sink.add_stream("aac", rate=self.sound.rate) if self.sound else None
        self.pictures = 0

    def run(self, seen: Callable[[float], None]) -> int:
        """Encode, and return the number of pictures."""
        known = any(name in self.source.format.name.split(",") for name in SOUGHT)
        begin_s = self.zero_s + self.start_s if known else 0.0
        self.source.seek(max(int(begin_s / self.video.time_base), 0), stream=self.video, backward=True)
        open_streams = {self.video, self.sound} - {None}
        for packet in self.source.demux(*open_streams):
            if not open_streams:
                break
            for frame in packet.decode() if packet.stream in open_streams else ():
                at_s = frame.time - self.zero_s
                if at_s >= self.end_s:
                    open_streams.discard(packet.stream)
                elif at_s >= self.start_s - 1e-6:
                    self._encode(frame, packet.stream, at_s - self.start_s)
                    seen(at_s - self.start_s)
        for stream in filter(None, (self.picture, self.voice) if self.pictures else ()):
            self.sink.mux(stream.encode())
        return self.pictures

    def _encode(self, frame, stream, at_s: float) -> None:
        if stream is self.sound:
            frame.pts, frame.time_base = round(at_s * self.sound.rate), Fraction(1, self.sound.rate)
            self.sink.mux(self.voice.encode(frame))
            return
        upright = _upright(frame)
        upright.pts, upright.time_base = round(at_s / TICK), TICK
        self.pictures += 1
        self.sink.mux(self.picture.encode(upright))


def _upright(frame: "av.VideoFrame") -> "av.VideoFrame":
    """A picture as players turn it, with even sides, which H.264 needs."""
    if turns := round(getattr(frame, "rotation", 0) / 90) % 4:
        frame = type(frame).from_ndarray(np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), turns)))
    return frame.reformat(width=frame.width // 2 * 2, height=frame.height // 2 * 2, format="yuv420p")


def clip_name(video: str, start_s: float, end_s: float, text: str) -> str:
    """A file name that every system takes: ``clip_0009.0-0011.9_a-blue-box.mp4``."""
    words = "".join(character if character.isalnum() else "-" for character in text.lower())
    words = "-".join(part for part in words.split("-") if part)[:60]
    plain = "".join(character if character.isalnum() or character in "-_." else "_" for character in video)
    return f"{plain[:80]}_{start_s:06.1f}-{end_s:06.1f}{f'_{words}' if words else ''}.mp4"
