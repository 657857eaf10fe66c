"""The quickstart world: small videos, made from one seed, whose events a tiny language model can learn to find.

An event is a combination of attributes (a red robot jumps in the park). Every attribute value owns a random direction
in feature space, an event's frames carry the sum of its directions, and its sentences name them in words. One attribute
more is shown by frames and named by details (near the box), and left out by captions and queries. Background lies
around the events; events fade in and out; other events of the same video share attributes with the one that is asked
for; every video has a style of its own and every frame its own noise. Some combinations occur in no training video.
Frames are evenly spaced or not. The same ``World`` always makes the same bytes.

Shape suffixes: T frames, D feature width, S events of a video, F attribute families, V values of a family.
"""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from datamodules.query_files import write_queries
from datamodules.records import FeatureHeader
from datamodules.schema import Event, Query, Turn, Video
from preparation.features.shard_writer import ShardWriter
from preparation.world.seeds import generator
from preparation.world.synthetic_language import FAMILIES, caption, conversation, detail, sentence_case


@dataclass(frozen=True)
class Scene:
    """What happens in one video, before it is shown or told."""

    combinations: tuple[tuple[int, ...], ...]
    """(S, F) one value a family and event; equal rows are a repeated event."""
    unnamed: tuple[int, ...]
    """(S,) the value of each event that captions and queries leave out."""
    spans: tuple[tuple[float, float], ...]
    """(S, 2) fractions of the duration, in order, apart from each other."""
    duration_s: float


