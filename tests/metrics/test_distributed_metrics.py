"""The metric classes: the same number for any batches, order and number of processes."""

import pickle
from functools import partial
from multiprocessing import set_forkserver_preload

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from metrics.benchmarks.modules import ETBench, EventCaptions, TimeChatCaptions, VideoMind
from metrics.modules import (
    EventLocalization,
    GroundedQA,
    HighlightDetection,
    MomentRetrieval,
    Soda,
    TemporalGrounding,
    VideoHighlights,
)

METRICS = {
    "grounding": TemporalGrounding,
    "localization": EventLocalization,
    "retrieval": MomentRetrieval,
    "highlights": HighlightDetection,
    "videos": VideoHighlights,
    "questions": GroundedQA,
    "etbench": ETBench,
    "soda": partial(Soda, "d", "best"),
    "videomind": VideoMind,
    "cgbench": partial(VideoMind, cgbench=True),
    "official grounding": partial(TemporalGrounding, "official"),
    "official localization": partial(EventLocalization, "official"),
}


def columns(name: str, seed: int = 0) -> list[list]:
    """Query ids and the other arguments of ``update`` for 23 queries."""
    name = name.removeprefix("official ")
    rng = np.random.default_rng(seed)
    ids = [f"q{i}" for i in range(23)]

    def windows(least: int) -> list[list[float]]:
        starts = rng.uniform(0, 100, rng.integers(least, 5))
        return [[float(start), float(start + rng.uniform(1, 60))] for start in starts]

    predicted, targets = [windows(0) for _ in ids], [windows(1) for _ in ids]
    predicted[3] = None
    clips = [rng.integers(0, 5, (12, 3)) for _ in ids]
    saliency = [rng.integers(0, 4, 12).astype(float).tolist() for _ in ids]
    text = [" and ".join(f"{a:.1f} - {b:.1f}" for a, b in p or []) for p in predicted]
    samples = [
        {"task": task, "source": f"s{i % 2}", "video": q, "a": a, "tgt": t if task == "tal" else t[0]}
        for i, (q, a, t, task) in enumerate(zip(ids, text, targets, ["tal", "tvg", "epm"] * 8, strict=False))
    ]
    ranked = [
        {
            "pred": p or [],
            "span": t,
            "conf": [0.5] * 5,
            "response": "(A) run",
            "ans": "AB"[i % 2],
            "options": ["x", "y"],
        }
        for i, (p, t) in enumerate(zip(predicted, targets, strict=True))
    ]
    return {
        "grounding": [ids, predicted, targets],
        "localization": [ids, predicted, targets],
        "retrieval": [ids, [p and [[*w, float(rng.random())] for w in p] for p in predicted], targets],
        "highlights": [ids, [None, *saliency[1:]], clips],
        "videos": [ids, saliency, clips, ["dog" if i % 3 else "surf" for i in range(len(ids))]],
        "questions": [
            ids,
            [p[0] if p else None for p in predicted],
            targets,
            [(i % 3, int(rng.integers(0, 3))) for i in range(len(ids))],
        ],
        "etbench": [ids, samples],
        "soda": [ids, captioned(predicted), [captioned([t, t[:1]]) for t in targets]],
        "videomind": [ids, ranked],
        "cgbench": [ids, ranked],
    }[name]


def captioned(stories: list) -> list:
    """Windows as events."""
    return [story and [[*window, ""] for window in story] for story in stories]


def feed(metric, data: list[list], order, batch: int):
    """Update in batches of the given order; returns the result as floats."""
    for start in range(0, len(order), batch):
        part = order[start : start + batch]
        metric.update(*([column[i] for i in part] for column in data))
    return {key: float(value) for key, value in metric.compute().items()}


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[key], b[key], equal_nan=True) for key in a)


@pytest.mark.parametrize("name", METRICS)
def test_batches_order_repeats_and_pickling_change_nothing(name):
    data = columns(name)
    order = list(range(23))
    expected = feed(METRICS[name](), data, order, 23)
    assert expected["n"] > 0 and METRICS[name]().higher_is_better
    assert same(feed(METRICS[name](), data, order[::-1], 4), expected)
    assert same(feed(METRICS[name](), data, [*order, *order[:9]], 5), expected)
    half = METRICS[name]()
    half.update(*([column[i] for i in order[:11]] for column in data))
    half = pickle.loads(pickle.dumps(half))
    assert same(feed(half, data, order[11:], 3), expected)
    half.reset()
    with pytest.warns(UserWarning, match="before the ``update``"):
        assert half.compute()["n"] == 0


