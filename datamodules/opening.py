"""Each query with what gives its video, read once before training or questions begin."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from datamodules.changed_frames import ChangedFrames
from datamodules.query_files import read_queries
from datamodules.records import FeatureHeader
from datamodules.schema import Query
from datamodules.shards import ShardReader
from datamodules.skips import OnError, Skips
from datamodules.sources import Pair, Source
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
) -> tuple[list[list[Pair]], Counter]:
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
    pairs, skipped = [[] for _ in sources], Counter()
    first, files = None, {}
    for source, found in zip(sources, pairs, strict=True):
        if unique and source.weight != 1:
            raise ValueError(f"{source.queries}: only sources of data.train have a weight; here all is asked once")
        reader = _open(source, encoding)
        if verify_checksums and isinstance(reader, ShardReader):
            reader.check_checksums()
        header = reads(reader.header, source.place)
        first = first or (header, source.place)
        first[0].check_same(header, first[1], source.place)
        lines = Skips(on_error) if on_error == "skip" and not unique else None  # what is scored must be readable
        for query in read_queries(source.queries, lines):
            if unique and query.id in files:
                raise ValueError(
                    f"{source.queries}: id {query.id!r} is used in {files[query.id]} already; give it another, "
                    "because answers are told apart by their ids"
                )
            files[query.id] = source.queries
            if not (fault := _fault(query, reader)):
                found.append((reader, query))
            elif on_error == "skip":
                skipped[fault[0]] += 1
            else:
                raise ValueError(
                    f"{source.queries}: query {query.id!r} {fault[1]}, or set on_error: skip to leave such queries "
                    "out, counted"
                )
        skipped += lines.counts if lines else Counter()
    if not any(pairs):
        reasons = "".join(f"; {reason}: {count}" for reason, count in skipped.items())
        raise ValueError(f"no query to read in {[str(source.queries) for source in sources]}{reasons}")
    return pairs, skipped


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


def _fault(query: Query, reader: VideoReader) -> tuple[str, str] | None:
    """Why a query and the features do not belong together: in words that many share, and in full.

    The length of a video file is only known when it is read, and held against the query then.
    """
    if query.video not in reader:
        remedy = reader.remedy(query.video)
        return "video not in shards", f"is about video {query.video!r}, which is not in {reader.folder}; {remedy}"
    if query.duration_s is None or not isinstance(reader, ShardReader):
        return None
    try:
        stored_s = reader.duration_s(query.video)
    except ValueError as error:
        return "damaged", f"is about a video that cannot be read: {error}"
    try:
        query.check_length(stored_s)
    except ValueError as error:
        return "annotation and features differ in duration", f"is not about what {reader.folder} holds: {error}"
    return None