@dataclass(frozen=True)
class World:
    """Everything there is to see and to say, as a function of the seed.

    Args:
        seed: everything derives from it.
        difficulty: 0 (sentences of three families of six values, light noise) to 1 (of five of ten, noise as strong as
            the signal).
        frames: T, frames of a video.
        width: D, feature width.
        held_out: share of the attribute combinations that training never shows.
        uneven: standard deviation of the logarithm of the gaps between frames; 0: all gaps are alike.

    Raises:
        ValueError: a value is out of its range.
    """

    seed: int = 0
    difficulty: float = 0.3
    frames: int = 32
    width: int = 64
    held_out: float = 0.2
    uneven: float = field(default=0.0, repr=False)  # said in ``sampling``

    def __post_init__(self):
        if not 0 <= self.difficulty <= 1:
            raise ValueError(f"difficulty must be between 0 and 1, got {self.difficulty}")
        if not 0 <= self.held_out < 0.9:
            raise ValueError(f"held_out must be at least 0 and less than 0.9, got {self.held_out}")
        if not 0 <= self.uneven <= 1:
            raise ValueError(f"uneven must be between 0 and 1, got {self.uneven}")
        if self.frames < 16 or self.width < 8:
            raise ValueError(f"a world needs frames >= 16 and width >= 8, got {self.frames} and {self.width}")

    @property
    def families(self) -> int:
        """F, how many attribute families a sentence names: three to five. Frames show one more."""
        return 3 + round(2 * self.difficulty)

    @property
    def values(self) -> int:
        """V, how many values a family has: six to ten."""
        return 6 + round(4 * self.difficulty)

    @property
    def sampling(self) -> str:
        """How frames were chosen, for the header of shards."""
        return f"uneven {self.frames}, spread {self.uneven}" if self.uneven else f"uniform {self.frames}"

    @property
    def noise(self) -> float:
        """Root mean square of a frame's noise; that of an event's features is 1."""
        return 0.3 + 0.7 * self.difficulty

    @cached_property
    def directions(self) -> np.ndarray:
        """(F + 1, V, D) a random direction for every attribute value; the last family is named by details alone."""
        vectors = self._rng("directions").standard_normal((len(FAMILIES), 10, self.width))
        return vectors[: self.families + 1, : self.values]

    @cached_property
    def backgrounds(self) -> np.ndarray:
        """(4, D) what a video shows while nothing happens."""
        return self._rng("backgrounds").standard_normal((4, self.width))

    def is_held_out(self, combination: tuple[int, ...]) -> bool:
        """Whether training never shows this combination of values."""
        return bool(self._rng("held out", *combination).random() < self.held_out)

    def combination(self, rng: np.random.Generator, split: str, near: tuple[int, ...] | None = None) -> tuple[int, ...]:
        """A random combination that ``split`` may show.

        Args:
            rng: source of randomness.
            split: ``train`` gives none that is held out; others give held-out ones half of the time.
            near: a combination that all values but one or two are shared with.
        """
        wanted = split != "train" and self.held_out > 0 and rng.random() < 0.5
        for _ in range(200):
            values = rng.integers(self.values, size=self.families)
            if near is not None:
                changed = rng.permutation(self.families)[: rng.integers(1, 3)]
                values = np.where(np.isin(np.arange(self.families), changed), values, near)
            combination = tuple(int(value) for value in values)
            if combination != near and self.is_held_out(combination) == wanted:
                return combination
            if split != "train" and near is not None:
                wanted = not wanted  # few combinations are near: take whichever comes
        raise AssertionError("no combination found")

    def scene(self, index: int, split: str = "train") -> Scene:
        """What happens in video ``index`` of a split; outside ``train`` half of the events are held out."""
        rng = self._rng("scene", split, index)
        events = int(rng.integers(2, 5))
        combinations = [self.combination(rng, split)]
        while len(combinations) < events:
            other = combinations[rng.integers(len(combinations))]
            draw = rng.random()
            if draw < 0.15:  # the same event again
                combinations.append(other)
            else:  # half of the rest are distractors
                combinations.append(self.combination(rng, split, near=other if draw < 0.575 else None))
        order = rng.permutation(events)
        lengths = np.empty(2 * events + 1)
        lengths[1::2] = rng.uniform(1, 4, events)
        lengths[0::2] = rng.uniform(0.4, 2, events + 1)
        edges = np.cumsum(lengths / lengths.sum())[:-1].reshape(events, 2)
        spans = tuple((float(start), float(end)) for start, end in edges)
        duration_s = float(np.round(rng.uniform(20, 120), 1))
        unnamed = tuple(map(int, self._rng("unnamed", split, index).integers(self.values, size=events)))
        return Scene(tuple(combinations[i] for i in order), unnamed, spans, duration_s)

    def video(self, index: int, split: str = "train") -> tuple[Video, list[Event]]:
        """Video ``index`` of a split (``train``, ``val``, ``test``) and its events in order of time."""
        scene, rng = self.scene(index, split), self._rng("video", split, index)
        times = self._times(split, index)
        features = np.tile(self.backgrounds[rng.integers(len(self.backgrounds))], (self.frames, 1))
        events = []
        for combination, unnamed, span in zip(scene.combinations, scene.unnamed, scene.spans, strict=True):
            inside = np.minimum(times - span[0], span[1] - times) * self.frames  # in mean gaps; an edge fades over one
            weight = np.clip(inside + 0.5, 0, 1)[:, None]
            features = (1 - weight) * features + weight * self._look(combination, unnamed)
            text = caption(rng, combination)
            start_s, end_s = (edge * scene.duration_s for edge in span)
            events.append(Event(start_s, end_s, text, detail(rng, text, self.families, unnamed)))
        video = self._video(f"{split}{index:05d}", scene.duration_s, times, features, rng)
        return video, events

    def image(self, index: int) -> tuple[Video, Event]:
        """One picture of one event (T = 1, called one second long), for feature alignment."""
        rng = self._rng("image", index)
        combination, unnamed = self.combination(rng, "train"), int(rng.integers(self.values))
        video = self._video(f"image{index:05d}", 1.0, np.zeros(1), self._look(combination, unnamed)[None], rng)
        text = caption(rng, combination)
        return video, Event(0.0, 1.0, text, detail(rng, text, self.families, unnamed))

    def events_query(self, index: int, split: str = "train") -> Query:
        """The events of a video as material for template dialogues."""
        video, events = self.video(index, split)
        return Query(f"{video.id}.events", video.id, "events", events=tuple(events), duration_s=video.duration_s)

    def dense_captioning_query(self, index: int, split: str) -> Query:
        """Name all events of a video."""
        video, events = self.video(index, split)
        name = f"{video.id}.dense"
        return Query(name, video.id, "dense_captioning", events=tuple(events), duration_s=video.duration_s)

    def grounding_queries(self, index: int, split: str) -> list[Query]:
        """One query for each different event of a video, in new words; a repeated event has several spans."""
        scene, (video, events) = self.scene(index, split), self.video(index, split)
        rng = self._rng("grounding", split, index)
        queries = []
        for number, combination in enumerate(dict.fromkeys(scene.combinations)):
            same = tuple(e for c, e in zip(scene.combinations, events, strict=True) if c == combination)
            text, name = caption(rng, combination), f"{video.id}.query{number}"
            queries.append(Query(name, video.id, "grounding", text, events=same, duration_s=video.duration_s))
        return queries

    def dialogue_query(self, index: int, split: str = "train") -> Query:
        """A free conversation about a video."""
        scene, (video, events) = self.scene(index, split), self.video(index, split)
        turns = conversation(self._rng("dialogue", split, index), events, scene.combinations)
        return Query(f"{video.id}.dialogue", video.id, "dialogue", turns=turns, duration_s=video.duration_s)

    def _rng(self, *key) -> np.random.Generator:
        return generator(self.seed, *key)

    def _times(self, split: str, index: int) -> np.ndarray:
        """(T,) fractions of the duration at which frames stand, each in the middle of its share of the video."""
        if not self.uneven:
            return (np.arange(self.frames) + 0.5) / self.frames
        shares = np.exp(self.uneven * self._rng("times", split, index).standard_normal(self.frames))
        return (np.cumsum(shares) - shares / 2) / shares.sum()

    def _look(self, combination: tuple[int, ...], unnamed: int) -> np.ndarray:
        shown = self.directions[np.arange(self.families + 1), [*combination, unnamed]]
        return shown.sum(0) / np.sqrt(len(shown))

    def _video(self, name: str, duration_s: float, times: np.ndarray, features: np.ndarray, rng) -> Video:
        """Add the style of the video (half as strong as the noise) and the noise of each frame."""
        style = 0.5 * self.noise * rng.standard_normal((1, self.width))
        features = (features + style + self.noise * rng.standard_normal(features.shape)).astype(np.float16)
        return Video(name, duration_s, times * duration_s, features, source=f"synthetic world {self.seed}")


