"""Shards: what goes in comes out, and no damage goes unnoticed."""

import io
import json
import os
import pickle
import re
import signal
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader
from webdataset.tariterators import base_plus_ext

from datamodules.records import FeatureHeader, member_id, member_key
from datamodules.schema import Video
from datamodules.shards import ShardReader
from datamodules.streaming import stream
from preparation.features import commands
from preparation.features.shard_writer import ShardWriter
from preparation.features.verification import verify

HEADER = FeatureHeader("clip", "image_embeds", "224", "uniform 4", width=8)


def video(name: str, width: int = 8, **changes) -> Video:
    random = np.random.default_rng(len(name) * 1000 + sum(map(ord, name)))
    about = {"duration_s": 10.1, "frame_times_s": np.linspace(0, 9.9, 4), "source": f"{name}.mp4"} | changes
    return Video(name, features=random.normal(size=(4, width)).astype(np.float16), **about)


def write(folder: Path, names, max_records: int = 3) -> Path:
    with ShardWriter(folder, HEADER, max_records) as writer:
        for name in names:
            writer.add(video(name))
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def spoil(tar: Path, at: int, damage: bytes) -> None:
    with open(tar, "r+b") as file:
        file.seek(at)
        file.write(damage)


def place(folder: Path, number: int, record: int, member: str) -> int:
    index = json.loads((folder / f"shard-{number:06d}.index.json").read_text())
    return index["records"][record]["members"][member][0]


@pytest.fixture
def folder(tmp_path) -> Path:
    return write(tmp_path / "shards", [f"v{number}" for number in range(7)])


names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60) | st.text("./%~ -_\\é", min_size=1)


@given(names)
def test_key_is_reversible_and_a_webdataset_key(name):
    key = member_key(name)
    assert member_id(key) == name
    assert base_plus_ext(f"{key}.features.npy") == (key, "features.npy")


@settings(max_examples=20, deadline=None)
@given(st.lists(names, min_size=1, max_size=7, unique=True))
def test_round_trip(tmp_path_factory, ids):
    folder = write(tmp_path_factory.mktemp("shards"), ids)
    reader = pickle.loads(pickle.dumps(ShardReader(folder)))
    assert reader.ids == ids
    assert [reader.shard_of(name) for name in ids] == [number // 3 for number in range(len(ids))]
    streamed = list(stream([str(path) for path in sorted(folder.glob("*.tar"))], header=HEADER))
    for name, item in zip(ids, streamed, strict=True):
        for found in (reader.read(name), item.video):
            expected = video(name)
            assert (found.id, found.duration_s, found.source) == (name, expected.duration_s, expected.source)
            np.testing.assert_array_equal(found.features, expected.features, strict=True)
            np.testing.assert_array_equal(found.frame_times_s, expected.frame_times_s, strict=True)
    assert verify(folder).problems == ()


def test_patches_and_attention(tmp_path):
    header = replace(HEADER, patches="last", patch_count=5, patch_width=6, cls_attention="last")
    patches, attention = np.ones((4, 5, 6), np.float16), np.full((4, 5), 0.2, np.float16)
    with ShardWriter(tmp_path, header) as writer:
        writer.add(video("a", patches=patches, cls_attention=attention))
        with pytest.raises(ValueError, match=r"patches has shape None.*\(4, 5, 6\)"):
            writer.add(video("b"))
    found = ShardReader(tmp_path).read("a")
    np.testing.assert_array_equal(found.patches, patches, strict=True)
    np.testing.assert_array_equal(found.cls_attention, attention, strict=True)


def test_reading_goes_on_after_a_fork(folder):
    reader = ShardReader(folder)
    reader.read("v0")  # opens a file before the fork
    loader = DataLoader(
        reader.ids, num_workers=2, collate_fn=lambda ids: reader.read(ids[0]), multiprocessing_context="fork"
    )
    for name, found in zip(reader.ids, loader, strict=True):
        np.testing.assert_array_equal(found.features, video(name).features)


@pytest.mark.parametrize("point", ["_append", "replace tar", "replace shard index", "replace folder index"])
def test_kill_then_resume_gives_identical_shards(tmp_path, folder, point, monkeypatch):
    """SIGKILL at each step of finishing the second shard."""
    names = [f"v{number}" for number in range(7)]

    def die_in_second_shard(*args):
        if len(list((tmp_path / "killed").glob("*.tar"))) == 1 + (
            point in ("replace shard index", "replace folder index")
        ):
            if point == "_append":
                args[0]._file.write(args[1][:700])
                args[0]._file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args)

    suffix = {"replace tar": ".tar", "replace shard index": "1.index.json", "replace folder index": "/index.json"}
    if (child := os.fork()) == 0:
        try:
            if point == "_append":
                real, ShardWriter._append = ShardWriter._append, die_in_second_shard
            else:
                real, ends = os.replace, suffix[point]
                os.replace = lambda a, b: (die_in_second_shard if str(b).endswith(ends) else real)(a, b)
            write(tmp_path / "killed", names)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL

    assert ShardReader(tmp_path / "killed").ids == names[:3]  # nothing half written counts
    with ShardWriter(tmp_path / "killed", HEADER, 3) as writer:
        assert writer.finished_ids == set(names[: 6 if point == "replace folder index" else 3])
        for name in names:
            if name not in writer.finished_ids:
                writer.add(video(name))
    assert content(tmp_path / "killed") == content(folder)


