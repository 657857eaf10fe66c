"""S-tokens of the made-up world say what frame features cannot."""

from pathlib import Path

import numpy as np
import pytest

import prepare
from datamodules.query_files import read_queries
from datamodules.shards import ShardReader
from datamodules.spatial_compression import Compression
from preparation.features.verification import verify
from preparation.world.bystanders import FAMILY, bystander, write_bystanders
from preparation.world.synthetic import World, write_world
from preparation.world.synthetic_language import WORDS

WORLD, SIZES = World(seed=3, frames=16), {"images": 0, "train": 8, "val": 1, "test": 3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    write_world(folder, WORLD, **SIZES)
    write_bystanders(folder, WORLD, Compression(2, 4))
    return folder


def test_the_tokens_are_added_to_the_same_videos(folder):
    plain, spatial = ShardReader(folder / "videos"), ShardReader(folder / "spatial")
    assert plain.ids == spatial.ids
    for video in map(spatial.read, spatial.ids):
        assert np.array_equal(video.features, plain.read(video.id).features)
        assert video.spatial.shape == (8, 64)
    assert verify(folder / "spatial").problems == ()


def test_tokens_show_the_bystander_and_frames_do_not(folder):
    """Of the actors that are in no event of a video, so that nothing else can show them."""
    reader, actors = ShardReader(folder / "spatial"), WORLD.directions[FAMILY]
    seen = []
    for index in range(SIZES["train"]):
        actor, scene = bystander(WORLD, index, "train"), WORLD.scene(index)
        video = reader.read(f"train{index:05d}")
        cosine = lambda rows: rows @ actors.T / np.linalg.norm(actors, axis=1) / np.linalg.norm(rows, axis=1)[:, None]  # noqa: E731
        assert cosine(video.spatial.astype(float))[:, actor].max() > 0.8
        if actor not in {combination[FAMILY] for combination in scene.combinations}:
            seen.append(cosine(video.features.astype(float))[:, actor].max())
    assert seen and max(seen) < 0.5


def test_the_question_names_it(folder):
    for name, split in (("bystanders", "train"), ("test/bystanders", "test")):
        queries = list(read_queries(folder / f"{name}.jsonl"))
        assert len(queries) == SIZES[split]
        for index, query in enumerate(queries):
            assert query.turns[0].answer == f"A {WORDS['actor'][bystander(WORLD, index, split)][0]}."


def test_the_command_writes_both(tmp_path):
    sizes = ["--images=1", "--train=2", "--val=1", "--test=1", "--frames=16"]
    assert prepare.main(["synthetic", f"--output={tmp_path / 'w'}", *sizes, "--spatial=2x4"]) == 0
    assert ShardReader(tmp_path / "w" / "spatial").header.spatial == "2x4"
    assert prepare.main(["synthetic", f"--output={tmp_path / 'v'}", *sizes, "--spatial=many"]) == 2
    assert not (tmp_path / "v").exists()
