"""Training on video files: the same weights as on shards, whoever encodes, and through an interruption."""

import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import prepare
import train
from datamodules.query_files import write_queries
from datamodules.schema import Event, Query
from datamodules.shards import ShardReader
from datamodules.sources import Source
from models.checkpoints import read_weights
from preparation.features.decoding import Sampling
from preparation.features.decoding import Source as File
from preparation.features.extraction import extract_video
from preparation.features.feature_cache import FeatureCache
from preparation.features.online import Encoding
from preparation.features.shared_encoder import SharedEncoder
from preparation.features.vision_encoder import VisionEncoder
from preparation.world.tiny import tiny_clip

av = pytest.importorskip("av", reason="PyAV renders the videos (extra dev)")
SAMPLING = "uniform 8"


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    """Six films of 3 s, each with its own colours, and what is to be seen in them."""
    folder, queries = tmp_path_factory.mktemp("videos"), []
    for number in range(6):
        random = np.random.default_rng(number)
        with av.open(str(folder / f"film{number}.mp4"), "w") as container:
            stream = container.add_stream("mpeg4", rate=10)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            for _ in range(30):
                pixels = random.integers(0, 256, (6, 8, 3), np.uint8).repeat(8, axis=0).repeat(8, axis=1)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            container.mux(stream.encode())
        events = (Event(0, 1.5, f"a red box {number}"), Event(1.5, 3, "a green box"))
        queries.append(Query(f"q{number}", f"film{number}", "events", events=events, duration_s=3.0))
    write_queries(folder / "queries.jsonl", queries)
    return folder


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("clip")
    tiny_clip(folder, width=8)
    return folder