def test_an_error_keeps_the_videos_before_it(tmp_path):
    with pytest.raises(ZeroDivisionError), ShardWriter(tmp_path, HEADER) as writer:
        writer.add(video("a"))
        writer._file.write(b"half a record" * 1000)
        raise ZeroDivisionError
    assert ShardReader(tmp_path).ids == ["a"]
    assert verify(tmp_path).problems == ()


def test_writer_refuses(folder):
    with pytest.raises(ValueError, match=r"width: 9 \(this run\), 8 \(.*shards\)"):
        ShardWriter(folder, replace(HEADER, width=9))
    with ShardWriter(folder, HEADER) as writer:
        with pytest.raises(ValueError, match="another process is writing"):
            ShardWriter(folder, HEADER)
        with pytest.raises(ValueError, match="'v3' is in .* already"):
            writer.add(video("v3"))
        writer.add(video("new"))
        with pytest.raises(ValueError, match="'new' is in .* already"):
            writer.add(video("new"))
        with pytest.raises(ValueError, match=r"shape \(4, 9\).*\(4, 8\)"):
            writer.add(video("wide", width=9))
        with pytest.raises(ValueError, match=r"9\.9 s is after the end at 5 s"):
            writer.add(video("late", duration_s=5))
    assert ShardReader(folder).ids[-1] == "new"


def test_the_name_of_a_numbered_shard_depends_on_what_is_in_it_alone(tmp_path):
    """Whatever was written before, and however much of it; a shard that grows too large goes on in a second part."""
    for name, numbers in (("forth", [0, 1]), ("back", [1, 0])):
        with ShardWriter(tmp_path / name, HEADER, max_bytes=4000) as writer:
            for number in numbers:
                writer.begin(number)
                for member in "abc":
                    writer.add(video(f"{number}{member}"))
    assert content(tmp_path / "forth") == content(tmp_path / "back")
    assert ShardReader(tmp_path / "back").ids == ["0a", "0b", "0c", "1a", "1b", "1c"]
    expected = ["shard-000000.tar", "shard-000000_001.tar", "shard-000001.tar", "shard-000001_001.tar"]
    assert sorted(path.name for path in (tmp_path / "back").glob("*.tar")) == expected


def test_a_leader_collects_what_the_others_wrote(tmp_path):
    with ShardWriter(tmp_path, HEADER) as leader:
        with ShardWriter(tmp_path, HEADER, leads=False) as other:
            other.begin(1)
            other.add(video("b"))
        leader.begin(0)
        leader.add(video("a"))
        leader.finish_shard()
        assert ShardReader(tmp_path).ids == ["a"]
        leader.collect()
        assert ShardReader(tmp_path).ids == ["a", "b"]


