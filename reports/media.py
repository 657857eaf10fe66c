"""How the videos of a page reach the browser: linked, embedded or re-encoded; and what no browser plays is said so."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from reports.escaping import relative_link

EMBEDDED_BYTES = 20 * 2**20
"""Larger videos are linked even where embedding was asked for."""
PLAYED = {"mp4": {"h264", "av1", "vp9"}, "webm": {"vp8", "vp9", "av1"}, "matroska": {"h264", "vp8", "vp9", "av1"}}
"""Codecs that browsers play, by container. Chromium plays Matroska, Firefox does not, and the page says so there."""
PIXELS = {"yuv420p", "yuvj420p"}
"""10-bit H.264, for example, is played by none."""


@dataclass(frozen=True)
class Media:
    """A video as a page has it."""

    source: str = ""
    """URL, relative to the page, or the video itself as ``data:``. Empty: there is nothing to play."""
    note: str = ""
    """What the reader should know: why there is nothing to play, or that the video was re-encoded."""
    offset_s: float = 0.0
    """What a player's clock shows at the first picture: 4.0 where the sound begins four seconds before it."""


@dataclass(frozen=True)
class Stream:
    """What a container says about its pictures."""

    kind: str
    """``mp4``, ``webm``, or another container's name."""
    codec: str
    pixels: str
    offset_s: float
    duration_s: float

    @property
    def unplayed(self) -> str:
        """Why no browser plays it; empty if browsers do."""
        if self.codec not in PLAYED.get(self.kind, ()):
            return f"browsers do not play {self.codec} in {self.kind}"
        return "" if self.pixels in PIXELS else f"browsers do not play {self.codec} with {self.pixels} pixels"


def probe(path: Path) -> Stream:
    """Read the head of a video file.

    Raises:
        ValueError: the file is missing, cannot be read, or holds no video.
    """
    import av  # where a file is opened, and not before: it brings libraries of its own

    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise ValueError(f"{path} holds no video")
            video = container.streams.video[0]
            names = set(container.format.name.split(","))
            kind = "webm" if path.suffix.lower() == ".webm" else "mp4" if "mp4" in names else min(names)
            begins_s = float((video.start_time or 0) * (video.time_base or Fraction(1)))
            first_s = (container.start_time or 0) / av.time_base
            length_s = float(video.duration * video.time_base) if video.duration else 0.0
            length_s = length_s or (container.duration or 0) / av.time_base
            codec, pixels = video.codec_context.name, video.codec_context.pix_fmt or ""
            return Stream(kind, DECODERS.get(codec, codec), pixels, max(begins_s - first_s, 0.0), length_s)
    except (av.FFmpegError, OSError) as error:
        raise ValueError(f"{path}: {error.strerror or error}") from None


DECODERS = {"libdav1d": "av1", "libaom-av1": "av1", "libvpx": "vp8", "libvpx-vp9": "vp9"}
"""Codecs by the names of their decoders, where these differ."""


def place(file: Path | None, page: Path, embed: bool = False, reencode: bool = False) -> Media:
    """What a page says about a video.

    Args:
        file: the video; None: it is not known where it is.
        page: the page that is going to be written.
        embed: put the video inside the page, up to ``EMBEDDED_BYTES``.
        reencode: write what browsers do not play once more, as H.264, into the folder ``media`` beside the page.

    Raises:
        ValueError: a video that should be re-encoded cannot be.
    """
    if file is None or not file.is_file():
        return Media(note="The video file is not here." if file is None else f"There is no {file}.")
    try:
        stream = probe(file)
    except ValueError as error:
        return Media(note=f"Nothing to play: {error}.")
    note, offset_s = "", stream.offset_s
    if stream.unplayed:
        if not reencode:
            return Media(note=f"Nothing to play: {stream.unplayed}. Make the page again with --reencode.")
        file, note, offset_s = reencoded(file, page.parent / "media"), "Re-encoded, to be played here.", 0.0
    if embed and file.stat().st_size <= EMBEDDED_BYTES:
        kind = "webm" if file.suffix.lower() == ".webm" else "mp4"
        content = base64.b64encode(file.read_bytes()).decode()
        return Media(f"data:video/{kind};base64,{content}", note, offset_s)
    if embed:
        note = f"{note} Linked, not embedded: it is larger than {EMBEDDED_BYTES // 2**20} MB.".strip()
    return Media(relative_link(file, page.parent), note, offset_s)


def reencoded(file: Path, folder: Path) -> Path:
    """The video as H.264 in an mp4, written once.

    Raises:
        ValueError: it cannot be decoded, or there is no encoder.
    """
    from reports.clips import cut

    target = folder / f"{file.stem}.mp4"
    if not target.is_file():
        cut(file, target)
    return target


def embedded_share(files: Sequence[Path]) -> int:
    """Bytes of the files that ``embed`` would put into a page."""
    return sum(size for file in files if (size := file.stat().st_size) <= EMBEDDED_BYTES)
