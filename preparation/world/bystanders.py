"""What only the patches of the made-up world show: in every video somebody stands still beside all that happens.

The frame features hold no trace of it, so a model that reads frames alone can but guess, and S-tokens tell.

Shape suffixes: T frames, P patches, M S-tokens, D feature width.
"""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from datamodules.query_files import write_queries
from datamodules.schema import Query, Turn, Video
from datamodules.shards import ShardReader
from datamodules.spatial_compression import Compression, compress
from preparation.features.shard_writer import ShardWriter
from preparation.world.seeds import generator
from preparation.world.synthetic import World
from preparation.world.synthetic_language import WORDS

PATCHES = 16
"""P, of a frame."""
PLACES = slice(5, 7)
"""The patches that show the bystander."""
FAMILY = list(WORDS).index("actor")
QUESTION, ANSWER = "Which actor is standing there all the time?", "A {actor}."


def bystander(world: World, index: int, split: str) -> int:
    """Which actor it is in a video."""
    return int(generator(world.seed, "bystander", split, index).integers(world.values))


def patches(world: World, video: Video, split: str, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Patch tokens (T, P, D) and the class token's attention (T, P) to them, float16.

    All patches of a frame look like the frame, but for those of the bystander, which also catch the eye.
    """
    rng = generator(world.seed, "patches", split, index)
    tokens = np.repeat(video.features.astype(np.float64)[:, None], PATCHES, axis=1)
    tokens[:, PLACES] = world.directions[FAMILY, bystander(world, index, split)]
    tokens += world.noise * rng.standard_normal(tokens.shape)
    attention = rng.random(tokens.shape[:2])
    attention[:, PLACES] += 1
    attention /= attention.sum(axis=1, keepdims=True)
    return tokens.astype(np.float16), attention.astype(np.float16)


def write_bystanders(folder: Path, world: World, settings: Compression) -> None:
    """Add to a written world what its patches show.

    Makes ``spatial/``, the videos of ``videos/`` with the S-tokens of their patches, which are not kept, and
    ``bystanders.jsonl``, which asks who stands there, for training and in ``val/`` and ``test/``.

    Args:
        folder: of ``write_world``.
        world: that was written there.
        settings: of the S-tokens.
    """
    reader, queries = ShardReader(folder / "videos"), {"train": [], "val": [], "test": []}
    about = {"spatial": str(settings), "spatial_count": settings.count, "spatial_source": f"{PATCHES} made-up patches"}
    with ShardWriter(folder / "spatial", replace(reader.header, **about)) as writer:
        for video in map(reader.read, reader.ids):
            split, index = re.fullmatch(r"([a-z]+)(\d+)", video.id).groups()
            arrays = (video.features, *patches(world, video, split, int(index)))
            tokens = compress(*map(torch.from_numpy, arrays), settings).to(torch.float16).numpy()
            writer.add(replace(video, spatial=tokens))
            actor = WORDS["actor"][bystander(world, int(index), split)][0]
            turn = Turn(QUESTION, ANSWER.format(actor=actor))
            queries[split].append(Query(f"{video.id}.bystander", video.id, "dialogue", turns=(turn,)))
    for split, asked in queries.items():
        write_queries(folder / ("" if split == "train" else split) / "bystanders.jsonl", asked)