def test_spatial_tokens(tmp_path):
    header, tokens = replace(HEADER, spatial="2x3", spatial_count=6), np.ones((6, 8), np.float16)
    with ShardWriter(tmp_path, header) as writer:
        writer.add(video("a", spatial=tokens))
        with pytest.raises(ValueError, match=r"spatial has shape \(5, 8\), the folder's header asks for \(6, 8\)"):
            writer.add(video("b", spatial=tokens[:5]))
        with pytest.raises(ValueError, match="spatial has shape None"):
            writer.add(video("b"))
    np.testing.assert_array_equal(ShardReader(tmp_path).read("a").spatial, tokens, strict=True)
    with pytest.raises(ValueError, match="spatial: '2x3' .*''"):
        header.check_same(HEADER)
    with pytest.raises(ValueError, match=r"spatial must be \(M, D\)"):
        video("a", spatial=tokens[0])
    with pytest.raises(ValueError, match="spatial holds NaN"):
        video("a", spatial=tokens * np.nan)
    spoil(tmp_path / "shard-000000.tar", place(tmp_path, 0, 0, "spatial.npy") + 128, b"\x00\x7c")  # infinity
    assert any("spatial holds NaN or infinity" in problem.what for problem in verify(tmp_path).problems)


def test_headers_with_the_same_weights_may_differ_in_name():
    here, there = replace(HEADER, encoder_sha256="ab"), replace(HEADER, encoder="elsewhere", encoder_sha256="ab")
    here.check_same(there)
    with pytest.raises(ValueError, match="encoder_sha256: 'ab' .train., 'cd' .test."):
        here.check_same(replace(here, encoder_sha256="cd"), "train", "test")
    with pytest.raises(ValueError, match="encoder: 'clip' .*'elsewhere'"):
        here.check_same(replace(there, encoder_sha256=""))


def test_only_what_is_read_of_a_header_is_compared():
    """S-tokens are the same, stored or made of stored patches; what nobody reads makes no difference."""
    made = {"patches": "projected", "patch_count": 9, "patch_width": HEADER.width, "cls_attention": "layer 1 of 2"}
    source = "projected; layer 1 of 2"
    stored = replace(HEADER, spatial="2x3", spatial_count=6, spatial_source=source)
    patches = replace(HEADER, **made)
    for one, other in ((HEADER, stored), (HEADER, patches), (patches, stored)):
        one.read_as().check_same(other.read_as())
    patches.read_as(spatial="2x3").check_same(stored.read_as(spatial="2x3"))
    patches.read_as(patches=True).check_same(replace(patches, cls_attention="").read_as(patches=True))
    with pytest.raises(ValueError, match="spatial_source: 'projected; layer 1 of 2' .* 'projected; layer 2 of 2'"):
        other = replace(patches, cls_attention="layer 2 of 2")
        stored.read_as(spatial="2x3").check_same(other.read_as(spatial="2x3"))
    with pytest.raises(ValueError, match="patches: 'projected' .*patch_count: 9 .* 0"):
        patches.read_as(patches=True).check_same(HEADER.read_as(patches=True))
    with pytest.raises(ValueError, match="sampling: "):
        patches.read_as().check_same(replace(HEADER, sampling="1.0 fps").read_as())


def test_no_index(tmp_path):
    for function in (ShardReader, verify):
        with pytest.raises(FileNotFoundError, match="index.json is missing"):
            function(tmp_path)


def test_shard_outside_the_folder(folder):
    text = (folder / "index.json").read_text()
    (folder / "index.json").write_text(text.replace("shard-000000.tar", "../shard-000000.tar"))
    with pytest.raises(ValueError, match="outside the folder"):
        ShardReader(folder)


def test_absent_video(folder):
    with pytest.raises(ValueError, match="no video 'v99'"):
        ShardReader(folder).read("v99")


def test_missing_shard(folder):
    (folder / "shard-000001.tar").unlink()
    with pytest.raises(FileNotFoundError, match="shard-000001.tar is missing; copy it again"):
        ShardReader(folder)
    problems = verify(folder).problems
    assert [(problem.file, problem.what) for problem in problems] == [("shard-000001.tar", "missing")]


