"""Some pictures of a video, exactly those that were asked for, as a player shows them.

Packets that no wanted picture needs are read past and not decoded. Nothing is sought: a seek may end beside its goal,
and what is decoded from there on is then another picture than its number says.

Shape suffixes: T pictures, H height, W width.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from preparation.features.refusal import damaged
from preparation.features.timeline import Timeline, open_video

BY_KEYFRAME, IN_SEQUENCE = "PyAV by keyframe", "PyAV in sequence"
"""The ways in which pictures are decoded: only from keyframes on that are needed, or everything from the first."""


class Mistaken(Exception):
    """A picture is not where it was expected."""


class PictureReader:
    """Decodes chosen pictures of one file.

    Args:
        path: the file.
        timeline: when its pictures are shown.
    """

    def __init__(self, path: Path, timeline: Timeline):
        self.path, self.timeline = path, timeline
        self.name = BY_KEYFRAME
        """How the pictures were decoded."""

    def read(self, pts: Sequence[int]) -> Iterator[np.ndarray]:
        """The pictures with these ``pts``, which increase: (H, W, 3) uint8, of the size of the first.

        Raises:
            Refused: the file is damaged where one of them is needed.
            Mistaken: the decoder shows no such picture.
        """
        done = 0
        if self.timeline.in_order:
            self.name = IN_SEQUENCE
            yield from self._decode(pts, careful=True)
            return
        try:
            for done, picture in enumerate(self._decode(pts, careful=False), 1):  # noqa: B007
                yield picture
        except Mistaken:
            self.name = IN_SEQUENCE
            yield from self._decode(pts[done:], careful=True)

    def _decode(self, pts: Sequence[int], careful: bool) -> Iterator[np.ndarray]:
        """``careful``: everything from the first packet on, so that it does not matter where decoding can begin."""
        with open_video(self.path) as (container, stream):
            feed, display = _Feed(stream, self.timeline, pts, careful), _Display(stream)
            for packet in container.demux(stream):
                yield from map(display, feed.take(packet))
                if not feed.left:
                    return
        raise Mistaken


class _Feed:
    """Gives a decoder the packets that the wanted pictures need, and takes those pictures from it."""

    def __init__(self, stream, timeline: Timeline, pts: Sequence[int], careful: bool):
        self.stream, self.codec, self.timeline, self.careful = stream, stream.codec_context, timeline, careful
        self.left, self.wanted = list(map(int, reversed(pts))), set(map(int, pts))
        # Pictures of H.264 that no other one refers to say so; in these containers a packet is one whole picture.
        self.skips = self.codec.name == "h264" and (self.codec.extradata or b"")[:1] == b"\x01" and not careful
        self.begin: int | None = None
        """The keyframe that decoding began at. None: nothing is decoded now."""
        self.newest = 0
        """The last keyframe that was decoded."""
        self.shown, self.count = False, 0
        """Whether a picture has come out since decoding began, and how many have in all."""

    def take(self, packet) -> Iterator:
        """The wanted frames that come out when a packet goes in."""
        import av

        if self.begin is None and not self._begins(packet):
            return
        if packet.is_keyframe and packet.pts is not None:
            self.newest = max(self.newest, packet.pts)
        if self.skips:
            self.codec.skip_frame = "DEFAULT" if packet.pts in self.wanted else "NONREF"
        try:
            frames = packet.decode()
        except av.error.InvalidDataError:
            if not self.shown and not self.careful:
                raise Mistaken from None
            if self.shown:
                raise damaged(f"nothing can be decoded {self.timeline.at(packet.pts)}") from None
            return  # the file begins in the middle of a recording
        for frame in frames:
            if self.timeline.in_order:
                frame.pts, self.count = int(self.timeline.pts[self.count]), self.count + 1
            if frame.pts is not None and frame.pts >= self.begin:  # the others need what lies before the keyframe
                yield from self._wanted(frame)
        if self.left and not self.careful and self._key() > self.newest:
            self.begin = None

    def _begins(self, packet) -> bool:
        """Whether decoding begins at a packet: at the last keyframe before the next wanted picture."""
        if self.careful:
            self.begin = self.newest = int(self.timeline.pts[0])
            return True
        if not packet.is_keyframe or packet.pts != self._key():
            return False
        self.codec.flush_buffers()
        self.begin = self.newest = packet.pts
        self.shown = False
        return True

    def _key(self) -> int | None:
        """The last keyframe before the next wanted picture."""
        number = int(np.searchsorted(self.timeline.keys, self.left[-1], side="right")) - 1
        return int(self.timeline.keys[number]) if number >= 0 else None

    def _wanted(self, frame) -> Iterator:
        if frame.is_corrupt:
            raise damaged(f"a picture is incomplete {self.timeline.at(frame.pts)}")
        begins_shown = self.begin >= self.timeline.pts[0]  # not cut away by an edit list
        if not self.shown and not self.careful and begins_shown and frame.pts != self.begin:
            raise Mistaken
        self.shown = True
        if self.left and frame.pts == self.left[-1]:
            self.left.pop()
            yield frame
        elif self.left and frame.pts > self.left[-1]:
            raise Mistaken


class _Display:
    """Shows a frame as a player does: in its sample aspect ratio, turned and mirrored as its display matrix says."""

    def __init__(self, stream):
        import av

        self.aspect = stream.sample_aspect_ratio or 1
        self.reformatter = av.video.reformatter.VideoReformatter()
        self.size: tuple[int, int] | None = None
        """Width and height of the first picture, which all get."""

    def __call__(self, frame) -> np.ndarray:
        """(H, W, 3) uint8."""
        if self.size is None:
            self.size = max(round(frame.width * self.aspect), 1), frame.height
        width, height = self.size
        picture = self.reformatter.reformat(frame, width, height, "rgb24").to_ndarray()
        matrix = frame.side_data.get("DISPLAYMATRIX")
        return picture if matrix is None else _turned(picture, np.frombuffer(matrix, np.int32))


def _turned(picture: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """A picture under a display matrix (9 numbers, row by row): x' = a x + c y, y' = b x + d y, in quarter turns."""
    a, b, _, c, d = matrix[:5]
    if abs(int(b)) > abs(int(a)):
        picture, flips = picture.swapaxes(0, 1), (b < 0, c < 0)
    else:
        flips = (d < 0, a < 0)
    for axis, flip in enumerate(flips):
        picture = np.flip(picture, axis) if flip else picture
    return np.ascontiguousarray(picture)
