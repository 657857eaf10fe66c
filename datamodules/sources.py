"""Features and annotations, met by video id: the data sets behind the loaders."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import count, groupby
from pathlib import Path
from random import Random

import webdataset
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from datamodules.batch import Example, Prompt
from datamodules.changed_frames import Frames
from datamodules.chat import IGNORE
from datamodules.dialogue import Dialogue
from datamodules.kept import file_fingerprint, remembered
from datamodules.packing import pack_alike
from datamodules.pairs import ByVideo, Pairs
from datamodules.rendered import Unsayable
from datamodules.sampling import Draw
from datamodules.schema import Query, Video
from datamodules.shard_index import INDEX
from datamodules.skips import OnError
from datamodules.streaming import stream


@dataclass(frozen=True)
class Source:
    """Videos and what is asked about them; they meet by video id."""

    shards: str = ""
    """Folder of shards, or shard URLs in WebDataset's brace notation (training only, see ``streaming.stream``)."""
    queries: Path = Path()
    """Annotation file, one Query a line."""
    weight: float = 1.0
    """Times that an epoch of training holds each query: 2 is twice, 0.5 a half of them, drawn anew each epoch."""
    videos: str = ""
    """In place of shards: folder or list of video files, which ``data.encoder`` encodes while training."""
    frames: Frames = "given"
    """What is seen of a video: its frames, the same ``shuffled``, ``none``, or those of an ``other_video``."""

    def __post_init__(self):
        if bool(self.shards) == bool(self.videos) or self.queries == Path():
            raise ValueError(
                f"a source needs queries and either shards or videos, got shards {self.shards!r}, videos "
                f"{self.videos!r}, queries {str(self.queries)!r}. Where an earlier config has shards, add shards: ''"
            )
        if not 0 < self.weight < math.inf:
            raise ValueError(
                f"{self.queries}: weight must be positive, got {self.weight}; leave the source out instead"
            )
        if (self.remote or self.videos) and self.frames != "given":
            raise ValueError(f"{self.place}: only a folder of shards shows its frames otherwise than they are")

    @property
    def place(self) -> str:
        """Where its videos are, for messages."""
        return self.shards or self.videos

    @property
    def remote(self) -> bool:
        """Whether the shards are URLs."""
        return "://" in self.shards or self.shards.startswith("pipe:")

    def fingerprint(self) -> str:
        """A short hash of the annotations, and of the index of the shards where they are a folder."""
        index = Path(self.shards) / INDEX
        files = [self.queries, *([index] if self.shards and index.is_file() else [])]
        return remembered("sha256 of source", files, partial(file_fingerprint, *files))[:16]


@dataclass(frozen=True)
class Skipped:
    """Stands for a sample that could not be read, when the user asked to skip such samples."""

    reason: str


def attempt(make: Callable[[], Example | Prompt], on_error: OnError) -> Example | Prompt | Skipped:
    """What ``make`` gives, or why not, where the user asked to skip that or the localizer has no way to write it."""
    try:
        return make()
    except Unsayable as error:
        return Skipped(str(error))
    except ValueError as error:
        if on_error == "fail":
            raise
        return Skipped(str(error))


def wording(seed: int, epoch: int, query: Query) -> Random:
    """Source of the choices between paraphrases; it depends on seed, epoch and query id alone."""
    return Random(f"{seed}/{epoch}/{query.id}")


