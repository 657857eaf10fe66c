"""What happens in a video of cut-out photographs: which objects, how they move, in front of what, and when.

Every split but the last is made of objects that training shows. ``train``, ``val`` and ``videos`` differ in their
scenes alone; ``rendering``, ``background``, ``combination`` and ``object`` each show one thing that training does not.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from datamodules.schema import Event, Query
from preparation.cutouts.pictures import Cutout, with_article
from preparation.world.seeds import generator

TESTS = ("videos", "rendering", "background", "combination", "object")
RENDERINGS, KNOWN_RENDERINGS = 10, 8
"""Ways in which an object may look (turned, mirrored, darker ..), and how many of them training shows."""
TEXTURES, KNOWN_TEXTURES = 5, 4
"""Of each wall, and how many of them training shows."""
WALLS = ("red", "orange", "yellow", "green", "blue", "purple", "white", "black")
MOTIONS = ("moves to the right", "moves to the left", "comes closer", "goes away")
EVENTS = 3
WORDING = ("{}", "{} on the screen", "{} in the picture", "{} coming into view")
"""How a query may say it; {} is "a zebra"."""


@dataclass(frozen=True)
class Shown:
    """One event of a scene."""

    object: int
    """Number of the cut-out."""
    rendering: int
    motion: int
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Scene:
    """One video, before it is drawn."""

    name: str
    wall: int
    """Number of the colour."""
    texture: int
    duration_s: float
    shown: tuple[Shown, ...]


@dataclass(frozen=True)
class Scenes:
    """All scenes there can be, as a function of the seed.

    Args:
        objects: the cut-outs.
        unseen: how many of the last ones training never shows.
        seed: everything derives from it.

    Raises:
        ValueError: a video could not have different objects.
    """

    objects: Sequence[Cutout]
    unseen: int
    seed: int = 0

    def __post_init__(self):
        if not EVENTS <= self.unseen <= len(self.objects) - EVENTS:
            raise ValueError(f"{len(self.objects)} objects, {self.unseen} of them unseen: {EVENTS} of each are needed")

    @property
    def known(self) -> int:
        """How many objects training shows."""
        return len(self.objects) - self.unseen

    def held_out(self, object: int, motion: int) -> bool:
        """Whether training never shows this object in this motion: one motion of each object."""
        return motion == int(generator(self.seed, "held out", object).integers(len(MOTIONS)))

    def scene(self, split: str, number: int) -> Scene:
        """Scene ``number`` of a split."""
        rng = generator(self.seed, "scene", split, number)
        pool = np.arange(self.known, len(self.objects)) if split == "object" else np.arange(self.known)
        lengths = np.empty(2 * EVENTS + 1)
        lengths[1::2], lengths[::2] = rng.uniform(1, 3, EVENTS), rng.uniform(0.3, 1.2, EVENTS + 1)
        edges = np.cumsum(lengths / lengths.sum())[:-1].reshape(EVENTS, 2)
        duration_s = float(rng.integers(16, 41))
        shown = []
        for chosen, (start, end) in zip(rng.choice(pool, EVENTS, replace=False), edges, strict=True):
            wanted = split == "combination"
            motions = [motion for motion in range(len(MOTIONS)) if self.held_out(int(chosen), motion) == wanted]
            rendering = _new(rng, split == "rendering", KNOWN_RENDERINGS, RENDERINGS)
            times = float(start * duration_s), float(end * duration_s)
            shown.append(Shown(int(chosen), rendering, int(rng.choice(motions)), *times))
        texture = _new(rng, split == "background", KNOWN_TEXTURES, TEXTURES)
        return Scene(f"{split}{number:04d}", int(rng.integers(len(WALLS))), texture, duration_s, tuple(shown))

    def events(self, scene: Scene) -> tuple[Event, ...]:
        """What can be said of a scene: a caption names the object, a detail also how it moves and in front of what."""
        events = []
        for shown in scene.shown:
            phrase = self.objects[shown.object].phrase
            detail = f"{phrase} {MOTIONS[shown.motion]} in front of {with_article(WALLS[scene.wall])} wall"
            events.append(Event(shown.start_s, shown.end_s, phrase, detail))
        return tuple(events)

    def moments(self, scene: Scene, wordings: int = 1) -> list[Query]:
        """Queries for every event of a scene, each in ``wordings`` wordings."""
        rng, queries = generator(self.seed, "wording", scene.name), []
        for number, event in enumerate(self.events(scene)):
            for choice in rng.permutation(len(WORDING))[:wordings]:
                text, name = WORDING[choice].format(event.caption), f"{scene.name}.{number}.{choice}"
                queries.append(Query(name, scene.name, "grounding", text, (event,), duration_s=scene.duration_s))
        return queries

    def whole(self, scene: Scene) -> Query:
        """Name all events of a scene."""
        events = self.events(scene)
        return Query(f"{scene.name}.all", scene.name, "dense_captioning", events=events, duration_s=scene.duration_s)


def _new(rng: np.random.Generator, new: bool, known: int, all: int) -> int:
    """A number that training shows, or one that it does not."""
    return int(rng.integers(known, all) if new else rng.integers(known))
