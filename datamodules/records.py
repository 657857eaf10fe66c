"""Records, the contents of a shard: one video each, as members of a tar in the WebDataset layout.

The members are ``<key>.features.npy``, ``<key>.video.json`` and, where the header says so, ``<key>.patches.npy``,
``<key>.cls_attention.npy`` and ``<key>.spatial.npy``. Nothing that is read is ever unpickled.

Shape suffixes: T frames, P patches, M S-tokens, D feature width.
"""

import io
import json
import math
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from urllib.parse import quote, unquote

import numpy as np

from datamodules.record_schema import ABOUT_VIDEO
from datamodules.schema import Video
from datamodules.strict_json import decode

ARRAYS = ("features", "patches", "cls_attention", "spatial")
MEMBERS = (*(f"{name}.npy" for name in ARRAYS), "video.json")
PLAIN = b"\x93NUMPY\x01\x00"
"""How an .npy file of the usual version begins."""
TOLERANCE_S = 1e-3
"""Frame times may pass the duration by rounding."""
DAMAGE = (ValueError, KeyError, TypeError, EOFError, OverflowError, MemoryError)
"""What decoding damaged bytes can raise."""


def member_key(video_id: str) -> str:
    """The id as a WebDataset key, which must hold neither dots nor slashes. ``member_id`` is the way back."""
    if not isinstance(video_id, str) or not video_id:
        raise ValueError(f"the id of a video must be a non-empty string, got {video_id!r}")
    return quote(video_id, safe="", errors="surrogatepass").replace(".", "%2E")


def member_id(key: str) -> str:
    """The video id behind a WebDataset key."""
    return unquote(key, errors="surrogatepass")


@dataclass(frozen=True)
class FeatureHeader:
    """How the features of a folder were made; everything in one folder was made in the same way."""

    encoder: str
    """Hub name or folder."""
    output: str
    """Which output of the encoder, for example ``image_embeds (projected, unnormalised)``."""
    preprocessing: str
    sampling: str
    """For example ``uniform 100`` or ``1.0 fps``."""
    width: int
    """D."""
    encoder_sha256: str = ""
    """Digest of the encoder's weights. Empty: unknown (features made elsewhere)."""
    patches: str = ""
    """Which layer the patch tokens come from. Empty: none stored."""
    patch_count: int = 0
    """P."""
    patch_width: int = 0
    pool: str = ""
    """The grid that the patches of a frame were averaged to, for example ``4x4``. Empty: they are the encoder's."""
    cls_attention: str = ""
    """Which attention of the class token to the patches is stored. Empty: none."""
    spatial: str = ""
    """How the S-tokens were made, for example ``4x64`` (``datamodules.spatial_compression``). Empty: none stored."""
    spatial_count: int = 0
    """M; they are as wide as the features."""
    spatial_source: str = ""
    """Which patch tokens and which attention they were made of."""

    def read_as(self, patches: bool = False, spatial: str = "") -> "FeatureHeader":
        """Of this header, what a model depends on; shards often hold more than it reads.

        Args:
            patches: whether it reads the patches of a frame.
            spatial: its S-tokens. They are the same, whether they are stored or made from patches while reading.
        """
        unread = {} if patches else {"patches": "", "patch_count": 0, "patch_width": 0}
        source = (self.spatial_source or f"{self.patches}; {self.cls_attention}") if spatial else ""
        return replace(self, cls_attention="", spatial=spatial, spatial_count=0, spatial_source=source, **unread)

    def check_same(self, other: "FeatureHeader", here: str = "here", there: str = "there") -> None:
        """Compare with another header. Where both know the digest of their encoder, its name does not matter.

        Args:
            other: the other header.
            here: what this header belongs to, for the message.
            there: what the other header belongs to.

        Raises:
            ValueError: naming both sides of every difference.
        """
        digests = self.encoder_sha256 and other.encoder_sha256
        ignored = "encoder" if digests else "encoder_sha256"
        names = [field.name for field in fields(self) if field.name != ignored]
        pairs = [(name, getattr(self, name), getattr(other, name)) for name in names]
        different = [
            f"{name}: {mine!r} ({here}), {theirs!r} ({there})" for name, mine, theirs in pairs if mine != theirs
        ]
        if different:
            raise ValueError(
                f"the features of {here} and {there} were made differently: {'; '.join(different)}. "
                "Extract both in the same way"
            )

    def check_video(self, video: Video) -> None:
        """Raise ValueError if a video's arrays or times are not what this header promises."""
        frames = len(video.features)
        expected = {
            "features": (frames, self.width),
            "patches": (frames, self.patch_count, self.patch_width) if self.patches else None,
            "cls_attention": (frames, self.patch_count) if self.cls_attention else None,
            "spatial": (self.spatial_count, self.width) if self.spatial else None,
        }
        for name, shape in expected.items():
            array = getattr(video, name)
            found = None if array is None else array.shape
            if found != shape:
                raise ValueError(f"video {video.id}: {name} has shape {found}, the folder's header asks for {shape}")
            if array is not None and array.dtype != np.float16:
                raise ValueError(f"video {video.id}: {name} must be float16, got {array.dtype}")
        if video.frame_times_s.ndim != 1:
            raise ValueError(f"video {video.id}: frame_times_s must be (T,), got {video.frame_times_s.shape}")
        last_s = video.frame_times_s[-1]
        if last_s > video.duration_s + TOLERANCE_S:
            raise ValueError(f"video {video.id}: last frame at {last_s} s is after the end at {video.duration_s} s")


