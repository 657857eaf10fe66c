"""From files to batches: mixtures, sharing out, and what is said about bad input."""

import json
import os
from dataclasses import replace
from pathlib import Path
from random import Random
from types import SimpleNamespace

import pytest
import torch

from datamodules.chat import IGNORE, chat_format
from datamodules.dialogue import Dialogue
from datamodules.query_files import read_queries
from datamodules.shards import ShardReader
from datamodules.sources import Source
from datamodules.temporal import TemporalDataModule
from localizers.text_timestamps import TextTimestamps
from models.checkpoints import load_tokenizer
from preparation.features.shard_writer import ShardWriter


@pytest.fixture(scope="module")
def dialogue(llm) -> Dialogue:
    return Dialogue(load_tokenizer(llm), chat_format("vicuna_v1"), TextTimestamps())


@pytest.fixture
def module(dialogue):
    """A data module with a trainer that knows rank and world size, and the limit of an epoch."""

    def make(rank: int = 0, world_size: int = 1, limit: int | float | None = None, **settings) -> TemporalDataModule:
        settings = {"batch_size": 4, "num_workers": 0} | settings
        made = TemporalDataModule(settings.pop("dialogue", dialogue), **settings)
        progress = SimpleNamespace(current=SimpleNamespace(ready=0))
        loop = SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=progress))
        made.trainer = SimpleNamespace(
            global_rank=rank, world_size=world_size, limit_train_batches=limit, fit_loop=loop
        )
        return made

    return make


@pytest.fixture
def sources(world) -> dict[int, Source]:
    kinds = {1: "images", 2: "videos", 3: "videos"}
    return {stage: Source(str(world / kind), world / f"stage{stage}.jsonl") for stage, kind in kinds.items()}


def evaluated(world):
    return Source(str(world / "videos"), world / "test" / "grounding.jsonl")


