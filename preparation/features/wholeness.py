"""Whether a file is a video at all, and as long as its container's own sizes say; without decoding anything.

Players and decoders show what is left of a file that was cut off or overwritten as a shorter video.
"""

import mmap
import struct
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from preparation.features.refusal import Refused, cut_off, damaged

REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
SEGMENT, CLUSTER = 0x18538067, 0x1F43B675
"""Elements of Matroska: the whole, and a part of it with some seconds of all streams."""
FILE_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
"""The object of an ASF header that holds the size of the file."""


def check_bytes(path: Path) -> None:
    """Look at the bytes of a file.

    Raises:
        FileNotFoundError: there is none.
        Refused: it is no video, it is cut off, or its parts do not follow each other.
    """
    if not path.is_file():
        raise FileNotFoundError("a link that leads nowhere" if path.is_symlink() else "no such file")
    with open(path, "rb") as file:
        head = file.read(512)
        if not head:
            raise Refused("cannot be decoded", "an empty file", "get the file again")
        if head.startswith(b"version https://git-lfs"):
            raise Refused("cannot be decoded", "a pointer of Git LFS in place of the file", "run: git lfs pull")
        if head.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
            raise Refused("cannot be decoded", "a web page, not a video", "download it again and look at the page")
        if check := _check_of(head):
            check(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def _check_of(head: bytes) -> Callable[[mmap.mmap], None] | None:
    """What looks at containers that begin like this; None: FFmpeg alone does."""
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"styp"):
        return _check_mp4
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return _check_avi
    for size, first in ((188, 0), (192, 4), (204, 0)):
        if head[first : first + size + 1 : size] == b"GG":  # each packet of a transport stream begins with it
            return partial(_check_transport_stream, size=size, first=first)
    names = {b"\x1aE\xdf\xa3": _check_matroska, b"OggS": _check_ogg, b"FLV\x01": _check_flv, b"0&\xb2u": _check_asf}
    return names.get(head[:4])


def _check_mp4(data: mmap.mmap) -> None:
    """MP4, MOV, 3GP: boxes, one after the other: size, name, content."""
    at, names = 0, set()
    while at + 8 <= len(data):
        size, name = struct.unpack(">I4s", data[at : at + 8])
        size = int.from_bytes(data[at + 8 : at + 16]) if size == 1 else size or len(data) - at
        if name in (b"moov", b"mdat", b"moof") and at + size > len(data):
            raise cut_off(f"{name.decode()} ends at byte {at + size}, the file has {len(data)}")
        if b"moof" in names and not name.isalnum():
            raise damaged(f"no box at byte {at}")  # and what follows, a part of the video, is lost
        names.add(name)
        at += max(size, 8)
    if b"mdat" in names and not names & {b"moov", b"moof"}:
        raise Refused("not whole", "cut off: no moov, the index that is written last", "get the file again")


def _check_matroska(data: mmap.mmap) -> None:
    """MKV, WebM: elements within elements: number, size, content. What was recorded live lacks some of the sizes."""
    at, end = 0, len(data)
    while at < end:
        number, content, after = _element(data, at)
        if number in (SEGMENT, CLUSTER) and after is None:
            at = content  # its parts follow, and then what stands beside it
            continue
        if after is None:
            raise damaged(f"a part of unknown size at byte {at}")
        if after > len(data):
            raise cut_off(f"a part ends at byte {after}, the file has {len(data)}")
        if number == SEGMENT:
            at, end = content, after
        elif number == CLUSTER:
            _check_cluster(data, content, after)
            at = after
        else:
            at = after


def _check_cluster(data: mmap.mmap, at: int, end: int) -> None:
    while at < end:
        start = at
        _, _, at = _element(data, start)
        if at is None or at > end:
            raise damaged(f"what begins at byte {start} is larger than what it is a part of")


def _element(data: mmap.mmap, at: int) -> tuple[int, int, int | None]:
    """Number, begin and end of the element at a byte; the end is None where it is not stated."""
    head = data[at : at + 12]
    number_size = 9 - head[0].bit_length()
    size_size = 9 - head[number_size].bit_length() if number_size <= 4 and number_size < len(head) else 9
    if size_size > 8:
        raise damaged(f"no element of Matroska at byte {at}")
    mask = (1 << 7 * size_size) - 1
    size = int.from_bytes(head[number_size : number_size + size_size]) & mask
    content = at + number_size + size_size
    return int.from_bytes(head[:number_size]), content, None if size == mask else content + size


