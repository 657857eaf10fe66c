"""Streams that are shared out over processes and workers."""

from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import pytest
from torch.utils.data import DataLoader

from datamodules.query_files import read_queries
from datamodules.sources import Skipped, Source, StreamedDialogues


@pytest.fixture
def streamed(world):
    """Ids of examples, streamed from the one shard of the world."""

    def make(stage: int) -> StreamedDialogues:
        (tar,) = Path(world / "videos").glob("*.tar")
        names = SimpleNamespace(example=lambda query, video, random: query.id)
        return StreamedDialogues(Source(f"file://{tar}", world / f"stage{stage}.jsonl"), names, 0, "fail")

    return make


def test_a_worker_without_a_shard_leaves_the_work_to_the_others(streamed, world):
    wanted = sorted(query.id for query in read_queries(world / "stage2.jsonl"))
    found = list(islice(DataLoader(streamed(2), batch_size=None, num_workers=2), 2 * len(wanted)))
    assert sorted(found[: len(wanted)]) == sorted(found[len(wanted) :]) == wanted


def test_a_stream_refuses_or_counts_videos_of_another_length_than_annotated(streamed, world):
    dataset = streamed(2)
    for video, (query, *more) in dataset.queries.items():
        dataset.queries[video] = [replace(query, duration_s=1000.0), *more]
    with pytest.raises(ValueError, match=r"stage2\.jsonl: query .*: 1000 s in the annotation and .* in the features"):
        next(iter(dataset))
    dataset.on_error = "skip"
    wanted = sum(map(len, dataset.queries.values()))
    skipped = [found for found in islice(dataset, wanted) if isinstance(found, Skipped)]
    assert len(skipped) == len(dataset.queries)


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