def write(path: Path, records: list[dict]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def grounding(number: int, video: str = "train00000", **changes) -> dict:
    event = {"start_s": 1.0, "end_s": 3.0}
    record = {"id": f"q{number}", "video": video, "task": "grounding", "text": "a robot jumps", "events": [event]}
    return record | changes


def ids(batches) -> list[str]:
    return [query.id for batch in batches for query in batch.queries]


def test_images_and_videos_mix(module, sources, world):
    """Table 2, "I+V": pictures of one frame and videos of many in the same batches."""
    batches = list(module(train=[sources[1], sources[3]], batch_size=8).train_dataloader())
    expected = [query.id for stage in (1, 3) for query in read_queries(world / f"stage{stage}.jsonl")]
    assert sorted(ids(batches)) == sorted(expected)
    widths = [set(batch.feature_mask.sum(1).tolist()) for batch in batches]
    assert {1, 16} in widths
    for batch in batches:
        assert torch.equal(batch.frame_mask.sum(1), batch.feature_mask.sum(1))
        assert (batch.features[~batch.feature_mask] == 0).all()
        assert (batch.labels[batch.frame_mask] == IGNORE).all()
        assert ((batch.labels != IGNORE).sum(1) > 0).all()


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_ranks_share_the_samples_and_padding_teaches_nothing(module, sources, world, world_size):
    shares = [list(module(rank, world_size, train=[sources[2]]).train_dataloader()) for rank in range(world_size)]
    assert len({len(share) for share in shares}) == 1
    taught = [
        query.id
        for share in shares
        for batch in share
        for query, labels in zip(batch.queries, batch.labels, strict=True)
        if (labels != IGNORE).any()
    ]
    assert sorted(taught) == sorted(query.id for query in read_queries(world / "stage2.jsonl"))
    everything = [query for share in shares for query in ids(share)]
    assert len(everything) == -(-20 // world_size) * world_size


def test_order_and_wording_depend_on_seed_and_epoch_alone(module, sources):
    def epochs(**settings):
        loader = module(train=[sources[2]], **settings).train_dataloader()
        return [[batch.input_ids for batch in loader] for e in (0, 1) if loader.batch_sampler.set_epoch(e) is None]

    first, again, parallel, other = epochs(), epochs(), epochs(num_workers=2), epochs(seed=1)
    same = lambda a, b: all(map(torch.equal, a, b))  # noqa: E731
    for epoch in (0, 1):
        assert same(first[epoch], again[epoch])
        assert same(first[epoch], parallel[epoch])
        assert not same(first[epoch], other[epoch])
    assert not same(*first)


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("size", [1, 4, 100])
def test_every_question_is_asked(module, world, world_size, size):
    source = evaluated(world)
    shares = [
        list(module(rank, world_size, test=[source], eval_batch_size=size).test_dataloader())
        for rank in range(world_size)
    ]
    assert len({len(share) for share in shares}) == 1
    asked = {query for share in shares for query in ids(share)}
    assert asked == {query.id for query in read_queries(source.queries)}


def test_a_video_of_the_same_name_in_another_folder_is_another_video(module, world, tmp_path):
    reader = ShardReader(world / "videos")
    queries = write(tmp_path / "a.jsonl", [grounding(1)]), write(tmp_path / "b.jsonl", [grounding(2)])
    for name, sign in (("a", 1), ("b", -1)):
        with ShardWriter(tmp_path / name, reader.header) as writer:
            video = reader.read("train00000")
            writer.add(replace(video, features=video.features * sign))
    sources = [Source(str(tmp_path / name), path) for name, path in zip("ab", queries, strict=True)]
    (batch,) = module(test=sources).test_dataloader()
    features = batch.features[batch.video_of_query]
    assert torch.equal(features[0], -features[1])


def test_an_absent_video_is_named_or_counted(module, sources, world, tmp_path):
    queries = write(tmp_path / "some.jsonl", [grounding(1), grounding(2, video="nowhere")])
    source = Source(str(world / "videos"), queries)
    with pytest.raises(ValueError, match=r"some\.jsonl: query 'q2' is about video 'nowhere'.*videos; .*on_error: skip"):
        module(train=[source]).train_dataloader()
    skipping = module(train=[source], on_error="skip")
    assert ids(skipping.train_dataloader()) == ["q1"]
    assert skipping.skipped == {"video not in shards": 1}


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_features_of_another_length_than_annotated_are_refused_or_counted_when_opened(module, world, tmp_path, split):
    stored_s = ShardReader(world / "videos").duration_s("train00000")
    records = [grounding(1, duration_s=stored_s + 1.9), grounding(2, duration_s=3 * stored_s)]
    source = Source(str(world / "videos"), write(tmp_path / "some.jsonl", records))
    message = rf"some\.jsonl: query 'q2' is not about what .*videos holds: .*{3 * stored_s:g} s in the annotation"
    with pytest.raises(ValueError, match=message):
        getattr(module(**{split: [source]}), f"{split}_dataloader")()
    skipping = module(**{split: [source]}, on_error="skip")
    loaders = getattr(skipping, f"{split}_dataloader")()  # of val, one of questions and one of dialogues to learn
    assert all(ids(loader) == ["q1"] for loader in (loaders if split == "val" else [loaders]))
    assert skipping.skipped == {"annotation and features differ in duration": 1}
    write(tmp_path / "some.jsonl", records[1:])
    with pytest.raises(ValueError, match=r"no query to read in .*; annotation and features differ in duration: 1"):
        getattr(module(**{split: [source]}, on_error="skip"), f"{split}_dataloader")()


def test_an_event_outside_its_video_is_named_or_counted(module, world, tmp_path):
    late = grounding(2, events=[{"start_s": 1.0, "end_s": 999.0}])
    source = Source(str(world / "videos"), write(tmp_path / "some.jsonl", [grounding(1), late]))
    with pytest.raises(ValueError, match=r"query q2: event 1\.0\.\.999\.0 s is outside the video of \d+"):
        list(module(train=[source]).train_dataloader())
    (batch,) = module(train=[source], on_error="skip").train_dataloader()
    assert ids([batch]) == ["q1"]
    ((reason, count),) = batch.counts.items()
    assert "outside the video" in reason
    assert count == 1


def test_an_event_that_leaves_the_stated_duration_names_file_and_line(module, world, tmp_path):
    record = grounding(1, duration_s=2.0, events=[{"start_s": 1.0, "end_s": 30.0}])
    source = Source(str(world / "videos"), write(tmp_path / "some.jsonl", [grounding(0), record]))
    with pytest.raises(ValueError, match=r"some\.jsonl, line 2: event 1\.0\.\.30\.0 s is outside the video of 2\.0 s"):
        module(train=[source]).train_dataloader()


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_features_made_differently_are_refused_naming_both(module, world, tmp_path, split):
    reader = ShardReader(world / "videos")
    with ShardWriter(tmp_path / "other", replace(reader.header, encoder="another encoder")) as writer:
        writer.add(reader.read("train00001"))
    sources = [
        Source(str(world / "videos"), write(tmp_path / "a.jsonl", [grounding(1)])),
        Source(str(tmp_path / "other"), write(tmp_path / "b.jsonl", [grounding(2, "train00001")])),
    ]
    with pytest.raises(ValueError, match=r"videos and .*other were made differently: encoder: .*'another encoder'"):
        getattr(module(**{split: sources}), f"{split}_dataloader")()


def test_validation_features_must_be_those_of_training(module, sources, world, tmp_path):
    reader = ShardReader(world / "videos")
    with ShardWriter(tmp_path / "other", replace(reader.header, encoder="another encoder")) as writer:
        writer.add(reader.read("val00000"))
    other = Source(str(tmp_path / "other"), write(tmp_path / "b.jsonl", [grounding(2, "val00000")]))
    made = module(train=[sources[2]], val=[other])
    made.train_dataloader()
    with pytest.raises(ValueError, match="made differently: encoder: .*'another encoder'"):
        made.val_dataloader()
    assert made.header == reader.header


def test_an_empty_file_of_queries_is_refused(module, world, tmp_path):
    (tmp_path / "none.jsonl").write_text("\n\n")
    with pytest.raises(ValueError, match=r"no query to read in .*none\.jsonl"):
        module(train=[Source(str(world / "videos"), tmp_path / "none.jsonl")]).train_dataloader()
    with pytest.raises(ValueError, match="data.train is empty"):
        module().train_dataloader()
    with pytest.raises(FileNotFoundError, match=r"absent\.jsonl"):
        module(train=[Source(str(world / "videos"), tmp_path / "absent.jsonl")]).train_dataloader()
    with pytest.raises(FileNotFoundError, match="nowhere"):
        module(train=[Source(str(tmp_path / "nowhere"), world / "stage2.jsonl")]).train_dataloader()


def test_an_id_used_twice_is_refused(module, world, tmp_path):
    twice = write(tmp_path / "twice.jsonl", [grounding(1), grounding(2), grounding(1)])
    with pytest.raises(ValueError, match=r"twice\.jsonl, line 3: id 'q1' was used in line 1 already"):
        module(train=[Source(str(world / "videos"), twice)]).train_dataloader()


def test_an_id_used_in_two_evaluated_files_is_refused(module, world, tmp_path):
    """Metrics and prediction files count each id once: the second query would vanish."""
    files = [write(tmp_path / f"{name}.jsonl", [grounding(1), grounding(name)]) for name in "ab"]
    sources = [Source(str(world / "videos"), file) for file in files]
    with pytest.raises(ValueError, match=r"b\.jsonl: id 'q1' is used in .*a\.jsonl already"):
        module(val=sources).val_dataloader()
    assert len(ids(module(train=sources).train_dataloader())) == 4  # repeating a source in training is legitimate


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"events": [{"start_s": 3.0, "end_s": 1.0}]}, "end_s must be after start_s"),
        ({"events": [{"start_s": "1", "end_s": 2.0}]}, "start_s must be a number"),
        ({"events": [{"start": 1.0, "end_s": 2.0}]}, "unknown key 'start'"),
        ({"text": " "}, "non-empty text"),
        ({"txet": "a"}, "unknown key 'txet'"),
        ({"task": "guess"}, "unknown task 'guess'"),
    ],
)
def test_a_bad_record_names_file_line_and_key(module, world, tmp_path, change, words):
    bad = write(tmp_path / "bad.jsonl", [grounding(1), grounding(2, **change)])
    with pytest.raises(ValueError, match=rf"bad\.jsonl, line 2: .*{words}"):
        module(train=[Source(str(world / "videos"), bad)]).train_dataloader()