def _check_avi(data: mmap.mmap) -> None:
    """AVI: lists of chunks: name, size, content. Where the list of pictures ends is what counts."""
    at = 0
    while data[at : at + 4] == b"RIFF":
        inner, end = at + 12, at + 8 + int.from_bytes(data[at + 4 : at + 8], "little")
        while inner + 12 <= min(end, len(data)):
            name, size = data[inner : inner + 4], int.from_bytes(data[inner + 4 : inner + 8], "little")
            if name == b"LIST" and data[inner + 8 : inner + 12] == b"movi" and inner + 8 + size > len(data) + 1:
                raise cut_off(f"its pictures end at byte {inner + 8 + size}, the file has {len(data)}")
            inner += 8 + size + size % 2
        at = max(end + end % 2, at + 12)


def _check_transport_stream(data: mmap.mmap, size: int, first: int) -> None:
    """TS, M2TS: packets of one size, each beginning with the same byte."""
    whole = len(data) // size
    if len(data) % size:
        raise cut_off(f"{len(data)} bytes are no number of packets of {size}")
    packets = np.frombuffer(data, np.uint8).reshape(whole, size)[:, first : first + 188]
    lost = np.flatnonzero(packets[:, 0] != ord("G"))
    if len(lost):
        raise damaged(f"no packet begins at byte {lost[0] * size}")
    streams = (packets[:, 1] & 0x1F).astype(int) << 8 | packets[:, 2]
    begins = packets[(packets[:, 1] & 0x40) > 0][:1000]
    for packet in map(bytes, begins):
        content = 4 + (1 + packet[4] if packet[3] & 0x20 else 0)
        if packet[content : content + 3] == b"\0\0\1" and packet[content + 3] >> 4 == 0xE:  # of video
            last = packets[np.flatnonzero(streams == (packet[1] & 0x1F) << 8 | packet[2])[-1]]
            if not last[3] & 0x20:  # the end of a picture hardly ever fills a packet, and is padded
                raise cut_off("its last picture is incomplete")
            return


def _check_ogg(data: mmap.mmap) -> None:
    """OGV: pages with a number, a checksum, and a mark on the last of each stream."""
    at, numbers, ended = 0, {}, False
    while at < len(data):
        head = data[at : at + 27]
        if head[:4] != b"OggS":
            raise damaged(f"no page of Ogg at byte {at}")
        stream, number, checksum = struct.unpack("<III", head[14:26]) if len(head) == 27 else (0, 0, 0)
        sizes = data[at + 27 : at + 27 + head[-1]]
        end = at + 27 + len(sizes) + sum(sizes)
        if len(head) < 27 or len(sizes) < head[-1] or end > len(data):
            raise cut_off(f"a page ends at byte {end}, the file has {len(data)}")
        if number != numbers.get(stream, number - 1) + 1 or _ogg_checksum(data[at:end]) != checksum:
            raise damaged(f"the page of Ogg at byte {at} is not what was written")
        numbers[stream], ended, at = number, ended or bool(head[5] & 4), end
    if not ended:
        raise cut_off("none of its pages is marked as the last")


def _ogg_checksum(page: bytes) -> int:
    """The CRC of Ogg is that of zlib with the bits of each byte, and of the result, in the other order."""
    bits = zlib.crc32((page[:22] + bytes(4) + page[26:]).translate(REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{bits:032b}"[::-1], 2)


def _check_flv(data: mmap.mmap) -> None:
    """FLV: tags: kind, size, time, content, and the size once more."""
    at = int.from_bytes(data[5:9]) + 4
    while at < len(data):
        kind, end = data[at] & 0x1F, at + 11 + int.from_bytes(data[at + 1 : at + 4]) + 4
        if kind not in (8, 9, 18):
            raise damaged(f"no tag of FLV at byte {at}")
        if end > len(data):
            raise cut_off(f"a tag ends at byte {end}, the file has {len(data)}")
        at = end


def _check_asf(data: mmap.mmap) -> None:
    """WMV, ASF: the header states the size of the file, unless it was broadcast."""
    at = data.find(FILE_PROPERTIES, 0, 2**16)
    if at < 0 or data[at + 88] & 1:
        return
    stated = int.from_bytes(data[at + 40 : at + 48], "little")
    if stated > len(data):
        raise cut_off(f"its header states {stated} bytes, the file has {len(data)}")
    smallest, largest = struct.unpack("<II", data[at + 92 : at + 100])
    begin, count = int.from_bytes(data[16:24], "little") + 50, int.from_bytes(data[at + 56 : at + 64], "little")
    if smallest == largest and begin + count * largest <= len(data):
        heads = np.frombuffer(data, np.uint8, count * largest, begin)[::largest]
        if (lost := np.flatnonzero(heads >> 4 != heads[0] >> 4)).size:
            raise damaged(f"no packet begins at byte {begin + lost[0] * largest}")
