"""Many decoders, several processes, kills at any point: always the same shards."""

import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from test_extraction import UNIFORM, render

from command_line.launcher import free_port
from datamodules.shards import ShardReader
from datamodules.spatial_compression import Compression, spatial_tokens
from datamodules.streaming import stream
from preparation.features import decoders
from preparation.features.decoders import Decoders
from preparation.features.decoding import Sampling, Source, decode, find_sources
from preparation.features.encoders import Outputs, load_encoder
from preparation.features.extraction import extract, extract_video
from preparation.features.processes import Processes, launched_processes
from preparation.features.shard_writer import ShardWriter
from preparation.features.throughput import Throughput
from preparation.features.verification import verify
from preparation.world.tiny import tiny_clip

ROOT = Path(__file__).parents[3]
VIDEOS = 11
SIZE = 2
"""Videos in a shard."""


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("clip")
    tiny_clip(folder, width=16)
    return folder


@pytest.fixture(scope="module")
def encoder(clip):
    torch.set_num_threads(1)
    return load_encoder(str(clip), device="cpu")


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    """Eleven videos, and a broken one in the third place."""
    folder = tmp_path_factory.mktemp("videos")
    render(folder / "v00.mp4", 12)
    for number in range(1, VIDEOS):
        render(folder / f"v{number:02d}.mp4", 12 + 2 * number)
    (folder / "v01x.mp4").write_bytes(b"no video")
    return folder


@pytest.fixture(scope="module")
def whole(encoder, videos, tmp_path_factory) -> Path:
    """What one process makes of them, without any trouble."""
    folder = tmp_path_factory.mktemp("whole")
    summary = run(encoder, videos, folder)
    assert (summary.written, summary.present, len(summary.skipped)) == (VIDEOS, 0, 1)
    return folder


def run(encoder, videos: Path, output: Path, processes: Processes = Processes(), **more):  # noqa: B008
    sources, _ = find_sources(videos)
    return extract(sources, encoder, UNIFORM, output, "skip", 3, SIZE, processes=processes, **more)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def in_child(work) -> int:
    """Do something in a forked process; gives its process id."""
    if (child := os.fork()) == 0:
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    return child


def test_shards_hold_what_their_number_says(whole):
    reader = ShardReader(whole)
    assert reader.ids == [f"v{number:02d}" for number in range(VIDEOS)]
    assert sorted(path.name for path in whole.glob("*.tar")) == [f"shard-{k:06d}.tar" for k in range(6)]
    assert [reader.shard_of(name) for name in reader.ids] == [0, 0] + [number // 2 for number in range(3, 12)]
    assert verify(whole).problems == ()


@pytest.mark.parametrize("threads", [1, 4])
def test_the_number_of_decoders_changes_nothing(encoder, videos, whole, tmp_path, threads, monkeypatch):
    monkeypatch.setattr(decoders, "BUFFER_BYTES", 1)  # only the file in front may go on
    run(encoder, videos, tmp_path, decoders=threads)
    assert content(tmp_path) == content(whole)


def test_killed_at_random_five_times(encoder, videos, whole, tmp_path):
    """At any encoding, any write and any renaming; every shard that was finished stays as it is."""
    chance, finished = random.Random(0), 0

    def dying(left: int):
        def before(function):
            def counting(*args, **kwargs):
                nonlocal left
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return function(*args, **kwargs)

            return counting

        type(encoder).encode = before(type(encoder).encode)
        ShardWriter._append = before(ShardWriter._append)
        os.replace = before(os.replace)
        run(encoder, videos, tmp_path)

    for _ in range(5):
        earlier = {name: data for name, data in content(tmp_path).items() if name.endswith(".tar")}
        left = chance.randint(4, 22)
        _, status = os.waitpid(in_child(lambda left=left: dying(left)), 0)
        assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL
        assert earlier.items() <= content(tmp_path).items()
        finished = len(earlier)
    assert 0 < finished < 6
    summary = run(encoder, videos, tmp_path)
    assert 0 < summary.present < VIDEOS
    assert content(tmp_path) == content(whole)


def test_several_processes_make_the_same_shards(encoder, videos, whole, tmp_path, monkeypatch):
    """Three of them; the first attempt loses one in the middle, and two go on."""
    folder = tmp_path / "out"
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")

    def share(rank: int, world: int, port: int, dies: bool):
        environment = {"RANK": str(rank), "WORLD_SIZE": str(world), "MASTER_PORT": str(port)}
        os.environ.update(environment)
        if dies:
            type(encoder).encode = lambda *args: os.kill(os.getpid(), signal.SIGKILL)
        with launched_processes() as processes:
            summary = run(encoder, videos, folder, processes)
        assert (summary.written + summary.present, len(summary.skipped)) == (VIDEOS, 1)
        assert summary.throughput.encoders_s > summary.throughput.wall_s

    def launch(world: int, dying: int | None = None) -> list[int]:
        port = free_port()
        return [in_child(lambda r=rank: share(r, world, port, r == dying)) for rank in range(world)]

    children = launch(3, dying=1)
    os.waitpid(children.pop(1), 0)
    deadline = time.monotonic() + 60
    while len(list(folder.glob("*.index.json"))) < 4 and time.monotonic() < deadline:
        time.sleep(0.05)  # the others finish their four shards, then wait for the one that is gone
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert len(ShardReader(folder)) < VIDEOS
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in launch(2)] == [0, 0]
    (folder / "skipped-2.jsonl").unlink(missing_ok=True)
    assert content(folder) == content(whole)


