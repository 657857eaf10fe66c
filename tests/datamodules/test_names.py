"""Features and annotations meet by id, also where videos lie in nested folders."""

import json
from pathlib import Path

import numpy as np
import pytest

from datamodules.names import VideoNames
from datamodules.opening import open_sources
from datamodules.records import FeatureHeader
from datamodules.schema import Video
from datamodules.shards import ShardReader
from datamodules.sources import Source
from datamodules.splicing import Splicer
from preparation.annotations.conversion import convert
from preparation.features.decoding import find_sources
from preparation.features.shard_writer import ShardWriter


def test_a_name_is_an_id_or_the_end_of_one_alone():
    names = VideoNames(["flat", "et/tacos/s1", "et/queryd/s1", "et/queryd/s2", "s3", "x/s3", "y/s3"])
    assert names.find("flat") == "flat"
    assert names.find("et/tacos/s1") == names.find("tacos/s1") == "et/tacos/s1"
    assert names.find("s2") == "et/queryd/s2"
    assert names.find("s3") == "s3"  # the whole id goes before
    for name in ("s1", "none", "iryd/s2", "2", "tacos/flat", "tacos"):
        assert names.find(name) is None
    assert "'et/queryd/s1' or 'et/tacos/s1'" in names.remedy("s1", "other")
    assert "there is a 'flat'" in names.remedy("tacos/flat", "other")
    assert names.remedy("none", "other") == "other"


@pytest.fixture
def nested(tmp_path) -> Path:
    """Videos in folders, two of them with one name."""
    for file in ("tacos/s1.mp4", "queryd/s1.mp4", "queryd/ab.c_1.0_2.0.mp4", "flat.mp4"):
        path = tmp_path / "videos" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "videos"


def test_ids_are_paths_below_the_folder(nested, tmp_path):
    assert [s.id for s in find_sources(nested)[0]] == ["flat", "queryd/ab.c_1.0_2.0", "queryd/s1", "tacos/s1"]
    (tmp_path / "list.txt").write_text(f"videos/tacos/s1.mp4\n../elsewhere/a.mp4\n{nested}/flat.mp4\n/x/y/b.mp4\n")
    assert [source.id for source in find_sources(tmp_path / "list.txt")[0]] == [
        "videos/tacos/s1",
        "a",
        "videos/flat",
        "b",
    ]
    assert [source.id for source in find_sources(nested / "tacos" / "s1.mp4")[0]] == ["s1"]


@pytest.fixture
def shards(nested, tmp_path) -> Path:
    with ShardWriter(tmp_path / "shards", FeatureHeader("e", "image_embeds", "p", "uniform 2", 3)) as writer:
        for number, source in enumerate(find_sources(nested)[0]):
            features = np.full((2, 3), number, np.float16)
            writer.add(Video(source.id, 20.0 + number, np.array([0.0, 9.0]), features))
    return tmp_path / "shards"


def et(video: str, duration_s: float) -> dict:
    turns = [{"from": "human", "value": "<image>\nFind it."}, {"from": "gpt", "value": "<vid> - <vid>"}]
    return {
        "task": "tvg",
        "source": "tacos",
        "video": video,
        "duration": duration_s,
        "tgt": [5, 9],
        "conversations": turns,
    }


def bench(video: str, duration_s: float) -> dict:
    about = {"version": 1.0, "idx": 0, "task": "tvg", "source": "tacos", "video": video}
    return about | {"duration": duration_s, "tgt": [5, 9], "q": "Find it."}


@pytest.mark.parametrize(("name", "row"), [("et_instruct", et), ("etbench", bench)])
def test_et_datasets_meet_their_features(shards, tmp_path, name, row):
    path = tmp_path / "a.json"
    path.write_text(json.dumps([row("tacos/s1.mp4", 23.0), row("queryd/s1.mp4", 22.0) | {"idx": 1}]))
    found = convert(name, path, "fail", shards)
    assert [ShardReader(shards).duration_s(query.video) for query in found.queries] == [23.0, 22.0]
    path.write_text(json.dumps([row("other/flat.mp4", 20.0)]))
    with pytest.raises(
        ValueError, match="video without features in .*there is a 'flat', whose id does not say the fold"
    ):
        convert(name, path, "fail", shards)


def test_a_name_without_its_folder_is_found_or_refused(shards, tmp_path):
    record = {"id": "q", "task": "grounding", "text": "x", "events": [{"start_s": 1, "end_s": 2}]}
    path = tmp_path / "q.jsonl"
    path.write_text(json.dumps(record | {"video": "ab.c_1.0_2.0"}))
    (((reader, query),),), _ = open_sources([Source(str(shards), path)], Splicer(0).reads, "fail")
    assert (reader.read(query.video).id, reader.shard_of(query.video)) == ("queryd/ab.c_1.0_2.0", 0)
    path.write_text(json.dumps(record | {"video": "s1"}))
    with pytest.raises(ValueError, match=r"q.jsonl: query 'q' .* may be 'queryd/s1' or 'tacos/s1'.*on_error: skip"):
        open_sources([Source(str(shards), path)], Splicer(0).reads, "fail")
    with pytest.raises(ValueError, match="has no video 's1' .3 others.|may be 'queryd/s1' or 'tacos/s1'"):
        ShardReader(shards).read("s1")


def test_a_duration_is_read_without_the_features(shards, monkeypatch):
    reader, read = ShardReader(shards), []
    pread = ShardReader._pread
    monkeypatch.setattr(ShardReader, "_pread", lambda self, *args: read.append(args[2]) or pread(self, *args))
    assert [reader.duration_s(name) for name in reader.ids] == [20.0, 21.0, 22.0, 23.0]
    assert max(read) < 200  # bytes
    monkeypatch.setattr(ShardReader, "_pread", lambda *args: b'{"duration_s": "20"}')
    with pytest.raises(ValueError, match=r"shard-000000\.tar: record 'flat' .* is damaged"):
        reader.duration_s("flat")
    with pytest.raises(ValueError, match="no video 'none'"):
        reader.duration_s("none")
