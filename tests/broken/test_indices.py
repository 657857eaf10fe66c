"""Folders of shards with broken indices and records: each refused by the reader, and reported by verify."""

import json

import pytest
from corpus import HEADER, INDICES, MEMBERS, shards, spoil, write
from hypothesis import given, settings
from hypothesis import strategies as st

import prepare
from datamodules.shards import ShardReader
from datamodules.streaming import stream
from preparation.features.verification import verify


@pytest.mark.parametrize("name", INDICES)
def test_a_broken_index_is_refused_by_the_reader_and_reported_by_verify(name, tmp_path, capsys):
    folder = shards(tmp_path / "shards")
    INDICES[name](folder)
    with pytest.raises((ValueError, OSError)) as error:
        ShardReader(folder)
    assert str(folder) in str(error.value)
    assert prepare.main(["verify", str(folder), "--quiet"]) in (1, 2)
    said = capsys.readouterr()
    assert "traceback in" not in said.err


@pytest.mark.parametrize("name", MEMBERS)
def test_a_broken_record_is_refused_skipped_and_reported(name, tmp_path):
    folder = shards(tmp_path / "shards")
    spoil(folder, *MEMBERS[name])
    reader = ShardReader(folder)
    with pytest.raises(ValueError, match="record 'v0' .* is damaged: .+ prepare.py verify") as error:
        reader.read("v0")
    assert str(folder) in str(error.value)
    assert len(reader.read("v1").features) == 4
    assert any(problem.id == "v0" and problem.what for problem in verify(folder).problems)
    if name == "about with another id":  # a stream knows no other id
        return
    items = list(stream([str(path) for path in sorted(folder.glob("*.tar"))], "skip", HEADER))
    assert [item.video.id for item in items] == ["v1", "v2"]
    assert sum(len(item.skipped) for item in items) == 1


def test_verify_reports_every_kind_at_once(tmp_path, capsys):
    folder = shards(tmp_path / "shards")
    write(folder / "shard-000000.index.json", "null")
    spoil_second = json.loads((folder / "shard-000001.index.json").read_text())
    at, size = spoil_second["records"][0]["members"]["features.npy"]
    with open(folder / "shard-000001.tar", "r+b") as tar:
        tar.seek(at)
        tar.write(b"x" * size)
    problems = verify(folder).problems
    assert {problem.file for problem in problems} == {"shard-000000.tar", "shard-000001.tar"}
    assert any("must be an object" in problem.what for problem in problems)
    assert prepare.main(["verify", str(folder)]) == 1
    assert "shard-000001.tar" in capsys.readouterr().out


def test_checksums_notice_what_readers_cannot(tmp_path):
    folder = shards(tmp_path / "shards")
    spoil(folder, "features.npy", lambda old: old[:-2] + b"\x01\x00")
    assert ShardReader(folder).read("v0").features[-1, -1] != 0
    with pytest.raises(ValueError, match="shard-000000.tar: the checksum differs"):
        ShardReader(folder).check_checksums()
    ShardReader(shards(tmp_path / "whole")).check_checksums()


@settings(max_examples=120, deadline=None)
@given(st.data())
def test_only_errors_about_the_folder_come_out_of_changed_bytes(tmp_path_factory, data):
    """Some bytes of an index or of a record are others: it reads, or says which file is at fault."""
    folder = tmp_path_factory.mktemp("changed")
    shards(folder)
    file = folder / data.draw(st.sampled_from(["index.json", "shard-000000.index.json", "shard-000000.tar"]))
    content = bytearray(file.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, min(len(content), 6000) - 1))] = data.draw(st.integers(0, 255))
    file.write_bytes(bytes(content))
    try:
        reader = ShardReader(folder)
        for name in reader.ids:
            reader.read(name)
    except (ValueError, OSError) as error:
        assert str(folder) in str(error)
    try:
        verify(folder)
    except (ValueError, OSError) as error:
        assert str(folder) in str(error)