@pytest.fixture
def damaged(world, tmp_path) -> Source:
    """Three videos, two queries about each; the features of the second one are spoilt."""
    reader = ShardReader(world / "videos")
    names = ["train00000", "train00001", "train00002"]
    with ShardWriter(tmp_path / "damaged", reader.header) as writer:
        for name in names:
            writer.add(reader.read(name))
    (tar,) = (tmp_path / "damaged").glob("*.tar")
    index = json.loads(tar.with_suffix(".index.json").read_text())
    with open(tar, "r+b") as file:
        file.seek(index["records"][1]["members"]["features.npy"][0])
        file.write(b"damage")
    records = [grounding(2 * number + i, name) for number, name in enumerate(names) for i in range(2)]
    return Source(str(tmp_path / "damaged"), write(tmp_path / "some.jsonl", records))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_record_fails_with_its_name(module, damaged, workers):
    with pytest.raises(ValueError, match=r"shard-000000\.tar: record 'train00001' .* is damaged"):
        list(module(train=[damaged], num_workers=workers).train_dataloader())


@pytest.mark.parametrize("size", [1, 2, 6])
def test_a_damaged_record_is_counted_whatever_the_batch_size(module, damaged, size):
    """Also where a whole batch is about it, which is the rule in evaluation: queries of one video stand together."""
    made = module(train=[damaged], test=[damaged], batch_size=size, eval_batch_size=size, on_error="skip")
    for loader in (made.train_dataloader(), made.test_dataloader()):
        batches = list(loader)
        assert len(batches) == 6 // size
        assert sorted(ids(batches)) == ["q0", "q1", "q4", "q5"]
        assert sum(batch.counts.total() for batch in batches) == 2
        assert all("train00001" in reason for batch in batches for reason in batch.counts)