def write_world(folder: Path, world: World, images: int, train: int, val: int, test: int) -> None:
    """Write a world as shards and annotation files, in the layout of real data.

    Makes ``images/`` and ``videos/`` (shards), ``stage1.jsonl`` to ``stage3.jsonl``, and ``grounding.jsonl`` and
    ``dense_captioning.jsonl`` in ``val/`` and ``test/``.

    Args:
        folder: new or empty.
        world: what to write.
        images: pictures for stage 1.
        train: training videos; each has a record in stage 2 and one in stage 3.
        val: videos for validation.
        test: videos for the final numbers.
    """
    folder = Path(folder)
    header = FeatureHeader(f"{world}", "sum of attribute directions", "none", world.sampling, world.width)
    with ShardWriter(folder / "videos", header) as writer:
        for split, size in (("train", train), ("val", val), ("test", test)):
            for index in range(size):
                writer.add(world.video(index, split)[0])
    stage1 = []
    with ShardWriter(folder / "images", header) as writer:
        for index in range(images):
            video, event = world.image(index)
            writer.add(video)
            turn = Turn("What does the picture show?", sentence_case(event.detail) + ".")
            stage1.append(Query(video.id, video.id, "dialogue", turns=(turn,)))
    write_queries(folder / "stage1.jsonl", stage1)
    write_queries(folder / "stage2.jsonl", (world.events_query(index) for index in range(train)))
    write_queries(folder / "stage3.jsonl", (world.dialogue_query(index) for index in range(train)))
    for split, size in (("val", val), ("test", test)):
        groundings = (query for index in range(size) for query in world.grounding_queries(index, split))
        write_queries(folder / split / "grounding.jsonl", groundings)
        dense = (world.dense_captioning_query(index, split) for index in range(size))
        write_queries(folder / split / "dense_captioning.jsonl", dense)
