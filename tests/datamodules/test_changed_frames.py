"""Videos that do not show what they should keep their lengths and times."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from datamodules.changed_frames import ChangedFrames
from datamodules.records import FeatureHeader
from datamodules.schema import Video
from datamodules.shards import ShardReader
from datamodules.sources import Source
from preparation.features.shard_writer import ShardWriter

HEADER = FeatureHeader(
    "clip", "x", "224", "1.0 fps", 3, patches="p", patch_count=2, patch_width=3, cls_attention="a",
    spatial="1x2", spatial_count=2, spatial_source="s",
)  # fmt: skip
LENGTHS = {"a": 4, "b": 7, "c": 2}


def video(name: str, frames: int) -> Video:
    rng = np.random.default_rng(frames)
    shapes = {"features": (frames, 3), "patches": (frames, 2, 3), "cls_attention": (frames, 2), "spatial": (2, 3)}
    arrays = {key: rng.random(shape).astype(np.float16) for key, shape in shapes.items()}
    return Video(name, float(frames), np.arange(frames, dtype=float), **arrays)


@pytest.fixture
def folder(tmp_path) -> Path:
    with ShardWriter(tmp_path, HEADER) as writer:
        for name, frames in LENGTHS.items():
            writer.add(video(name, frames))
    return tmp_path


@pytest.mark.parametrize("frames", ["shuffled", "none", "other_video"])
def test_length_and_times_are_those_of_the_video(folder, frames):
    reader = ChangedFrames(folder, frames)
    for name, count in LENGTHS.items():
        shown, given = reader.read(name), video(name, count)
        assert (shown.id, shown.duration_s) == (name, given.duration_s)
        np.testing.assert_array_equal(shown.frame_times_s, given.frame_times_s)
        assert shown.features.shape == given.features.shape
        assert frames == "shuffled" and count < 4 or not np.array_equal(shown.features, given.features)
        reader.header.check_video(shown)
        np.testing.assert_array_equal(reader.read(name).features, shown.features)


def test_shuffled_frames_are_the_same_frames(folder):
    shown, given = ChangedFrames(folder, "shuffled").read("b"), ShardReader(folder).read("b")
    order = [int(np.flatnonzero((given.features == row).all(1))[0]) for row in shown.features]
    assert sorted(order) == list(range(7)) != order
    np.testing.assert_array_equal(shown.patches, given.patches[order])
    np.testing.assert_array_equal(shown.spatial, given.spatial)


def test_no_frames_are_zeros(folder):
    shown = ChangedFrames(folder, "none").read("b")
    assert not any(array.any() for array in (shown.features, shown.patches, shown.cls_attention, shown.spatial))


def test_another_video_is_spread_over_the_frames(folder):
    reader, given = ChangedFrames(folder, "other_video"), ShardReader(folder)
    np.testing.assert_array_equal(reader.read("a").features, given.read("b").features[[0, 1, 3, 5]])
    np.testing.assert_array_equal(reader.read("c").spatial, given.read("a").spatial)
    np.testing.assert_array_equal(reader.read("b").features, given.read("c").features[[0, 0, 0, 0, 1, 1, 1]])


def test_what_cannot_be_shown_is_refused(tmp_path):
    with ShardWriter(tmp_path, replace(HEADER, cls_attention="")) as writer:
        writer.add(replace(video("a", 4), cls_attention=None))
    assert ChangedFrames(tmp_path, "shuffled").read("a").cls_attention is None
    with pytest.raises(ValueError, match="holds one video: there is no other to show in its place"):
        ChangedFrames(tmp_path, "other_video")
    for place in ({"shards": "https://x/{0..1}.tar"}, {"videos": "videos"}):
        with pytest.raises(ValueError, match="only a folder of shards shows its frames otherwise than they are"):
            Source(**place, queries=Path("q.jsonl"), frames="none")
