"""What records may hold, for all files of them: annotations, predictions, and the indices of feature shards.

``VERSION`` is that of annotation lines and of prediction lines. A line may name it (``"version": 1``); one that does
not is of version 1, and one that names another was written by a later WhenLM and is refused.
"""

from typing import Literal, NotRequired

from pydantic import with_config
from typing_extensions import TypedDict

from datamodules.strict_json import STRICT, Count, Flag, Name, Number, Schema, Text, Words

VERSION = 1


@with_config(STRICT)
class EventRecord(TypedDict):
    """See ``events.Event``."""

    start_s: Number
    end_s: Number
    caption: NotRequired[Words]
    detail: NotRequired[Words]


@with_config(STRICT)
class TurnRecord(TypedDict):
    """See ``schema.Turn``."""

    question: Words
    answer: NotRequired[Words | None]
    task: NotRequired[Words]
    events: NotRequired[list[EventRecord]]
    topic: NotRequired[Words]
    times: NotRequired[dict[Words, Number]]


@with_config(STRICT)
class PartRecord(TypedDict):
    """See ``events.Part``."""

    file: Name
    start_s: Number
    end_s: Number


@with_config(STRICT)
class QueryRecord(TypedDict):
    """See ``schema.Query``."""

    version: NotRequired[Literal[1]]
    id: Name
    video: Name
    task: Words
    text: NotRequired[Words]
    events: NotRequired[list[EventRecord]]
    rejected: NotRequired[list[EventRecord]]
    turns: NotRequired[list[TurnRecord]]
    duration_s: NotRequired[Number | None]
    options: NotRequired[list[Words]]
    answer: NotRequired[Count | None]
    saliency: NotRequired[list[list[Number]]]
    clip_s: NotRequired[Number | None]
    source: NotRequired[Words]
    absent: NotRequired[Flag]
    part: NotRequired[PartRecord | None]


class StripRecord(TypedDict):
    """See ``prediction.Strip``."""

    label: Words
    scores: list[Number]


class PredictionRecord(TypedDict):
    """See ``prediction.Prediction``; keys that it does not have are left aside."""

    version: NotRequired[Literal[1]]
    query_id: Name
    video: Words
    task: Words
    answer: Text
    spans: NotRequired[list[list[Number]]]
    captions: NotRequired[list[Text]]
    saliency: NotRequired[list[Number]]
    option: NotRequired[Count | None]
    rule: NotRequired[Words | None]
    answers: NotRequired[list[Text]]
    strips: NotRequired[list[StripRecord]]
    confidence: NotRequired[Number | None]


@with_config(STRICT)
class HeaderRecord(TypedDict):
    """See ``records.FeatureHeader``."""

    encoder: Words
    output: Words
    preprocessing: Words
    sampling: Words
    width: Count
    encoder_sha256: NotRequired[Words]
    patches: NotRequired[Words]
    patch_count: NotRequired[Count]
    patch_width: NotRequired[Count]
    pool: NotRequired[Words]
    cls_attention: NotRequired[Words]
    spatial: NotRequired[Words]
    spatial_count: NotRequired[Count]
    spatial_source: NotRequired[Words]


class ShardRecord(TypedDict):
    """A shard in the index of its folder."""

    file: Name
    records: Count
    bytes: Count
    sha256: Name


class FolderIndex(TypedDict):
    """``index.json`` of a folder of shards."""

    format: Name
    header: HeaderRecord
    shards: list[ShardRecord]


class VideoPlace(TypedDict):
    """Where the members of a record lie in its tar."""

    id: Name
    key: Name
    members: dict[Name, tuple[Count, Count]]


class ShardIndex(TypedDict):
    """The index beside a tar."""

    format: Name
    file: Name
    bytes: Count
    sha256: Name
    records: list[VideoPlace]


class AboutVideo(TypedDict):
    """``video.json`` of a record."""

    id: Name
    duration_s: Number
    frame_times_s: list[Number]
    source: NotRequired[Words]
    reader: NotRequired[Words]
    sound_lead_s: NotRequired[Number]
    nominal: NotRequired[Flag]


QUERY = Schema(QueryRecord)
PREDICTION = Schema(PredictionRecord)
FOLDER_INDEX = Schema(FolderIndex)
SHARD_INDEX = Schema(ShardIndex)
ABOUT_VIDEO = Schema(AboutVideo)
HEADER = Schema(HeaderRecord)