def test_truncated_shard(folder):
    tar = folder / "shard-000000.tar"
    size = tar.stat().st_size
    os.truncate(tar, size - 2000)
    with pytest.raises(ValueError, match=f"{tar} has {size - 2000} bytes, its index says {size}.*again"):
        ShardReader(folder)
    with pytest.raises(ValueError, match="truncated"):
        ShardWriter(folder, HEADER)
    problems = verify(folder).problems
    assert any("truncated" in problem.what for problem in problems)
    assert [problem.id for problem in problems if problem.id] == ["v2"]
    with pytest.raises(ValueError, match="shard-000000.tar: damaged shard"):
        list(stream(str(tar)))
    items = list(stream(str(tar), on_error="skip"))
    assert [item.video and item.video.id for item in items] == ["v0", "v1", None]
    assert "the rest of it is lost" in items[-1].skipped[0]


@pytest.mark.parametrize("damage", [b"\xff" * 512, bytes(512)], ids=["garbage", "zeros"])
def test_corrupt_header_in_mid_shard(folder, damage):
    """WebDataset and tarfile take it for the end of the shard and say nothing."""
    tar = folder / "shard-000000.tar"
    spoil(tar, place(folder, 0, 1, "features.npy") - 512, damage)
    with tarfile.open(tar) as archive:
        assert len(archive.getnames()) == 2  # of 6, without an error
    problems = verify(folder).problems
    assert any("checksum" in problem.what for problem in problems)
    assert any("header" in problem.what and not problem.id for problem in problems)
    assert [problem.id for problem in problems if problem.id] == ["v1", "v2"]
    np.testing.assert_array_equal(ShardReader(folder).read("v1").features, video("v1").features)  # by offset
    with pytest.raises(ValueError, match="header"):
        list(stream(str(tar)))
    items = list(stream([str(tar), str(folder / "shard-000001.tar")], on_error="skip"))
    assert [item.video.id for item in items] == ["v0", "v3", "v4", "v5"]
    assert [len(item.skipped) for item in items] == [0, 1, 0, 0]


@pytest.mark.parametrize(
    ("member", "offset", "damage", "message"),
    [
        ("features.npy", 0, b"not numpy", "magic"),
        ("features.npy", 128, np.array([np.nan], np.float16).tobytes(), "features holds NaN"),
        ("video.json", 0, b"???", "Expecting value"),
        ("video.json", 8, b"u", "says that it is 'u1'"),
    ],
)
def test_corrupt_record(folder, member, offset, damage, message):
    spoil(folder / "shard-000000.tar", place(folder, 0, 1, member) + offset, damage)
    with pytest.raises(ValueError, match=rf"shard-000000.tar: record 'v1' \(key v1\) is damaged: .*{message}"):
        ShardReader(folder).read("v1")
    assert [problem.id for problem in verify(folder).problems if message in problem.what] == ["v1"]
    if message != "says that it is 'u1'":
        items = list(stream(str(folder / "shard-000000.tar"), on_error="skip"))
        assert [item.video.id for item in items] == ["v0", "v2"]
        assert message in items[1].skipped[0]


def test_wrong_width_in_a_shard(folder):
    text = (folder / "index.json").read_text()
    (folder / "index.json").write_text(text.replace('"width": 8', '"width": 16'))
    with pytest.raises(ValueError, match=r"shape \(4, 8\), the folder's header asks for \(4, 16\)"):
        ShardReader(folder).read("v0")
    assert len(verify(folder).problems) == 7
    with pytest.raises(ValueError, match="shape"):
        list(stream(str(folder / "shard-000000.tar"), header=ShardReader(folder).header))


def test_duplicate_ids_over_shards(tmp_path, folder):
    other = write(tmp_path / "other", ["v1"])
    for name in ("shard-000000.tar", "shard-000000.index.json"):
        renamed = name.replace("0.", "9.")
        (folder / renamed).write_bytes((other / name).read_bytes().replace(b"shard-000000", b"shard-000009"))
    with ShardWriter(folder, HEADER):  # takes the shard up
        pass
    with pytest.raises(ValueError, match="'v1' is in shard-000000.tar and in shard-000009.tar"):
        ShardReader(folder)
    found = [(problem.id, problem.what) for problem in verify(folder).problems]
    assert ("v1", "the id is also in shard-000000.tar") in found


