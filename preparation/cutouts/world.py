"""Everything that is trained and tested on, as files in the layout of real data: mp4, jpg and annotations."""

from dataclasses import dataclass
from pathlib import Path

from rich.progress import track

from datamodules.query_files import write_queries
from datamodules.schema import Query, Turn
from preparation.cutouts.drawing import background, place, rendered, write_video
from preparation.cutouts.scenes import KNOWN_RENDERINGS, KNOWN_TEXTURES, MOTIONS, RENDERINGS, TESTS, WALLS, Scenes
from preparation.world.seeds import generator


@dataclass(frozen=True)
class Sizes:
    """How much there is of everything."""

    train: int = 400
    """Videos; each has two queries an event, and one for all."""
    val: int = 20
    test: int = 20
    """Videos of each test split."""


def write_world(folder: Path, scenes: Scenes, sizes: Sizes) -> None:
    """Draw all videos and pictures and say what they show.

    Makes ``videos/`` and ``pictures/``; ``train.jsonl``, and ``train_moments.jsonl`` without dense captions; ``val/``
    and ``test/SPLIT/`` with ``grounding.jsonl`` and ``dense_captioning.jsonl``; and ``pictures_train.jsonl``,
    ``pictures_val.jsonl`` (other renderings) and ``pictures_object.jsonl`` (objects that training never shows).

    Args:
        folder: new or empty.
        scenes: what happens.
        sizes: how much of it.
    """
    (folder / "videos").mkdir(parents=True)
    splits = {"train": sizes.train, "val": sizes.val, **dict.fromkeys(TESTS, sizes.test)}
    todo = [(split, number) for split, size in splits.items() for number in range(size)]
    asked: dict[str, list[Query]] = {}
    for split, number in track(todo, "drawing videos"):
        scene = scenes.scene(split, number)
        write_video(folder / "videos", scene, scenes.objects)
        if split == "train":
            moments = scenes.moments(scene, wordings=2)
            asked.setdefault("train", []).extend([*moments, scenes.whole(scene)])
            asked.setdefault("train_moments", []).extend(moments)
        else:
            place_of = split if split == "val" else f"test/{split}"
            asked.setdefault(f"{place_of}/grounding", []).extend(scenes.moments(scene))
            asked.setdefault(f"{place_of}/dense_captioning", []).append(scenes.whole(scene))
    for name, queries in asked.items():
        write_queries(folder / f"{name}.jsonl", queries)
    write_pictures(folder, scenes)


def write_pictures(folder: Path, scenes: Scenes) -> None:
    """Draw every rendering of every object once, somewhere on its way in front of some wall."""
    (folder / "pictures").mkdir(parents=True)
    queries: dict[str, list[Query]] = {"train": [], "val": [], "object": []}
    for number, cutout in enumerate(scenes.objects):
        for rendering in range(RENDERINGS):
            split = "object" if number >= scenes.known else "train" if rendering < KNOWN_RENDERINGS else "val"
            rng, name = generator(scenes.seed, "picture", number, rendering), f"picture{number:03d}-{rendering}"
            wall = background(int(rng.integers(len(WALLS))), int(rng.integers(KNOWN_TEXTURES)))
            picture = place(wall, rendered(cutout, rendering), int(rng.integers(len(MOTIONS))), float(rng.random()))
            picture.save(folder / "pictures" / f"{name}.jpg", quality=92)
            turn = Turn("What does the picture show?", f"{cutout.phrase.capitalize()}.")
            queries[split].append(Query(name, name, "dialogue", turns=(turn,)))
    for split, found in queries.items():
        write_queries(folder / f"pictures_{split}.jsonl", found)