def to_members(video: Video) -> dict[str, bytes]:
    """Member name -> content of one record."""
    members = {}
    for name in ARRAYS:
        if (array := getattr(video, name)) is not None:
            np.lib.format.write_array(buffer := io.BytesIO(), array, allow_pickle=False)
            members[f"{name}.npy"] = buffer.getvalue()
    about = {"id": video.id, "duration_s": float(video.duration_s), "frame_times_s": video.frame_times_s.tolist()}
    about |= {"source": video.source} | ({"reader": video.reader} if video.reader else {})
    about |= {"sound_lead_s": video.sound_lead_s} if video.sound_lead_s else {}
    about |= {"nominal": True} if video.nominal else {}
    members["video.json"] = json.dumps(about).encode()
    return members


def _read_array(content: bytes | bytearray | memoryview) -> np.ndarray:
    """An .npy file in memory; the array lies in that memory where it can."""
    try:
        return _array(content)
    except (ValueError, EOFError):
        raise
    except Exception as error:  # numpy's reader of headers raises what Python's tokenizer and parser raise
        raise ValueError(f"no .npy array: {type(error).__name__}") from None


def _array(content: bytes | bytearray | memoryview) -> np.ndarray:
    end = len(PLAIN) + 2 + int.from_bytes(content[len(PLAIN) : len(PLAIN) + 2], "little")
    plain = _read_header(bytes(content[:end])) if content[: len(PLAIN)] == PLAIN else None
    if plain is None:
        return _unusual(content)
    dtype, shape = plain
    if any(length < 0 for length in shape):
        raise ValueError(f"an array of shape {shape}")
    return np.frombuffer(content, dtype, math.prod(shape), end).reshape(shape)


def _unusual(content: bytes | bytearray | memoryview) -> np.ndarray:
    """An array in a layout that numpy must read itself; nothing is made that is larger than the file."""
    stream = io.BytesIO(content)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    version = np.lib.format.read_magic(stream)
    if version not in read:
        raise ValueError(f".npy version {version} is not read")
    shape, _, dtype = read[version](stream)
    if not dtype.hasobject and math.prod(shape) * dtype.itemsize > len(content):
        raise ValueError(f"an array of shape {shape} in {len(content)} bytes")
    stream.seek(0)
    return np.lib.format.read_array(stream, allow_pickle=False)


@lru_cache(maxsize=1024)
def _read_header(header: bytes) -> tuple[np.dtype, tuple[int, ...]] | None:
    """Type and shape from the header of an .npy file, or None for layouts that numpy must read itself.

    Reading a header takes numpy longer than reading the array, and there are few different ones.
    """
    stream = io.BytesIO(header)
    np.lib.format.read_magic(stream)
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    return None if fortran or dtype.hasobject else (dtype, shape)


def from_members(members: Mapping[str, bytes | bytearray | memoryview]) -> Video:
    """The video of one record. Members that are not part of the format are not looked at."""
    for name in ("features.npy", "video.json"):
        if name not in members:
            raise ValueError(f"the record has no {name}")
    about = about_video(bytes(members["video.json"]))
    arrays = {name: _read_array(members[f"{name}.npy"]) for name in ARRAYS if f"{name}.npy" in members}
    times_s = np.asarray(about["frame_times_s"], dtype=np.float64)
    more = {key: about[key] for key in ("source", "reader", "sound_lead_s", "nominal") if key in about}
    return Video(about["id"], about["duration_s"], times_s, **more, **arrays)


def decode_record(record: Mapping, pread: Callable[[int, int], bytes | bytearray], header: FeatureHeader) -> Video:
    """The video of one entry of a shard's index; ``pread(offset, size)`` reads from the tar."""
    places = record["members"]
    start = min(at for at, _ in places.values())  # the members of a record lie side by side: one read
    end = max(at + size for at, size in places.values())
    content = memoryview(pread(start, end - start))
    video = from_members({name: content[at - start : at - start + size] for name, (at, size) in places.items()})
    if video.id != record["id"]:
        raise ValueError(f"the record says that it is {video.id!r}")
    header.check_video(video)
    return video


def decode_duration(record: Mapping, pread: Callable[[int, int], bytes | bytearray]) -> float:
    """Seconds of the video of one entry of a shard's index; reads the few bytes that say it."""
    return about_video(bytes(pread(*record["members"]["video.json"])))["duration_s"]


def about_video(content: bytes) -> dict:
    """What ``video.json`` says. Raises ValueError naming the key that is wrong."""
    try:
        about = decode(content)
        ABOUT_VIDEO.check(about)
        if about["duration_s"] < 0:
            raise ValueError(f"duration_s must not be negative, got {about['duration_s']!r}")
    except ValueError as error:
        raise ValueError(f"video.json: {error}") from None
    return about


class StrictTarInfo(tarfile.TarInfo):
    """tarfile (and so WebDataset) takes a damaged header for the end of the archive. Here it is an error."""

    @classmethod
    def fromtarfile(cls, archive):
        """The next member; see tarfile.TarInfo.fromtarfile."""
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:
            while rest := archive.fileobj.read(2**20):
                if rest.strip(b"\0"):
                    raise tarfile.ReadError(f"a zeroed header at byte {archive.offset} hides what follows") from None
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"damaged header at byte {archive.offset} ({error})") from None