class TrainingDialogues(Dataset):
    """Training examples by Draw. Queries of one sequence share their video (see ``packing``).

    Args:
        pairs: every query.
        dialogue: writes them.
        seed: of the wording.
        on_error: what to do with a sample that cannot be read.
        names: of the sources that ``pairs`` has as its parts, to tell their losses apart; empty: there is one.
    """

    def __init__(self, pairs: Pairs, dialogue: Dialogue, seed: int, on_error: OnError, names: Sequence[str] = ()):
        self.pairs, self.dialogue, self.seed, self.on_error, self.names = pairs, dialogue, seed, on_error, names

    def __getitems__(self, draws: list[Draw]) -> list[list[Example | Skipped]]:
        return [self._sequence(list(drawn)) for _, drawn in groupby(draws, key=lambda draw: draw.sequence)]

    def _sequence(self, draws: list[Draw]) -> list[Example | Skipped]:
        """What could not be read, and the others, in one Example where they begin alike."""
        found = [self.pairs[draw.index] for draw in draws]
        reader, queries = found[0][0], [query for _, query in found]
        video = attempt(lambda: reader.read(queries[0].video), self.on_error)
        if isinstance(video, Skipped):
            return [video] * len(queries)
        samples = [
            attempt(partial(self._example, query, video, wording(self.seed, draw.epoch, query)), self.on_error)
            for draw, query in zip(draws, queries, strict=True)
        ]
        skipped = [sample for sample in samples if isinstance(sample, Skipped)]
        examples = [sample for sample in samples if isinstance(sample, Example)]
        if self.names:
            examples = [replace(example, source=self.names[self.pairs.part_of(draws[0].index)]) for example in examples]
        if draws[0].padding:
            for example in examples:
                example.labels.fill_(IGNORE)
        return skipped + pack_alike(examples)

    def _example(self, query: Query, video: Video, random: Random) -> Example:
        _check_length(query, video)
        return self.dialogue.example(query, video, random)


def _check_length(query: Query, video: Video) -> None:
    """Of a video file, whose length was not known before; that of shards was checked when they were opened."""
    try:
        query.check_length(video.duration_s)
    except ValueError as error:
        raise ValueError(f"query {query.id!r}: {error}") from None


def source_names(sources: Sequence[Source]) -> list[str]:
    """A short name of each source: of its query file, with the folder where two files have one name."""
    stems = Counter(source.queries.stem for source in sources)
    return [
        source.queries.stem
        if stems[source.queries.stem] == 1
        else f"{source.queries.parent.name}_{source.queries.stem}"
        for source in sources
    ]


class StreamedDialogues(IterableDataset):
    """Training examples from remote shards, over and over; see ``streaming.stream`` for what this does not promise."""

    def __init__(self, source: Source, dialogue: Dialogue, seed: int, on_error: OnError):
        self.source, self.dialogue, self.seed, self.on_error = source, dialogue, seed, on_error
        self.queries = ByVideo(source.queries)

    def __iter__(self) -> Iterator[Example | Skipped]:
        for epoch in count():
            given = used = 0
            videos = stream(self.source.shards, self.on_error)
            videos = videos.compose(webdataset.detshuffle(256, seed=self.seed + epoch))
            for given, item in enumerate(videos, 1):  # noqa: B007 (read after the loop)
                yield from map(Skipped, item.skipped)
                for query in self.queries.of(item.video.id) if item.video else ():
                    used += 1
                    example = partial(self._example, query, item.video, wording(self.seed, epoch, query))
                    yield attempt(example, self.on_error)
            if not given:
                if (worker := get_worker_info()) and worker.id:  # worker 0 gets the first shard
                    return
                raise ValueError(f"{self.source.shards}: no video for this process; it needs at least one shard")
            if not used:
                raise ValueError(f"no video of {self.source.shards} has a query in {self.source.queries}")

    def _example(self, query: Query, video: Video, random: Random) -> Example:
        try:
            query.check_length(video.duration_s)
        except ValueError as error:
            raise ValueError(f"{self.source.queries}: query {query.id!r}: {error}") from None
        return self.dialogue.example(query, video, random)


class Prompts(Dataset):
    """Questions by position, without their answers."""

    def __init__(self, pairs: Pairs, dialogue: Dialogue, on_error: OnError):
        self.pairs, self.dialogue, self.on_error = pairs, dialogue, on_error

    def __getitem__(self, index: int) -> Prompt | Skipped:
        reader, query = self.pairs[index]
        return attempt(lambda: self._prompt(query, reader.read(query.video)), self.on_error)

    def _prompt(self, query: Query, video: Video) -> Prompt:
        _check_length(query, video)
        return self.dialogue.prompt(query, video)

    def batches(self, size: int, rank: int, world_size: int) -> list[list[int]]:
        """Positions of this rank's batches: queries of one video side by side, as many batches on each rank.

        Where batches do not divide over the ranks, the first ones are answered again; metrics and prediction files
        count each query once.
        """
        places = [(str(reader.folder), video) for reader, video in self.pairs.places()]
        order = sorted(range(len(self.pairs)), key=places.__getitem__)
        batches = [order[start : start + size] for start in range(0, len(order), size)]
        batches += [batches[i % len(batches)] for i in range(-len(batches) % world_size)]
        return batches[rank::world_size]
