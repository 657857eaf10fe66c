"""Streams that are shared out over processes and workers."""

from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import pytest
from torch.utils.data import DataLoader

from datamodules.query_files import read_queries, write_queries
from datamodules.sources import Skipped, Source, StreamedDialogues


@pytest.fixture
def streamed(world):
    """Ids of examples, streamed from the one shard of the world."""

    def make(queries: int | Path) -> StreamedDialogues:
        (tar,) = Path(world / "videos").glob("*.tar")
        names = SimpleNamespace(example=lambda query, video, random: query.id)
        path = world / f"stage{queries}.jsonl" if isinstance(queries, int) else queries
        return StreamedDialogues(Source(f"file://{tar}", path), names, 0, "fail")

    return make


def test_a_worker_without_a_shard_leaves_the_work_to_the_others(streamed, world):
    wanted = sorted(query.id for query in read_queries(world / "stage2.jsonl"))
    found = list(islice(DataLoader(streamed(2), batch_size=None, num_workers=2), 2 * len(wanted)))
    assert sorted(found[: len(wanted)]) == sorted(found[len(wanted) :]) == wanted


def test_a_stream_refuses_or_counts_videos_of_another_length_than_annotated(streamed, world, tmp_path):
    queries, seen = list(read_queries(world / "stage2.jsonl")), set()
    for place, query in enumerate(queries):
        if query.video not in seen:
            queries[place] = replace(query, duration_s=1000.0)
            seen.add(query.video)
    write_queries(tmp_path / "other.jsonl", queries)
    dataset = streamed(tmp_path / "other.jsonl")
    with pytest.raises(ValueError, match=r"other\.jsonl: query .*: 1000 s in the annotation and .* in the features"):
        next(iter(dataset))
    dataset.on_error = "skip"
    skipped = [found for found in islice(dataset, len(queries)) if isinstance(found, Skipped)]
    assert len(skipped) == len(seen)


def test_a_stream_asks_of_each_video_what_the_file_says_in_its_order(streamed, world):
    dataset, expected = streamed(2), {}
    for query in read_queries(world / "stage2.jsonl"):
        expected.setdefault(query.video, []).append(query)
    assert {video: list(dataset.queries.of(video)) for video in expected} == expected
    assert list(dataset.queries.of("another")) == []
    assert len(dataset.queries.all) == sum(map(len, expected.values()))


def test_a_worker_whose_videos_have_no_query_says_so(streamed):
    with pytest.raises(ValueError, match=r"no video of .*tar has a query in .*stage1\.jsonl"):
        next(iter(DataLoader(streamed(1), batch_size=None, num_workers=2)))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_process_without_a_shard_says_so(streamed, monkeypatch, workers):
    """It would keep the other processes waiting for ever."""
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="it needs at least one shard"):
        next(iter(DataLoader(streamed(2), batch_size=None, num_workers=workers)))
