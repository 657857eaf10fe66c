"""Videos that are in training data and in evaluation data, under whatever name."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from datamodules.schema import Query

Setting = Literal["zero-shot", "in-domain", "fine-tuned"]
ENDING = re.compile(r"\.(?:mp4|mkv|webm|avi|mov|m4v|mpe?g|flv|wmv|gif|npy|pkl)$", re.IGNORECASE)
CLIP = re.compile(r"(.+)_(\d{1,6}(?:\.\d+)?)_(\d{1,6}(?:\.\d+)?)")
YOUTUBE = re.compile(r"[\w-]{11}", re.ASCII)


def source_video(video: str) -> str:
    """The video that an id is about: without folder, file ending, ``v_`` and cut (``ID_60.0_210.0``).

    Eleven characters that could be a YouTube id are left as they are: ``v_x`` may begin one.
    """
    name = ENDING.sub("", video.replace("\\", "/").rsplit("/", 1)[-1])
    if YOUTUBE.fullmatch(name):
        return name
    if name.startswith("v_") and YOUTUBE.fullmatch(name[2:]):
        return name[2:]
    if (cut := CLIP.fullmatch(name)) and float(cut[2]) < float(cut[3]):
        name = cut[1]
    return name if YOUTUBE.fullmatch(name) or name == "v_" else name.removeprefix("v_")


def shared_videos(training: Iterable[str], evaluation: Iterable[str]) -> dict[str, tuple[list[str], list[str]]]:
    """Source video -> its ids in the training data and in the evaluation data, for the videos that are in both."""
    sides = defaultdict(set), defaultdict(set)
    for side, videos in zip(sides, (training, evaluation), strict=True):
        for video in videos:
            side[source_video(video)].add(video)
    both = sorted(sides[0].keys() & sides[1].keys())
    return {video: (sorted(sides[0][video]), sorted(sides[1][video])) for video in both}


class About(NamedTuple):
    """What a query is about, as far as it matters here."""

    video: str
    task: str
    source: str


def about(queries: Iterable[Query]) -> Iterable[About | Query]:
    """The queries, or of those that are read when they are asked for (``pairs.Queries``) what is known without that."""
    return queries.about() if hasattr(queries, "about") else queries


@dataclass(frozen=True)
class Overlap:
    """What training and evaluation data have in common."""

    videos: dict[str, tuple[list[str], list[str]]]
    """See ``shared_videos``."""
    evaluation_videos: int
    """Source videos in the evaluation data."""
    evaluation_queries: int
    """Its queries about a shared video."""
    sources: tuple[str, ...]
    """Datasets that both name as their ``source``."""
    setting: Setting

    def __str__(self) -> str:
        share = len(self.videos) / max(self.evaluation_videos, 1)
        return (
            f"{len(self.videos)} of {self.evaluation_videos} evaluation videos ({share:.1%}) are in the training data"
        )


def overlap(training: Iterable[Query], evaluation: Iterable[Query]) -> Overlap:
    """Compare training and evaluation data by video and by dataset.

    The setting is ``fine-tuned`` if a dataset of the evaluation was trained on for the same task; ``in-domain`` if it
    was trained on for another task, or any video is shared; else ``zero-shot``. A query without ``source`` counts by
    its video alone.
    """
    (trained, seen), (asked_of, asked) = _facts(training), _facts(evaluation)
    videos = shared_videos(trained, asked_of)
    sources = {source for source, _ in seen} & {source for source, _ in asked}
    setting: Setting = "fine-tuned" if seen & asked else "in-domain" if sources or videos else "zero-shot"
    leaked = sum(count for video, count in asked_of.items() if source_video(video) in videos)
    known = set(map(source_video, asked_of))
    return Overlap(videos, len(known), leaked, tuple(sorted(sources)), setting)


def _facts(queries: Iterable[Query]) -> tuple[Counter[str], set[tuple[str, str]]]:
    """Queries of each video, and each dataset with the tasks that it trains; the queries are gone through once."""
    videos, taught = Counter(), set()
    for query in about(queries):
        videos[query.video] += 1
        taught.add((query.source, query.task))
    return videos, {(source, task) for source, of in taught if source for task in _taught(of)}


def _taught(task: str) -> tuple[str, ...]:
    """The tasks that a record trains: described events become questions of all three kinds."""
    return (task, "grounding", "dense_captioning", "segment_captioning") if task == "events" else (task,)
