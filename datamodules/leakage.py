"""Videos that are in training data and in evaluation data, under whatever name."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
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
    """Source video -> its ids in the training data and in the evaluation data, for the videos that are in both.

    The training data is gone through once; what it does not share is not held.
    """
    asked, trained = defaultdict(set), defaultdict(set)
    for video in evaluation:
        asked[source_video(video)].add(video)
    for video in training:
        if (source := source_video(video)) in asked:
            trained[source].add(video)
    return {video: (sorted(trained[video]), sorted(asked[video])) for video in sorted(trained)}


class About(NamedTuple):
    """What a query is about, as far as it matters here."""

    video: str
    task: str
    source: str
    queries: int = 1
    """How many there are of them."""


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
    asked_of, asked, seen = Counter(), set(), set()
    for query in about(evaluation):
        asked_of[query.video] += getattr(query, "queries", 1)
        asked.add((query.source, query.task))

    def trained() -> Iterator[str]:
        for query in about(training):
            seen.add((query.source, query.task))
            yield query.video

    videos = shared_videos(trained(), asked_of)
    seen, asked = _teaching(seen), _teaching(asked)
    sources = {source for source, _ in seen} & {source for source, _ in asked}
    setting: Setting = "fine-tuned" if seen & asked else "in-domain" if sources or videos else "zero-shot"
    leaked = sum(count for video, count in asked_of.items() if source_video(video) in videos)
    known = set(map(source_video, asked_of))
    return Overlap(videos, len(known), leaked, tuple(sorted(sources)), setting)


def _teaching(named: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """Each dataset with the tasks that it trains."""
    return {(source, task) for source, of in named if source for task in _taught(of)}


def _taught(task: str) -> tuple[str, ...]:
    """The tasks that a record trains: described events become questions of all three kinds."""
    return (task, "grounding", "dense_captioning", "segment_captioning") if task == "events" else (task,)
