"""Videos whose every picture shows its own number, in any container and codec that PyAV writes."""

import os
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

BITS, WIDTH, HEIGHT = 10, 160, 48
"""A picture is a row of squares, the bits of its number from the least one on: white is 1."""
X264 = {"preset": "veryfast"}
VPX = {"deadline": "realtime", "cpu-used": "8"}


def picture(number: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """The picture of a number."""
    bits = (number >> np.arange(width) * BITS // width & 1).astype(np.uint8)
    return np.broadcast_to((40 + 175 * bits)[None, :, None], (height, width, 3)).copy()


def read(pixels: np.ndarray) -> int:
    """The number of a picture, of which only the middle of each square counts."""
    middles = ((np.arange(BITS) + 0.5) * pixels.shape[1] / BITS).astype(int)
    return int(sum(int(lit) << bit for bit, lit in enumerate(pixels[pixels.shape[0] // 2, middles].mean(-1) > 127)))


def render(
    path: Path,
    codec: str = "libx264",
    rate: str = "25",
    times_s: Sequence[Fraction] | int = 75,
    options: dict | None = None,
    muxer: dict | None = None,
    pixels: str = "yuv420p",
    size: tuple[int, int] = (WIDTH, HEIGHT),
    sound_s: float = 0.0,
    **settings,
) -> dict[int, float]:
    """Write a video.

    Args:
        path: its ending names the container.
        codec: encoder.
        rate: pictures a second.
        times_s: of the pictures, or how many there are at that rate.
        options: of the encoder.
        muxer: options of the container; ``format`` names it.
        pixels: their format.
        size: width and height.
        sound_s: seconds of silence from 0 on.
        settings: attributes of the encoder's context.

    Returns:
        number -> seconds from the first picture.
    """
    fps, muxer = Fraction(rate), dict(muxer or {})
    unit = 1 / fps if isinstance(times_s, int) else Fraction(1, 90000)
    ticks = range(times_s) if isinstance(times_s, int) else [round(Fraction(time_s) / unit) for time_s in times_s]
    with av.open(str(path), "w", format=muxer.pop("format", None), options=muxer) as container:
        stream = container.add_stream(codec, rate=fps, options=options or {})
        stream.width, stream.height, stream.pix_fmt = *size, pixels
        stream.codec_context.time_base = unit
        for name, value in ({"gop_size": 25, "thread_count": 1} | settings).items():
            setattr(stream.codec_context, name, value)
        sound = container.add_stream("aac", rate=48000, layout="mono") if sound_s else None
        for number, pts in enumerate(ticks):
            frame = av.VideoFrame.from_ndarray(picture(number, *size), format="rgb24")
            frame.pts, frame.time_base = pts, unit
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        for at in range(0, int(48000 * sound_s), 1024):
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            silence.sample_rate, silence.pts, silence.time_base = 48000, at, Fraction(1, 48000)
            container.mux(sound.encode(silence))
        if sound:
            container.mux(sound.encode())
    if codec == "libsvtav1" and hasattr(os, "sched_setscheduler"):
        # SVT-AV1 gives the process of a root user real-time priority, and no other process its turn from then on.
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    return {number: float((pts - ticks[0]) * unit) for number, pts in enumerate(ticks)}


def copy(source: Path, path: Path, first: int = 0, **muxer: str) -> None:
    """Copy the packets of a video into another file, from packet ``first`` on, without encoding anything anew."""
    with av.open(str(source)) as container, av.open(str(path), "w", options=muxer) as new:
        stream = new.add_stream_from_template(container.streams.video[0])
        packets = [packet for packet in container.demux(video=0) if packet.size]
        for packet in packets[first:]:
            packet.stream = stream
            new.mux(packet)
