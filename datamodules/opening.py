"""Each query with what gives its video, read once before training or questions begin."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from datamodules.changed_frames import ChangedFrames
from datamodules.line_index import open_lines
from datamodules.pairs import Lines, Pairs
from datamodules.records import FeatureHeader
from datamodules.schema import Query
from datamodules.shards import ShardReader
from datamodules.skips import OnError, Skips
from datamodules.sources import Source
from datamodules.video_reader import OnlineEncoding, VideoReader

Reads = Callable[[FeatureHeader, str], FeatureHeader]
"""Of the header of a folder, the part that a model depends on."""


def open_sources(
    sources: Sequence[Source],
    reads: Reads,
    on_error: OnError,
    unique: bool = False,
    encoding: OnlineEncoding | None = None,
    verify_checksums: bool = False,
) -> tuple[list[Pairs], Counter]:
    """Pair every query with what gives its video.

    Args:
        sources: local sources; what is read of their features must have been made in the same way.
        reads: says what is read, see ``Splicer.reads``.
        on_error: what to do with a query whose video is absent, and in training with a line that is no query.
        unique: refuse an id that two sources use, and a weight.
        encoding: of sources that are video files. None: there are none.
        verify_checksums: read all bytes of the shards first, and refuse those that are not as they were written.

    Returns:
        the pairs of each source, in file order, and what was skipped.

    Raises:
        ValueError: an absent video or one of another length than annotated (naming file, query and video), features
            made differently, an id used twice, a weight where all are asked once, video files without an encoder, or
            no query at all.
    """
    pairs, skipped, first = [], Counter(), None
    for source in sources:
        if unique and source.weight != 1:
            raise ValueError(f"{source.queries}: only sources of data.train have a weight; here all is asked once")
        reader = _open(source, encoding)
        if verify_checksums and isinstance(reader, ShardReader):
            reader.check_checksums()
        header = reads(reader.header, source.place)
        first = first or (header, source.place)
        first[0].check_same(header, first[1], source.place)
        lines = Skips(on_error) if on_error == "skip" and not unique else None  # what is scored must be readable
        index = open_lines(source.queries, lines)
        skipped += lines.counts if lines else Counter()
        pairs.append(Pairs([_usable(Lines(reader, index, range(len(index))), on_error, skipped)]))
    if unique and len(sources) > 1:
        _check_ids(sources, pairs)
    if not any(pairs):
        reasons = "".join(f"; {reason}: {count}" for reason, count in skipped.items())
        raise ValueError(f"no query to read in {[str(source.queries) for source in sources]}{reasons}")
    return pairs, skipped


def _check_ids(sources: Sequence[Source], pairs: Sequence[Pairs]) -> None:
    files = {}
    for source, found in zip(sources, pairs, strict=True):
        for _, query in found:
            if query.id in files:
                raise ValueError(
                    f"{source.queries}: id {query.id!r} is used in {files[query.id]} already; give it another, "
                    "because answers are told apart by their ids"
                )
            files[query.id] = source.queries


def _open(source: Source, encoding: OnlineEncoding | None) -> VideoReader:
    if source.shards:
        given = source.frames == "given"
        return ShardReader(source.shards) if given else ChangedFrames(source.shards, source.frames)
    if encoding is None:
        raise ValueError(
            f"{source.videos}: video files need what encodes them while training: set data.encoder to a class path "
            "such as preparation.features.online.Encoding, or extract their features and name these as shards"
        )
    return encoding.open(Path(source.videos))


def _usable(lines: Lines, on_error: OnError, skipped: Counter) -> Lines:
    """The queries that fit the features; the others are counted.

    The length of a video file is only known when it is read, and held against the query then.

    Raises:
        ValueError: one does not, under the policy ``fail``.
    """
    faults = _faults(lines)
    if not faults.any():
        return lines
    if on_error == "fail":
        query = lines.index.query(int(faults.argmax()))
        raise ValueError(
            f"{lines.index.path}: query {query.id!r} {_said(query, lines.reader)}, or set on_error: skip to leave such "
            "queries out, counted"
        )
    for number, reason in enumerate(FAULTS[1:], 1):
        if count := int((faults == number).sum()):
            skipped[reason] += count
    return lines.where(faults == 0)


FAULTS = ("", "video not in shards", "damaged", "annotation and features differ in duration")
"""Why a query and the features do not belong together, in words that many share."""


def _faults(lines: Lines) -> np.ndarray:
    """(N,) places in ``FAULTS``. Each video is looked for once, however many queries are about it."""
    reader, rows, names = lines.reader, lines.rows, lines.index.videos
    videos, of_row = np.unique(rows["video"], return_inverse=True)
    faults, stored_s = np.zeros(len(videos), np.uint8), np.full(len(videos), np.nan)
    timed = ~np.isnan(rows["duration_s"])
    if isinstance(reader, ShardReader):
        places = reader.places(names)[videos]
        faults[places < 0] = 1
        asked = np.zeros(len(videos), bool)
        asked[of_row[timed]] = True
        asked &= places >= 0
        stored_s[asked] = reader.durations_s(places[asked])
        faults[asked & np.isnan(stored_s)] = 2
    else:
        faults[[names[video] not in reader for video in videos.tolist()]] = 1
        timed[:] = False
    found = np.where((faults[of_row] == 1) | timed, faults[of_row], 0)
    found[timed & (found == 0) & Query.differs(rows["duration_s"], stored_s[of_row])] = 3
    return found


def _said(query: Query, reader: VideoReader) -> str:
    """Why a query and the features do not belong together, in full."""
    if query.video not in reader:
        return f"is about video {query.video!r}, which is not in {reader.folder}; {reader.remedy(query.video)}"
    try:
        stored_s = reader.duration_s(query.video)
    except ValueError as error:
        return f"is about a video that cannot be read: {error}"
    try:
        query.check_length(stored_s)
    except ValueError as error:
        return f"is not about what {reader.folder} holds: {error}"
    raise AssertionError(f"{query.id!r} fits {reader.folder}")