def test_under_torchrun(clip, python, videos, whole, tmp_path):
    command = [python, "-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={free_port()}"]
    command += [str(ROOT / "prepare.py"), "features", f"--videos={videos}", f"--output={tmp_path}"]
    command += [f"--encoder={clip}", "--sampling=uniform 10", "--on_error=skip", "--device=cpu", "--batch_frames=3"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "150"}
    done = subprocess.run([*command, "--shard_videos=2"], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "processes" in done.stdout
    assert "encoder waits for frames" in done.stdout
    assert done.stdout.count("written to") == 1  # one process prints
    assert content(tmp_path) == content(whole)


def test_a_mended_file_joins_the_shard_number_of_its_place(encoder, videos, whole, tmp_path):
    shutil.copytree(videos, tmp_path / "in")
    shutil.copytree(whole, tmp_path / "out")
    shutil.copy(tmp_path / "in" / "v00.mp4", tmp_path / "in" / "v01x.mp4")
    summary = run(encoder, tmp_path / "in", tmp_path / "out")
    assert (summary.written, summary.present, summary.skipped) == (1, VIDEOS, ())
    new = set(content(tmp_path / "out")) - set(content(whole))
    assert new == {"shard-000001_001.tar", "shard-000001_001.index.json"}
    assert ShardReader(tmp_path / "out").ids[:4] == ["v00", "v01", "v02", "v01x"]
    assert verify(tmp_path / "out").problems == ()


def test_decoders_keep_the_order_and_pass_errors_on(videos, monkeypatch):
    sources, _ = find_sources(videos)
    steps = list(Decoders(sources, UNIFORM, 4, 3))
    expected = [len(list(decode(source, UNIFORM, 4))) if source.id != "v01x" else 1 for source in sources]
    assert [sum(step.source == source for step in steps) for source in sources] == expected
    assert [step.source.id for step in steps if step.pixels is None] == [source.id for source in sources]
    assert [step.source.id for step in steps if step.error] == ["v01x"]
    frames = np.concatenate([step.pixels for step in steps if step.source == sources[-1] and step.video is None])
    alone = np.concatenate([step.pixels for step in decode(sources[-1], UNIFORM, 4) if step.video is None])
    np.testing.assert_array_equal(frames, alone)
    monkeypatch.setattr(decoders, "decode", lambda *args: (1 / 0 for _ in "x"))
    assert [type(step.error) for step in Decoders(sources[:1], UNIFORM, 4, 1)] == [ZeroDivisionError]
    with pytest.raises(ValueError, match="decoders must be at least 1, got 0"):
        Decoders(sources, UNIFORM, 4, 0)


def test_an_unforeseen_error_is_not_a_skipped_file(encoder, videos, tmp_path, monkeypatch):
    monkeypatch.setattr(decoders, "decode", lambda *args: (1 / 0 for _ in "x"))
    with pytest.raises(ZeroDivisionError):
        run(encoder, videos, tmp_path)


def test_leaving_early_stops_the_threads(videos, monkeypatch):
    monkeypatch.setattr(decoders, "BUFFER_BYTES", 1)
    sources, _ = find_sources(videos)
    steps = iter(Decoders(sources, UNIFORM, 1, 4))
    next(steps)
    steps.close()  # returns, though the others wait for room


def test_throughput_in_words():
    one = Throughput(100, 2.0, decode_s=1.0, encode_s=1.0, starved_s=0.8, encoders_s=2.0, decoders_s=4.0)
    both = Throughput.together([one, Throughput(50, 1.0, 1.0, 0.5, 0.1, 1.0, 2.0)])
    assert (both.frames, both.wall_s, both.decode_s, both.encoders_s) == (150, 2.0, 2.0, 3.0)
    words = one.describe()
    assert words["frames/s"] == "50.0"
    assert words["encoder waits for frames"] == "40% of the time (more --decoders help)"
    assert words["decoders wait for the encoder"] == "75% of the time"
    assert Throughput().describe() == {}


@pytest.mark.parametrize("kind", ["compressed", "random"])
def test_stored_spatial_tokens_equal_those_made_of_stored_patches(clip, videos, tmp_path, kind):
    compression = Compression(2, 5, kind=kind)
    small = load_encoder(str(clip), device="cpu", outputs=Outputs(spatial=compression))
    large = load_encoder(str(clip), device="cpu", outputs=Outputs(patches=True, cls_attention=True))
    source = Source("v", videos / "v03.mp4")
    extract([source], small, UNIFORM, tmp_path / "small")
    extract([source], large, UNIFORM, tmp_path / "large")
    reader = ShardReader(tmp_path / "small")
    stored, patches = reader.read("v"), ShardReader(tmp_path / "large").read("v")
    assert (stored.patches, stored.cls_attention, stored.spatial.shape) == (None, None, (10, 16))
    np.testing.assert_array_equal(stored.spatial, spatial_tokens(patches, compression), strict=True)
    np.testing.assert_array_equal(stored.spatial, extract_video(source, small, UNIFORM).spatial)
    (streamed,) = stream(str(tmp_path / "small" / "shard-000000.tar"), header=reader.header)
    np.testing.assert_array_equal(streamed.video.spatial, stored.spatial, strict=True)
    assert verify(tmp_path / "small").problems == ()
    assert reader.header.spatial == str(compression)


def test_too_few_frames_for_spatial_tokens(clip, videos, tmp_path):
    encoder = load_encoder(str(clip), device="cpu", outputs=Outputs(spatial=Compression(11, 2)))
    with pytest.raises(ValueError, match=r"v03\.mp4: 11x2 S-tokens need at least 11 frames, there are 10"):
        extract([Source("v", videos / "v03.mp4")], encoder, UNIFORM, tmp_path)
    long = Sampling(frames=11)
    assert len(extract_video(Source("v", videos / "v03.mp4"), encoder, long).spatial) == 22