def test_a_text_limit_that_cuts_the_video_off_is_refused(module, sources, llm):
    short = Dialogue(load_tokenizer(llm), chat_format("vicuna_v1"), TextTimestamps(), max_text_tokens=5)
    with pytest.raises(ValueError, match="max_text_tokens"):
        list(module(train=[sources[2]], dialogue=short).train_dataloader())


def test_cut_texts_are_counted(module, sources, llm):
    whole = list(module(train=[sources[3]], batch_size=1).train_dataloader())
    lengths = {batch.queries[0].id: len(batch.input_ids[0]) - 15 for batch in whole}  # the video counts as one token
    limit = sorted(lengths.values())[len(lengths) // 2]
    short = Dialogue(load_tokenizer(llm), chat_format("vicuna_v1"), TextTimestamps(), max_text_tokens=limit)
    batches = list(module(train=[sources[3]], batch_size=1, dialogue=short).train_dataloader())
    for batch in batches:
        cut = lengths[batch.queries[0].id] > limit
        assert batch.counts == ({"truncated": 1} if cut else {})
        assert len(batch.input_ids[0]) == min(lengths[batch.queries[0].id], limit) + 15
    assert 0 < sum(batch.counts["truncated"] for batch in batches) < len(batches)


@pytest.fixture
def remote(world) -> Source:
    tars = sorted((world / "videos").glob("*.tar"))
    assert len(tars) == 1
    return Source(f"file://{tars[0]}", world / "stage2.jsonl")


def test_a_stream_gives_every_query_again_and_again(module, remote, dialogue):
    batches = iter(module(train=[remote], limit=5).train_dataloader())
    first, second = ([next(batches) for _ in range(5)] for _ in range(2))
    wanted = sorted(query.id for query in read_queries(remote.queries))
    assert sorted(ids(first)) == sorted(ids(second)) == wanted
    assert ids(first) != ids(second)
    reader = ShardReader(Path(remote.shards.removeprefix("file://")).parent)
    batch = first[0]
    for row, query in enumerate(batch.queries):
        length = int(batch.attention_mask[row].sum())
        example = dialogue.example(query, reader.read(query.video), Random(f"0/0/{query.id}"))
        assert torch.equal(batch.input_ids[row, :length], example.input_ids)
        assert torch.equal(batch.features[row], example.features)


def test_a_stream_needs_a_length_and_stands_alone(module, remote, sources):
    for limit in (None, 1.0):
        with pytest.raises(ValueError, match="set trainer.limit_train_batches"):
            module(train=[remote], limit=limit).train_dataloader()
    with pytest.raises(ValueError, match="cannot be mixed"):
        module(train=[remote, sources[2]], limit=5).train_dataloader()


def test_a_stream_counts_what_it_skips(module, damaged):
    (tar,) = Path(damaged.shards).glob("*.tar")
    source = Source(f"file://{tar}", damaged.queries)
    with pytest.raises(ValueError, match=r"record 'train00001' .*damaged record"):
        next(iter(module(train=[source], limit=1).train_dataloader()))
    batch = next(iter(module(train=[source], limit=1, batch_size=5, on_error="skip").train_dataloader()))
    assert sorted(ids([batch])) == ["q0", "q1", "q4", "q5"]
    assert batch.counts.total() == 1
    late = Path(os.path.dirname(damaged.queries)) / "late.jsonl"
    write(late, [grounding(1), grounding(2, "train00002", events=[{"start_s": 1.0, "end_s": 999.0}])])
    source = Source(source.shards, late)
    batch = next(iter(module(train=[source], limit=1, batch_size=3, on_error="skip").train_dataloader()))
    assert any("outside the video" in reason for reason in batch.counts)


def test_a_stream_without_its_videos_says_so(module, remote, world):
    source = Source(remote.shards, world / "stage1.jsonl")
    with pytest.raises(ValueError, match=r"no video of .*tar has a query in .*stage1\.jsonl"):
        next(iter(module(train=[source], limit=1).train_dataloader()))


@pytest.mark.parametrize("world_size", [1, 2])
def test_queries_of_a_video_share_sequences_and_none_is_lost(module, world, world_size):
    source, seen = evaluated(world), []
    for rank in range(world_size):
        loader = module(rank, world_size, train=[source], queries_per_video=2, batch_size=3).train_dataloader()
        for batch in loader:
            assert batch.blocks is None or 1 <= batch.blocks.max() <= 2
            seen += [query.id for query in batch.queries]
    asked = [query.id for query in read_queries(source.queries)]
    assert set(seen) == set(asked)
    assert world_size > 1 or len(seen) == len(asked)  # a second rank may be handed a group again, as padding


def test_packed_queries_are_worded_as_they_are_alone(module, world):
    """The tokens that are learned are the same, however many queries share a video."""

    def learned(size: int) -> list[int]:
        batches = module(train=[evaluated(world)], queries_per_video=size, batch_size=1).train_dataloader()
        return sorted(label for batch in batches for label in batch.labels.flatten().tolist() if label != IGNORE)

    assert learned(1) == learned(4)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_mixture_draws_what_its_weights_say(module, sources, workers):
    """Images twice, half of the videos, in one order that the seed decides."""
    mixed = [replace(sources[1], weight=2.0), replace(sources[2], weight=0.5)]
    made = module(train=mixed, num_workers=workers)
    loader = made.train_dataloader()
    drawn = ids(loader)
    sizes = [len(list(read_queries(source.queries))) for source in mixed]
    assert [part.draws for _, part in made.mixture] == [2 * sizes[0], sizes[1] // 2]
    counts = [[drawn.count(query.id) for query in read_queries(source.queries)] for source in mixed]
    assert set(counts[0]) == {2}
    assert sorted(counts[1]) == [0] * (sizes[1] // 2) + [1] * (sizes[1] // 2)
    assert ids(module(train=mixed).train_dataloader()) == drawn
    loader.batch_sampler.set_epoch(1)
    assert sorted(ids(loader)) != sorted(drawn)


@pytest.mark.parametrize("weight", [0, -1.0, float("nan"), float("inf")])
def test_a_weight_that_cannot_be_is_refused(sources, weight):
    with pytest.raises(ValueError, match=r"stage2\.jsonl: weight must be positive, got"):
        replace(sources[2], weight=weight)


def test_a_weight_where_none_belongs_is_refused(module, sources, remote):
    with pytest.raises(ValueError, match="only sources of data.train have a weight"):
        module(val=[replace(sources[2], weight=2.0)]).val_dataloader()
    with pytest.raises(ValueError, match="a remote source has no weight"):
        module(train=[replace(remote, weight=2.0)], limit=5).train_dataloader()


def test_a_source_of_which_nothing_is_left_is_no_part_of_the_mixture(module, sources, world, tmp_path):
    empty = Source(str(world / "videos"), write(tmp_path / "none.jsonl", [grounding(1, video="nowhere")]))
    made = module(train=[empty, sources[2]], on_error="skip")
    assert len(ids(made.train_dataloader())) == 20
    assert [source for source, _ in made.mixture] == [sources[2]]