@pytest.fixture(scope="module")
def shards(videos, clip, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    settings = ["--encoder", str(clip), "--sampling", SAMPLING, "--device", "cpu", "--patches", "true"]
    assert prepare.main(["features", "--videos", str(videos), "--output", str(folder), *settings]) in (0, None)
    return folder


@pytest.fixture
def settings(clip, tmp_path) -> dict:
    return {"encoder": str(clip), "sampling": SAMPLING, "device": "cpu", "patches": True, "cache": tmp_path / "cache"}


@pytest.fixture
def command(arguments, clip, videos, shards):
    """Gives the command line of two epochs of stage 2, on shards or online."""

    def command_line(output: Path, online: bool, *more: str, cache: Path | None = None, steps: int = 4) -> list[str]:
        source = f"shards: '', videos: {videos}" if online else f"shards: {shards}"
        lines = [f"--data.train=[{{{source}, queries: {videos / 'queries.jsonl'}}}]", "--data.batch_size=3"]
        if online:
            lines += ["--data.encoder=preparation.features.online.Encoding", f"--data.encoder.encoder={clip}"]
            lines += [f"--data.encoder.sampling={SAMPLING}", "--data.encoder.device=cpu"]
            lines += ["--data.encoder.patches=true"]
            lines += [f"--data.encoder.cache={cache}"] if cache else []
        return arguments(2, output, *lines, "--model.tune_adapter=true", *more, max_steps=steps)

    return command_line


def same(first: Path, second: Path) -> bool:
    """Whether two runs ended with the same bits."""
    one, two = read_weights(first), read_weights(second)
    assert one.manifest["features"]["width"] == 8
    pairs = [(one.adapter, two.adapter), *zip(one.loras, two.loras, strict=True)]
    tensors = [(a[k], b[k]) for a, b in pairs if isinstance(a, dict) for k in a]
    assert tensors
    return all(torch.equal(a, b) for a, b in tensors) and one.manifest["features"] == two.manifest["features"]


@pytest.mark.parametrize("workers", [0, 2])
def test_training_is_the_same_as_on_shards(command, tmp_path, workers):
    more = f"--data.num_workers={workers}"
    train.main(command(tmp_path / "shards", False, more))
    train.main(command(tmp_path / "online", True, more, cache=tmp_path / "cache"))
    assert same(tmp_path / "shards", tmp_path / "online")
    assert len(list((tmp_path / "cache").glob("*/*.tar"))) == 6


def test_an_interrupted_run_goes_on_exactly(command, whole_and_parts, tmp_path):
    """With what was kept, and without: the second part of the run finds the cache of the first."""
    whole, parts = whole_and_parts(
        lambda folder: command(folder, True, cache=tmp_path / f"cache-{folder.name}", steps=4)
    )
    assert all(torch.equal(whole.adapter[name], parts.adapter[name]) for name in whole.adapter)
    again = command(tmp_path / "none", True, steps=4)
    train.main(again)
    assert all(
        torch.equal(whole.adapter[name], tensor) for name, tensor in read_weights(tmp_path / "none").adapter.items()
    )


def test_a_video_is_encoded_once(settings, videos, shards, monkeypatch):
    calls = []
    monkeypatch.setattr(
        "preparation.features.online.extract_video", lambda *args: calls.append(args[0].id) or extract_video(*args)
    )
    reader, stored = Encoding(**settings).open(videos), ShardReader(shards)
    assert "film1" in reader and "film9" not in reader
    for name in ("film1", "film1", "film2", "film1"):
        found, expected = reader.read(name), stored.read(name)
        np.testing.assert_array_equal(found.features, expected.features)
        np.testing.assert_array_equal(found.patches, expected.patches)
        np.testing.assert_array_equal(found.frame_times_s, expected.frame_times_s)
        assert (found.id, found.duration_s, found.source) == (name, expected.duration_s, expected.source)
    assert calls == ["film1", "film2"]
    assert reader.header == stored.header
    with pytest.raises(ValueError, match="has no video 'film9'; no file of that name"):
        reader.read("film9")
    assert Encoding(**settings).open(videos).duration_s("film2") == 3.0
    assert calls == ["film1", "film2"]  # another run finds it too


def test_a_file_that_changed_or_a_damaged_copy_is_encoded_anew(settings, videos, tmp_path):
    files = tmp_path / "files"
    files.mkdir()
    shutil.copy(videos / "film0.mp4", files / "a.mp4")
    first = Encoding(**settings).open(files).read("a").features
    shutil.copy(videos / "film1.mp4", files / "a.mp4")
    os.utime(files / "a.mp4", (1e9, 1e9))
    second = Encoding(**settings).open(files).read("a").features
    assert not np.array_equal(first, second)
    (kept,) = (tmp_path / "cache").glob("*/*.tar")
    whole = kept.read_bytes()
    for damage in (whole[:1500], b"", whole.replace(b"NUMPY", b"PICKL")):
        kept.write_bytes(damage)
        np.testing.assert_array_equal(Encoding(**settings).open(files).read("a").features, second)
        assert kept.read_bytes() == whole


def test_what_does_not_fit_is_not_kept(settings, videos, tmp_path):
    reader = Encoding(**settings | {"cache_gb": 13e-6}).open(videos)
    for number in range(6):
        reader.read(f"film{number}")
    kept = list((tmp_path / "cache").glob("*/*.tar"))
    assert 0 < len(kept) < 6
    assert sum(path.stat().st_size for path in (tmp_path / "cache").rglob("*") if path.is_file()) < 20_000
    assert not list((tmp_path / "cache").rglob("*.partial"))


def test_features_made_otherwise_do_not_mix_and_are_told_of(settings, videos, tmp_path):
    Encoding(**settings).open(videos).read("film0")
    with pytest.warns(UserWarning, match="made in another way; to make room delete"):
        other = Encoding(**settings | {"sampling": "uniform 4", "cache_gb": 1e-5}).open(videos)
    assert len(other.read("film0").features) == 4
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_a_full_disk_stops_no_training(settings, videos, monkeypatch):
    reader = Encoding(**settings).open(videos)

    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr("preparation.features.feature_cache._write", full)
    with pytest.warns(UserWarning, match="nothing more is kept in .*No space left"):
        reader.read("film0")
    reader.read("film1")


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_of_any_kind_have_their_pixels_encoded_here(settings, videos, shards, start):
    reader = Encoding(**settings | {"cache": None}).open(videos)
    loader = DataLoader(Features(reader), batch_size=None, num_workers=2, multiprocessing_context=start)
    stored = ShardReader(shards)
    for name, found in zip(Features.NAMES, loader, strict=True):
        np.testing.assert_array_equal(found, stored.read(name).features)


class Features:
    NAMES = ("film3", "film0", "film2", "film5")

    def __init__(self, reader):
        self.reader = reader

    def __len__(self):
        return len(self.NAMES)

    def __getitem__(self, place: int) -> np.ndarray:
        assert self.reader._encoder._home != os.getpid()
        return self.reader.read(self.NAMES[place]).features


def test_a_copy_holds_no_weights(settings, videos):
    reader = Encoding(**settings).open(videos)
    assert len(pickle.dumps(reader)) < 20_000


def test_an_encoder_that_fails_is_not_taken_for_a_bad_file(settings, videos, monkeypatch):
    def out_of_memory(*_):
        raise torch.OutOfMemoryError("out of memory")

    reader = Encoding(**settings | {"cache": None}).open(videos)
    monkeypatch.setattr(VisionEncoder, "encode_prepared", out_of_memory)
    loader = DataLoader(Features(reader), batch_size=None, num_workers=1)
    with pytest.raises(RuntimeError, match="the encoder failed: OutOfMemoryError: out of memory"):
        next(iter(loader))


def test_a_bad_file_is_refused_or_counted(command, videos, tmp_path):
    files = tmp_path / "files"
    shutil.copytree(videos, files)
    (files / "film3.mp4").write_bytes(b"<html>")
    more = [f"--data.train=[{{shards: '', videos: {files}, queries: {files / 'queries.jsonl'}}}]"]
    with pytest.raises(ValueError, match=r"film3\.mp4: "):
        train.main(command(tmp_path / "fail", True, *more))
    train.main(command(tmp_path / "skip", True, *more, "--data.on_error=skip"))
    assert (tmp_path / "skip" / "model" / "manifest.json").exists()


@pytest.mark.parametrize(
    ("source", "message"),
    [({}, "either shards or videos"), ({"shards": "a", "videos": "b"}, "either shards or videos"),
     ({"shards": "a"}, "needs queries")],
)  # fmt: skip
def test_a_source_has_shards_or_videos(source, message):
    with pytest.raises(ValueError, match=message):
        Source(**source | ({} if message.endswith("queries") else {"queries": Path("q.jsonl")}))


def test_video_files_without_an_encoder_are_refused(command, videos, tmp_path):
    source = f"--data.train=[{{shards: '', videos: {videos}, queries: {videos / 'queries.jsonl'}}}]"
    with pytest.raises(ValueError, match="set data.encoder to a class path"):
        train.main(command(tmp_path / "run", False, source))


def test_the_cache_alone(tmp_path, settings, videos):
    header = Encoding(**settings).open(videos).header
    cache, file = FeatureCache(tmp_path / "alone", header, 1e9), File("a/b.c", videos / "film0.mp4")
    assert cache.get(file) is None
    video = extract_video(file, SharedEncoder(Encoding(**settings).open(videos)._encoder._encoder), Sampling(frames=8))
    cache.put(file, video)
    assert cache.get(file).id == "a/b.c"
    assert cache.get(File("a/b.c", videos / "film0.mp4", 0.5)) is None
    assert cache.get(File("a/b", videos / "film0.mp4")) is None
