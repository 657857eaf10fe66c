"""A stage that learns to prefer one answer to another."""

import json
from dataclasses import replace
from random import Random

import numpy as np
import pytest
import torch

import train
from datamodules.batch import collate
from datamodules.chat import IGNORE, chat_format
from datamodules.preferences import CHOSEN, REJECTED, Preferences
from datamodules.query_files import query_from_dict, query_to_dict, read_queries, write_queries
from datamodules.schema import Event, Query, Video
from lightning_modules import PreferenceTuning
from lightning_modules.preference_tuning import answers_of, only_chosen
from localizers import EvidenceTokens
from models.checkpoints import load_tokenizer

EVENTS = (Event(2.0, 6.0, "a robot sings"), Event(9.0, 14.0, "a dog jumps"))
QUERY = Query("q", "v", "dense_captioning", events=EVENTS, rejected=EVENTS[:1])


def video() -> Video:
    return Video("v", 20.0, np.arange(20.0), np.ones((20, 8), np.float16))


@pytest.fixture
def preferences(llm) -> Preferences:
    return Preferences(load_tokenizer(llm), chat_format("vicuna_v1"), EvidenceTokens(block=1))


@pytest.fixture(scope="module")
def pairs(world, tmp_path_factory):
    """A file of queries; in each rejected answer the first event is ten seconds off, or is not told."""
    path, made = tmp_path_factory.mktemp("pairs") / "pairs.jsonl", []
    for query in read_queries(world / "stage2.jsonl"):
        first, *more = query.events
        moved = replace(first, start_s=0.0, end_s=first.end_s / 2) if first.start_s else None
        wrong = (moved, *more) if moved else tuple(more)
        if wrong:
            made.append(replace(query, id=f"{query.id}/pair", task="dense_captioning", rejected=wrong))
    write_queries(path, made)
    return path


def command(arguments, world, pairs, output, previous, *more: str) -> list[str]:
    _, *settings = arguments(3, output, previous=previous, max_steps=8)
    data = f"--data.train=[{{shards: {world / 'videos'}, queries: {pairs}}}]"
    return ["--model=PreferenceTuning", *settings, "--model.localizer=EvidenceTokens", "--model.localizer.block=1",
            data, *more]  # fmt: skip


def test_training_makes_the_better_answers_more_likely(arguments, world, pairs, runs, tmp_path, monkeypatch):
    margins, log = [], PreferenceTuning.log

    def keep(self, name, value, **settings):
        if name == "train/preference_margin":
            margins.append(float(value))
        log(self, name, value, **settings)

    monkeypatch.setattr(PreferenceTuning, "log", keep)
    more = "--model.optimization.other_lr=1e-2", "--model.lora.dropout=0", "--model.beta=1.0"
    train.main(command(arguments, world, pairs, tmp_path, runs[1], *more))
    assert len(margins) == 8
    assert np.mean(margins[-3:]) > np.mean(margins[:3])


def test_lines_without_a_rejected_answer_are_refused_before_anything_is_loaded(arguments, world, pairs, runs, tmp_path):
    lines = pairs.read_text().splitlines()
    record = json.loads(lines[1])
    del record["rejected"]
    (tmp_path / "some.jsonl").write_text("\n".join([lines[0], json.dumps(record), *lines[2:]]) + "\n")
    with pytest.raises(ValueError, match=r"some\.jsonl, line 2: no rejected answer"):
        train.main(command(arguments, world, tmp_path / "some.jsonl", tmp_path / "run", runs[1]))
    with pytest.raises(ValueError, match="queries_per_video to 1"):
        train.main(command(arguments, world, pairs, tmp_path / "run", runs[1], "--data.queries_per_video=2"))


def test_localizers_that_do_not_know_how_likely_a_time_is_are_refused(llm):
    from localizers import TextTimestamps

    with pytest.raises(ValueError, match="TextTimestamps does not know how likely a time is"):
        PreferenceTuning(llm, TextTimestamps())


def test_both_answers_stand_behind_one_video_and_one_question(preferences):
    example = preferences.example(QUERY, video(), Random(0))
    assert example.queries == (QUERY,)
    alone = [
        super(Preferences, preferences).example(replace(QUERY, events=events, rejected=()), video(), Random(0))
        for events in (EVENTS, EVENTS[:1])
    ]
    for block, one in zip((CHOSEN, REJECTED), alone, strict=True):
        there = (example.blocks == 0) | (example.blocks == block)
        assert torch.equal(example.input_ids[there], one.input_ids)
        assert torch.equal(example.labels[there], one.labels)
        torch.testing.assert_close(example.moments[there], one.moments, equal_nan=True)
    batch = collate([example], 0)
    assert torch.equal(only_chosen(batch).labels != IGNORE, (batch.labels != IGNORE) & (batch.blocks == CHOSEN))
    assert set(answers_of(batch)[1].tolist()) == {CHOSEN, REJECTED}


def test_a_query_with_one_answer_is_written_once(preferences):
    example = preferences.example(replace(QUERY, rejected=()), video(), Random(0))
    assert example.blocks is None
    batch = collate([example], 0)
    assert set(answers_of(batch)[1].tolist()) == {CHOSEN}
    assert only_chosen(batch) is batch


def test_rejected_events_are_read_and_written():
    record = query_to_dict(QUERY)
    assert record["rejected"] == [{"start_s": 2.0, "end_s": 6.0, "caption": "a robot sings"}]
    assert query_from_dict(record) == QUERY
    assert "rejected" not in query_to_dict(replace(QUERY, rejected=()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rejected": EVENTS}, "rejected must be other events"),
        ({"task": "segment_captioning"}, "rejected must be other events"),
        ({"rejected": (Event(1.0, 2.0),)}, "non-empty caption"),
        ({"rejected": (Event(1.0, 1.0, "a"),)}, "end_s must be after start_s"),
        ({"rejected": (Event(30.0, 31.0, "a"),), "duration_s": 20.0}, "outside the video"),
    ],
)
def test_rejected_events_are_checked(change, message):
    with pytest.raises(ValueError, match=message):
        replace(QUERY, **change)