def test_verify_says_how_many_videos_carry_no_reader(tmp_path, capsys):
    with ShardWriter(tmp_path, HEADER) as writer:
        for name, reader in (("a", "PyAV by keyframe"), ("b", ""), ("c", "")):
            writer.add(replace(video(name), reader=reader))
    assert ShardReader(tmp_path).read("a").reader == "PyAV by keyframe"
    assert verify(tmp_path).unknown_times == 2
    assert commands.verify(tmp_path) == 0
    assert re.search(r"without a reader.*2", " ".join(capsys.readouterr().out.split()))


def test_verify_names_unfinished_shards_and_wrong_counts(folder):
    (folder / "shard-000003.tar.partial").write_bytes(b"")
    index = json.loads((folder / "index.json").read_text())
    index["shards"][0]["records"] = 4
    (folder / "index.json").write_text(json.dumps(index))
    found = {(problem.file, problem.what) for problem in verify(folder).problems}
    assert ("shard-000003.tar.partial", "not in the index: an unfinished shard") in found
    assert ("shard-000000.tar", "index.json counts 4 records, shard-000000.index.json 3") in found


class Bomb:
    """Unpickling this leaves a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_pickles_are_never_decoded(tmp_path):
    witness = tmp_path / "exploded"
    objects = io.BytesIO()
    np.save(objects, np.array([[Bomb(witness)]], dtype=object), allow_pickle=True)
    about = b'{"id": "a", "duration_s": 1, "frame_times_s": [0]}'
    bomb, tar = pickle.dumps(Bomb(witness)), tmp_path / "evil.tar"
    with tarfile.open(tar, "w") as archive:
        for name, data in [
            ("a.features.npy", objects.getvalue()),
            ("a.video.json", about),
            ("b.features.pyd", bomb),
            ("b.features.npy", bomb),
            ("b.video.pkl", bomb),
            ("b.video.json", about),
        ]:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    items = list(stream(str(tar), on_error="skip"))
    assert [item.video for item in items] == [None]
    assert len(items[0].skipped) == 2
    assert not witness.exists()
    np.load(io.BytesIO(objects.getvalue()), allow_pickle=True)
    assert witness.exists()  # the bomb was live


def test_verify_names_foreign_members(folder):
    tar = folder / "shard-000002.tar"
    with tarfile.open(tar, "a") as archive:
        archive.addfile(tarfile.TarInfo("v6.evil.pkl"))
    assert any("v6.evil.pkl" in problem.what for problem in verify(folder).problems)


def test_stream_in_workers_loses_no_sample_and_no_skip(folder):
    spoil(folder / "shard-000001.tar", place(folder, 1, 2, "video.json"), b"???")
    urls = [str(path) for path in sorted(folder.glob("*.tar"))]
    items = list(DataLoader(stream(urls, on_error="skip"), batch_size=None, num_workers=2))
    assert sorted(item.video.id for item in items if item.video) == ["v0", "v1", "v2", "v3", "v4", "v6"]
    assert [message.count("'v5'") for item in items for message in item.skipped] == [1]


def test_stream_refuses(tmp_path):
    with pytest.raises(ValueError, match="allow_pipe=True"):
        stream(f"pipe:touch {tmp_path}/pwned")
    with pytest.raises(ValueError, match="allow_pipe=True"):
        stream([f"{tmp_path}/a.tar", f" pipe:touch {tmp_path}/pwned"])
    with pytest.raises(ValueError, match="no URL"):
        stream([])
    with pytest.raises(ValueError, match="'fail' or 'skip'"):
        stream("a.tar", on_error="ignore")
    with pytest.raises(ValueError, match="No such file"):
        list(stream(f"{tmp_path}/none.tar"))
    assert not (tmp_path / "pwned").exists()


def test_stream_runs_a_pipe_that_was_allowed(folder):
    items = list(stream(f"pipe:cat {folder}/shard-000000.tar", allow_pipe=True))
    assert [item.video.id for item in items] == ["v0", "v1", "v2"]
