"""What the indices of a large folder of shards say is read once, and mapped from then on."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from datamodules import kept, shard_table, shards
from datamodules.name_table import NameTable
from datamodules.records import FeatureHeader
from datamodules.schema import Video
from datamodules.shard_index import read_places
from datamodules.shards import ShardReader
from preparation.features.shard_writer import ShardWriter

HEADER = FeatureHeader("clip", "image_embeds", "224", "uniform 2", width=3)
IDS = ["a", "deep/b", "ä", "deep/c", "other/c", "z.mp4", "deep/er/b"]


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty folder of kept tables; every folder of shards is large enough to have one."""
    monkeypatch.setattr(kept, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(kept, "KEPT_FROM", 0)
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path) -> Path:
    with ShardWriter(tmp_path / "shards", HEADER, max_records=3) as writer:
        for number, name in enumerate(IDS):
            writer.add(Video(name, 1.5 + number, np.arange(2.0) / 2, np.full((2, 3), number, np.float16)))
    return tmp_path / "shards"


def facts(reader: ShardReader) -> list:
    found = [reader.ids, len(reader), "b" in reader, "c" in reader, "er/b" in reader, reader.remedy("c")]
    found += [reader.shard_of(name) for name in reader.ids]
    found += [(video.id, video.duration_s, video.features.tolist()) for video in map(reader.read, reader.ids)]
    return [*found, *map(reader.duration_s, reader.ids)]


def test_a_kept_table_is_what_the_indices_say(folder, cache, monkeypatch):
    monkeypatch.setattr(kept, "KEPT_FROM", 1 << 30)
    plain = facts(ShardReader(folder))
    assert plain[0] == IDS
    monkeypatch.setattr(kept, "KEPT_FROM", 0)
    assert facts(ShardReader(folder)) == plain
    monkeypatch.setattr(shard_table, "read_places", lambda *_: pytest.fail("an index was read again"))
    reader = ShardReader(folder)
    assert facts(reader) == plain
    assert isinstance(reader._table.at.base, np.memmap)
    sent = pickle.dumps(reader)
    assert len(sent) < 3000
    assert facts(pickle.loads(sent)) == plain


def test_entries_are_those_of_the_index(folder, cache):
    tar = folder / "shard-000001.tar"
    records = read_places(tar, tar.stat().st_size)
    table = ShardReader(folder)._table
    found = [table.record(table.names.ids.find(record["id"])) for record in records]
    assert [{**one, "members": {k: list(v) for k, v in one["members"].items()}} for one in found] == [
        {"id": record["id"], "members": {k: list(v) for k, v in record["members"].items()}} for record in records
    ]


def test_an_index_that_changes_is_read_again(folder, cache):
    ShardReader(folder)
    with ShardWriter(folder, HEADER, max_records=3) as writer:
        writer.add(Video("new", 1.0, np.zeros(1), np.zeros((1, 3), np.float16)))
    assert ShardReader(folder).ids == [*IDS, "new"]


@pytest.mark.parametrize("ending", [".json", ".at.npy", ".text.npy", ".nested.npy"])
def test_a_damaged_table_is_made_anew(ending, folder, cache):
    ShardReader(folder)
    (file,) = cache.glob(f"*{ending}")
    file.write_bytes(file.read_bytes()[:-3])
    assert ShardReader(folder).ids == IDS
    (folder / "shard-000000.index.json").unlink()
    with pytest.raises(FileNotFoundError, match="shard-000000.index.json is missing"):
        ShardReader(folder)


@pytest.mark.parametrize("large", [False, True])
def test_lengths_of_many_videos(large, folder, cache, monkeypatch):
    """They are read once, and again where a shard was written again; a damaged record has none."""
    monkeypatch.setattr(kept, "KEPT_FROM", 0 if large else 1 << 30)
    asked, _ = NameTable.of(["b", "a", "er/b", "ä", "none"])
    tar = folder / "shard-000000.tar"
    (place,) = (record["members"]["video.json"][0] for record in read_places(tar, 1 << 30) if record["id"] == "a")

    def lengths() -> dict:
        reader = ShardReader(folder)
        places = reader.places(asked)
        found = iter(reader.durations_s(places[places >= 0]).tolist())
        shard = iter(reader.shards_at(places[places >= 0]).tolist())
        return {name: (next(found), next(shard)) if place >= 0 else None for name, place in zip(asked, places)}  # noqa: B905

    whole = {"a": (1.5, 0), "ä": (3.5, 0), "er/b": (7.5, 2), "b": None, "none": None}
    assert lengths() == whole
    if large:
        monkeypatch.setattr(shards, "decode_duration", lambda *_: pytest.fail("a length was read again"))
        assert lengths() == whole
        monkeypatch.undo()
        monkeypatch.setattr(kept, "CACHE", cache)
        monkeypatch.setattr(kept, "KEPT_FROM", 0)
    with open(tar, "r+b") as file:
        file.seek(place)
        file.write(b"?")
    os.utime(tar, ns=(0, 0))
    assert np.isnan(lengths()["a"][0])
