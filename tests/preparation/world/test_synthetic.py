"""The quickstart world is deterministic, says what it shows, and keeps its test combinations to itself."""

import numpy as np
import pytest

from datamodules.clip import Clip
from datamodules.query_files import read_queries
from datamodules.shards import ShardReader
from preparation.features.verification import verify
from preparation.world.synthetic import World, write_world
from preparation.world.synthetic_language import WORDS

DIFFICULTIES = (0.0, 0.3, 1.0)


def test_the_same_seed_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        write_world(tmp_path / name, World(seed=4), images=5, train=4, val=2, test=2)
    files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(tmp_path / "b") for p in (tmp_path / "b").rglob("*") if p.is_file())
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), file


def test_another_seed_gives_another_world():
    first, other = World(seed=0).video(0), World(seed=1).video(0)
    assert not np.array_equal(first[0].features, other[0].features) and first[1] != other[1]


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_videos_keep_their_promises(difficulty, split):
    world = World(difficulty=difficulty)
    for index in range(30):
        video, events = world.video(index, split)
        assert video.features.shape == (32, 64) and video.features.dtype == np.float16
        assert 2 <= len(events) <= 4
        edges = [time for event in events for time in event.span]
        assert edges == sorted(edges) and edges[-1] < video.duration_s
        assert video.frame_times_s[-1] < video.duration_s
        shortest = min(event.end_s - event.start_s for event in events)
        assert shortest > 1.5 / world.frames * video.duration_s  # else rounding to frames could lose an event
        assert all(len(event.detail) > len(event.caption) for event in events)


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_held_out_combinations_are_in_no_training_video(difficulty):
    world = World(difficulty=difficulty)
    train = [c for i in range(60) for c in world.scene(i).combinations]
    test = [c for i in range(60) for c in world.scene(i, "test").combinations]
    assert not any(map(world.is_held_out, train))
    share = np.mean([world.is_held_out(c) for c in test])
    assert 0.25 < share < 0.75


def test_frames_show_their_event():
    world = World(difficulty=0)
    video, _ = world.video(0)
    scene = world.scene(0)
    looks = np.stack([world.directions[np.arange(world.families), list(c)].sum(0) for c in scene.combinations])
    times = video.frame_times_s / video.duration_s
    for number, (start, end) in enumerate(scene.spans):
        inside = (times > start + 0.02) & (times < end - 0.02)
        best = (video.features[inside].astype(float) @ looks.T).argmax(1)
        assert inside.any() and all(scene.combinations[i] == scene.combinations[number] for i in best)


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_frames_show_and_details_name_what_no_caption_and_no_query_says(difficulty):
    """So a detail cannot be copied from the query: the frames of the event must be looked at."""
    world = World(difficulty=difficulty)
    names = list(WORDS.values())[world.families]
    seen = {}
    for index in range(20):
        (video, events), scene = world.video(index, "test"), world.scene(index, "test")
        asked = world.grounding_queries(index, "test")
        said = {word for text in (*(e.caption for e in events), *(q.text for q in asked)) for word in text.split()}
        assert said.isdisjoint(word for value in names for word in value)
        times = video.frame_times_s / video.duration_s
        for event, unnamed, (start, end) in zip(events, scene.unnamed, scene.spans, strict=True):
            assert event.detail.startswith(event.caption)
            assert set(names[unnamed]) & set(event.detail.split())
            inside = (times > start + 0.02) & (times < end - 0.02)
            seen.setdefault(unnamed, []).append(video.features[inside].astype(float).mean(0))
    order = sorted(seen)  # of an event alone, other attributes may hide it; not of several
    looks = np.stack([np.mean(seen[value], 0) for value in order])
    best = (looks - looks.mean(0)) @ world.directions[-1][order].T
    assert np.mean(best.argmax(1) == np.arange(len(order))) > 0.7


def test_there_are_repeats_and_distractors():
    scenes = [World().scene(index) for index in range(100)]
    repeated = [len(set(s.combinations)) < len(s.combinations) for s in scenes]
    pairs = [(a, b) for s in scenes for a in s.combinations for b in s.combinations if a < b]
    near = [sum(x == y for x, y in zip(a, b, strict=True)) >= len(a) - 2 for a, b in pairs]
    assert 0.1 < np.mean(repeated) < 0.6 and np.mean(near) > 0.2


def test_a_repeated_event_is_one_query_with_two_spans():
    world = World()
    for index in range(50):
        queries, scene = world.grounding_queries(index, "test"), world.scene(index, "test")
        assert len(queries) == len(set(scene.combinations))
        assert sum(len(query.events) for query in queries) == len(scene.combinations)
    several = [q for i in range(50) for q in world.grounding_queries(i, "test") if len(q.events) > 1]
    assert several


def test_dialogues_place_every_marker():
    for index in range(50):
        query = World().dialogue_query(index)
        assert 3 <= len(query.turns) <= 4
        for turn in query.turns:
            text = turn.question + turn.answer
            assert "{" not in text and text.count("<") == len(turn.times)
            assert all(marker in text for marker in turn.times)


def test_noise_grows_with_difficulty():
    easy, hard = World(difficulty=0), World(difficulty=1)
    assert (easy.families, easy.values, hard.families, hard.values) == (3, 6, 5, 10)
    assert easy.noise < hard.noise


def test_the_written_world_is_valid(tmp_path):
    write_world(tmp_path, World(frames=16, width=8), images=3, train=4, val=2, test=2)
    assert not verify(tmp_path / "videos").problems and not verify(tmp_path / "images").problems
    videos, images = ShardReader(tmp_path / "videos"), ShardReader(tmp_path / "images")
    assert len(videos) == 8 and len(images) == 3
    assert images.read("image00000").features.shape == (1, 8)
    assert all(query.video in images for query in read_queries(tmp_path / "stage1.jsonl"))
    for name in (
        "stage2",
        "stage3",
        "val/grounding",
        "val/dense_captioning",
        "test/grounding",
        "test/dense_captioning",
    ):
        queries = list(read_queries(tmp_path / f"{name}.jsonl"))
        assert queries and all(query.video in videos for query in queries), name
        assert all(query.duration_s == videos.read(query.video).duration_s for query in queries)
    tasks = {query.task for name in ("stage2", "stage3") for query in read_queries(tmp_path / f"{name}.jsonl")}
    assert tasks == {"events", "dialogue"}


def test_uneven_frames_show_the_same_events_at_other_times():
    even, uneven = World(seed=2), World(seed=2, uneven=0.5)
    (before, events), (video, same) = even.video(3, "test"), uneven.video(3, "test")
    assert events == same and repr(even) == repr(uneven), "what was written before has the same header"
    assert (even.sampling, uneven.sampling) == ("uniform 32", "uneven 32, spread 0.5")
    gaps_s = np.diff(video.frame_times_s)
    assert gaps_s.min() > 0 and gaps_s.max() > 3 * gaps_s.min() and video.frame_times_s[-1] < video.duration_s
    assert Clip.of(before, before.duration_s).even and not Clip.of(video, video.duration_s).even
    start_s, end_s = events[0].span
    background = video.features[video.frame_times_s < start_s - 2 * before.duration_s / 32].mean(0)
    inside = video.features[(start_s < video.frame_times_s) & (video.frame_times_s < end_s)].mean(0)
    assert np.abs(inside - background).mean() > 0.3


@pytest.mark.parametrize(
    "bad", [{"difficulty": 1.5}, {"difficulty": -0.1}, {"held_out": 1.0}, {"frames": 4}, {"uneven": -1}, {"uneven": 2}]
)
def test_impossible_worlds_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        World(**bad)