def test_columns_of_different_length_are_refused():
    with pytest.raises(ValueError, match="2 query ids but 1 values"):
        TemporalGrounding().update(["a", "b"], [[(0, 1)]], [[(0, 1)], [(0, 1)]])


def test_answers_of_one_query_that_differ_do_not_depend_on_order():
    rows = [("a", [(0.0, 4.0)]), ("a", [(0.0, 5.0)])]
    values = []
    for order in (rows, rows[::-1]):
        metric = TemporalGrounding()
        for name, predicted in order:
            metric.update([name], [predicted], [[(0.0, 10.0)]])
        values.append(float(metric.compute()["mIoU"]))
    assert values[0] == values[1] and values[0] in (40.0, 50.0)


def test_captions_are_the_same_in_any_order(java):
    stories = {f"v{i}": [(0, 5 + i, f"a man runs up hill {i}"), (6 + i, 20, "he sits")] for i in range(4)}
    results = []
    for order in (list(stories), list(stories)[::-1]):
        metric = EventCaptions()
        for name in order:
            metric.update([name], [stories[name] if name != "v2" else None], [stories[name]])
        results.append({key: float(value) for key, value in metric.compute().items()})
    assert same(*results)
    assert results[0]["METEOR"] == pytest.approx(75, abs=2) and results[0]["n"] == 4


def test_official_and_sound_metrics_are_the_functions():
    """The policy reaches the function behind the class."""
    seven = [["a"], [[(0.0, 5.0)]], [[(0.0, 10.0)]]]
    values = {}
    for policy in ("sound", "official"):
        metric = EventLocalization(policy)
        metric.update(*seven)
        values[policy] = float(metric.compute()["F1@0.5"])
    assert values == {"sound": 100.0, "official": 0.0}  # 1e-8 in the denominator, strict
    with pytest.raises(ValueError, match="unknown policy"):
        TemporalGrounding("mine")


def test_timechat_captions_count_every_video(java):
    story = [(0, 5, "cut the onion into rings"), (6, 20, "fry it in oil")]
    metric = TimeChatCaptions()
    metric.update(["a", "b"], [story, None], [story, story])
    scores = {name: float(value) for name, value in metric.compute().items()}
    assert scores["F1_Score"] == 0.5 and scores["METEOR"] == pytest.approx(0.5, abs=0.01) and scores["n"] == 2
    assert "CIDER(video idf)" in scores and 0.4 < scores["Para_METEOR"] < 0.9


def worker(rank: int, world: int, folder: str) -> None:
    """One process: its share of the queries (with padding, and nothing on the last of three) and all metrics."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world)
    results = {}
    for name, cls in METRICS.items():
        data = columns(name)
        shares = world if world < 3 else 2
        order = [*range(23), *range(-23 % shares)]  # samplers repeat the first queries to fill the last batch
        share = order[rank::shares] if rank < shares else []
        metric = cls()
        if not share:
            metric._update_count = 1  # no warning about a rank that has nothing
        results[name] = feed(metric, data, share, 3)
        if share:
            before = {key: float(value) for key, value in metric.compute().items()}
            assert same(before, results[name])
    torch.save(results, f"{folder}/rank{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize("world", [1, 2, 3])
def test_any_number_of_processes_gives_the_same_number(tmp_path, world):
    set_forkserver_preload(["torchmetrics"])  # imported once for all of them
    mp.start_processes(worker, (world, str(tmp_path)), nprocs=world, start_method="forkserver")
    expected = {name: feed(cls(), columns(name), list(range(23)), 23) for name, cls in METRICS.items()}
    for rank in range(world):
        results = torch.load(tmp_path / f"rank{rank}.pt", weights_only=True)
        for name in METRICS:
            assert same(results[name], expected[name]), (rank, name)
