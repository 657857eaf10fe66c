"""When each picture of a video file is shown, by what its container says of every single one.

Seconds count from the first picture that is shown: edit lists and start offsets are taken off, sound that begins
earlier is not waited for. Nothing is counted in average rates.

Shape suffixes: N pictures.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path

import numpy as np

from preparation.features.refusal import Refused, cut_off, damaged
from preparation.features.wholeness import check_bytes

PARTIAL = ("mpegts", "mpeg")
"""Containers that cut pictures into pieces without saying where one ends: only decoding tells what is shown. So it is
with H.264 in AVI, which stores pictures in another order than they are shown in, and not when that is."""
EARLY_S = 0.05
"""To this much the time of every frame is right: a clip begins with the picture that is on the screen at its start if
that one appeared at most so much earlier."""
TOLERANCE_S = 0.5
"""The last picture may be this far from the end that the header states (or three pictures)."""
ZEROS = bytes(64)
"""What a lost block of a disk leaves; never in a picture of H.264 or HEVC, which escape the third zero of a row."""


@dataclass(frozen=True, eq=False)
class Timeline:
    """When each picture of a file is shown."""

    pts: np.ndarray
    """(N,) int64, increasing, in units of ``time_base``: the names by which a decoder gives the pictures."""
    keys: np.ndarray
    """The same of those from which decoding can begin."""
    time_base: Fraction
    """Seconds."""
    last_pts: int
    """How long the last picture is shown."""
    average_rate: Fraction | None
    """Pictures a second, as the container has it."""
    in_order: bool = False
    """Whether the decoder mixes up the times, and pictures are told by the order in which it shows them instead."""
    sound_lead_s: float = 0.0
    """Seconds by which another stream, such as sound, begins before the first picture."""

    @cached_property
    def times_s(self) -> np.ndarray:
        """(N,) seconds from the first picture."""
        unit = self.time_base
        return (self.pts - self.pts[0]) * unit.numerator / unit.denominator

    @property
    def duration_s(self) -> float:
        """Seconds from the first picture to the end of the last."""
        return float((int(self.pts[-1] - self.pts[0]) + self.last_pts) * self.time_base)

    @property
    def step_s(self) -> float:
        """Typical seconds between pictures."""
        return float(np.median(np.diff(self.times_s)))

    def at(self, pts: int | None) -> str:
        """Where a picture is, for people."""
        return "" if pts is None else f"at {float((pts - int(self.pts[0])) * self.time_base):.2f} s"

    @cached_property
    def rate(self) -> float | None:
        """Pictures a second where that is constant: none is half a picture off, or ``EARLY_S``. None: it is not."""
        for rate in (self.average_rate, (len(self.pts) - 1) / self.times_s[-1]):
            if rate and abs(self.times_s - np.arange(len(self.pts)) / float(rate)).max() <= min(0.5 / rate, EARLY_S):
                return float(rate)
        return None


@contextmanager
def open_video(path: Path) -> Iterator[tuple]:
    """A file as PyAV reads it: its container, and the stream of its video, which is decoded in this thread alone.

    Raises:
        Refused: there is no video in it, or FFmpeg gives up on it anywhere while it is open.
    """
    import av  # where a file is decoded, and not before: it brings libraries of its own

    try:
        # Only this file is read, whatever it names.
        with av.open(f"file:{path}", options={"protocol_whitelist": "file"}) as container:
            streams = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
            if not streams:
                found = (
                    "a cover picture" if container.streams.video else "sound alone" if container.streams else "nothing"
                )
                raise Refused("cannot be decoded", f"no video in it, {found}", "take it out of the list")
            best = container.streams.best("video")
            stream = best if best in streams else streams[0]
            if stream.codec_context is None:
                raise Refused("cannot be decoded", "a codec that FFmpeg does not know", "write it anew in another")
            stream.codec_context.thread_type, stream.codec_context.thread_count = "NONE", 1
            yield container, stream
    except av.error.FFmpegError as error:
        what = f"FFmpeg: {error.strerror or type(error).__name__}"
        raise Refused(
            "cannot be decoded", what, "get the file again, or write it anew with a player that shows it"
        ) from None


def read_timeline(path: Path, decoded: bool = False) -> Timeline:
    """When the pictures of a file are shown. Reads the whole file, but decodes it only where it has to.

    Args:
        path: the file.
        decoded: take the times from the decoder; otherwise those of the container, where it keeps pictures whole.

    Raises:
        Refused: the file is no video, is not whole, has no times, or has one picture.
    """
    check_bytes(path)
    with open_video(path) as (container, stream):
        unordered = container.format.name == "avi" and stream.codec_context.name in ("h264", "hevc")
        packets = _Packets(stream)
        if decoded or unordered or container.format.name in PARTIAL:
            pts = packets.decode(container)
        else:
            pts = packets.read(container)
        if not pts:
            raise Refused("cannot be decoded", "no picture in it", "get the file again")
        if len(pts) == 1:
            raise Refused("too short for a video", "1 picture", "give an image as jpg or png")
        pts = np.unique(np.array(pts, dtype=np.int64))
        last_pts = packets.last[1] or int(np.median(np.diff(pts)))
        start_s = container.start_time / 1e6 if container.start_time is not None else 0.0
        lead_s = max(float(pts[0] * stream.time_base) - start_s, 0.0) if len(container.streams) > 1 else 0.0
        keys = np.unique(np.array(packets.keys, dtype=np.int64))
        rate, in_order = stream.average_rate, packets.in_order
        timeline = Timeline(pts, keys, stream.time_base, last_pts, rate, in_order, lead_s)
        if container.format.name == "avi" and (packets.reordered or in_order) and timeline.rate is None:
            raise Refused("no times in it", "an AVI with gaps and B-frames does not say when its pictures are shown",
                          "settle it as players do: ffmpeg -i FILE NEW.mp4")  # fmt: skip
        missing_s = _stated_s(container, stream, timeline) - timeline.duration_s
        counted = container.format.name == "avi"  # a lost picture makes all after it earlier
    allowed_s = 1.5 * timeline.step_s if counted else max(TOLERANCE_S, 3 * timeline.step_s)
    if missing_s > allowed_s and not _another_is_longer(path, missing_s):
        stated_s = timeline.duration_s + missing_s
        raise cut_off(f"its header states {stated_s:.2f} s, its pictures take {timeline.duration_s:.2f} s")
    return timeline


class _Packets:
    """The pieces of a file that hold its pictures."""

    def __init__(self, stream):
        self.stream, codec = stream, stream.codec_context
        head = codec.extradata or b""
        self.escaped = codec.name in ("h264", "hevc") and head[:1] == b"\x01"
        """Whether a picture is a sequence of units in which no three zeros follow each other."""
        self.compressed = codec.codec.lossy
        self.reordered, self.in_order = False, False
        """Whether pictures are shown in another order than they are stored in, and whether their times are so, too."""
        self.keys: list[int] = []
        self.last = (-(2**63), 0)
        """Time and length of the picture that is shown last."""

    def read(self, container) -> list[int]:
        """The time of each picture that is shown, by what its packet says."""
        return [packet.pts for packet in self._whole(container) if not packet.is_discard]

    def decode(self, container) -> list[int]:
        """The time of each picture that is shown, by what the decoder gives."""
        import av

        shown, stored = [], []
        for packet in self._whole(container, flush=True):
            if packet.size and not packet.is_discard:
                stored.append(packet.pts)
            try:
                frames = packet.decode()
            except av.error.InvalidDataError:
                if shown:  # before the first picture: the file begins in the middle of a recording
                    raise damaged(f"nothing can be decoded {self.at(packet)}") from None
                continue
            for frame in frames:
                if frame.is_corrupt:
                    raise damaged(f"a picture is incomplete {self.at(frame)}")
                shown.append(self._time(frame))
        self.in_order = shown != sorted(shown)
        if not self.in_order:
            return shown
        if len(shown) != len(set(stored)):  # AVI stores no times but an order; the pictures take them as they come
            raise damaged(f"{len(stored)} pictures are stored, {len(shown)} can be shown")
        return stored

    def _whole(self, container, flush: bool = False) -> Iterator:
        """The packets of pictures.

        Raises:
            Refused: one is not whole, or none says when it is shown.
        """
        newest = None
        for packet in container.demux(self.stream):
            if not packet.size:
                if flush:
                    yield packet
                continue
            if packet.is_corrupt:
                raise damaged(f"a part is missing {self.at(packet)}, or at the end")
            content = bytes(packet)
            lost = ZEROS in content and (content.startswith(ZEROS) or self.escaped and ZEROS in content.rstrip(b"\0"))
            if lost and self.compressed:
                raise damaged(f"zeros in place of a picture {self.at(packet)}")
            pts = self._time(packet)
            self.reordered |= newest is not None and pts < newest
            newest = pts
            if packet.is_keyframe:
                self.keys.append(pts)
            self.last = max(self.last, (pts, packet.duration or 0))
            yield packet

    def _time(self, part) -> int:
        if part.pts is None:
            raise Refused("no times in it", "it does not say when its pictures are shown",
                          "settle it as players do: ffmpeg -i FILE NEW.mp4")  # fmt: skip
        return part.pts

    def at(self, part) -> str:
        """Where a packet or picture is, for people."""
        first = self.stream.start_time or 0
        return "" if part.pts is None else f"at {float((part.pts - first) * self.stream.time_base):.2f} s"


def _stated_s(container, stream, timeline: Timeline) -> float:
    """Seconds of video that the header states, as far as the container is one whose header can be held against it."""
    if container.format.name == "avi" and stream.frames and stream.average_rate:
        return float(stream.frames / stream.average_rate)  # the length that FFmpeg gives is that of the file
    if stream.duration is not None:
        return float(stream.duration * stream.time_base)
    if container.duration is None:
        return 0.0
    return container.duration / 1e6 - max(float(timeline.pts[0] * stream.time_base), 0.0)


def _another_is_longer(path: Path, missing_s: float) -> bool:
    """Whether the length that a header states is that of another stream, such as sound."""
    ends: dict[int, float] = {}
    with open_video(path) as (container, stream):
        if len(container.streams) == 1 or stream.duration is not None:
            return False
        for packet in container.demux():
            if packet.pts is not None:
                end = float((packet.pts + (packet.duration or 0)) * packet.time_base)
                ends[packet.stream.index] = max(ends.get(packet.stream.index, 0.0), end)
        return max(ends.values()) >= ends[stream.index] + missing_s - TOLERANCE_S
