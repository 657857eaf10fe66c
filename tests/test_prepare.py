"""prepare.py as it is used: arguments, tables and exit statuses."""

import json
import os
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import prepare
from command_line import tables
from datamodules.query_files import read_queries
from datamodules.shards import ShardReader
from preparation.world.tiny import tiny_clip

ACTIVITYNET = {
    "a": {"duration": 10, "timestamps": [[0, 4], [5, 9]], "sentences": ["One.", "Two."]},
    "b": {"duration": 10, "timestamps": [[3, 2], [5, 9]], "sentences": ["Bad.", "Good."]},
}


@pytest.fixture
def run(capsys):
    """Run a command; returns exit status, stdout and stderr."""

    def run_command(*args) -> tuple[int, str, str]:
        tables.console.width = 200
        try:
            status = prepare.main([str(arg) for arg in args])
        except SystemExit as error:
            status = error.code
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run_command


@pytest.fixture
def packed(tmp_path, run) -> Path:
    (tmp_path / "npy").mkdir()
    for name in "abc":
        np.save(tmp_path / "npy" / f"{name}.npy", np.ones((4, 6), np.float16))
    (tmp_path / "durations.jsonl").write_text("".join(f'{{"id": "{name}", "duration_s": 10}}\n' for name in "ab"))
    args = ["pack", "--features", tmp_path / "npy", "--durations", tmp_path / "durations.jsonl"]
    args += ["--output", tmp_path / "shards", "--sampling", "uniform 4"]
    status, _, err = run(*args)
    assert status == 2
    assert "c.npy: features cannot be used (its duration is not known" in err
    status, out, _ = run(*args, "--on_error", "skip")
    assert status == 0
    assert "c.npy" in out
    assert ShardReader(tmp_path / "shards").ids == ["a", "b"]
    return tmp_path / "shards"


def test_features(tmp_path, run):
    tiny_clip(tmp_path / "clip", width=16)
    (tmp_path / "in").mkdir()
    Image.new("RGB", (30, 20)).save(tmp_path / "in" / "good.png")
    (tmp_path / "in" / "bad.mp4").write_bytes(b"not a video")
    args = ["features", "--videos", tmp_path / "in", "--output", tmp_path / "out", "--encoder", tmp_path / "clip"]
    args += ["--device", "cpu", "--patches", "true", "--cls_attention", "true"]
    status, _, err = run(*args)
    assert status == 2
    lines = [line for line in err.splitlines() if line.startswith("prepare.py: error:")]
    assert len(lines) == 1
    assert "bad.mp4" in lines[0]
    status, out, _ = run(*args, "--on_error", "skip")
    assert status == 0
    assert "bad.mp4" in out
    reader = ShardReader(tmp_path / "out")
    assert reader.ids == ["good"]
    assert reader.read("good").patches.shape == (1, 16, 16)
    assert json.loads((tmp_path / "out" / "skipped.jsonl").read_text())["file"].endswith("bad.mp4")
    assert run("verify", tmp_path / "out")[0] == 0
    assert torch.is_grad_enabled()


def test_verify(packed, run):
    status, out, _ = run("verify", packed)
    assert status == 0
    assert "uniform 4" in out
    os.truncate(packed / "shard-000000.tar", 1000)
    status, out, _ = run("verify", packed)
    assert status == 1
    assert "truncated" in out
    assert "shard-000000.tar" in out


def test_annotations(tmp_path, run):
    (tmp_path / "anet.json").write_text(json.dumps(ACTIVITYNET))
    args = ["annotations", "activitynet", "--input", tmp_path / "anet.json", "--output", tmp_path / "queries.jsonl"]
    status, _, err = run(*args)
    assert status == 2
    assert "anet.json, video 'b', event 0: end is not after the start" in err
    assert not (tmp_path / "queries.jsonl").exists()
    status, out, _ = run(*args, "--on_error", "skip")
    assert status == 0
    assert "end is not after the start" in out
    assert len(list(read_queries(tmp_path / "queries.jsonl"))) == 5
    status, _, _ = run(*args, "--on_error", "skip", "--tasks", '["events"]')
    assert [query.id for query in read_queries(tmp_path / "queries.jsonl")] == ["a/events", "b/events"]


def test_annotations_against_shards(tmp_path, packed, run):
    (tmp_path / "anet.json").write_text(json.dumps({"a": ACTIVITYNET["a"], "absent": ACTIVITYNET["a"]}))
    args = ["annotations", "activitynet", "--input", tmp_path / "anet.json", "--output", tmp_path / "queries.jsonl"]
    status, _, err = run(*args, "--shards", packed)
    assert status == 2
    assert "video 'absent': video without features in" in err
    status, out, _ = run(*args, "--shards", packed, "--on_error", "skip")
    assert status == 0
    assert "video without features" in out
    assert {query.video for query in read_queries(tmp_path / "queries.jsonl")} == {"a"}


def test_vtimellm_annotations(tmp_path, run):
    turns = [{"from": "human", "value": "<video>\nHi"}, {"from": "gpt", "value": "Ho"}]
    (tmp_path / "stage3.json").write_text(json.dumps([{"id": "a", "conversations": turns}]))
    args = ["annotations", "vtimellm", "--input", tmp_path / "stage3.json", "--output", tmp_path / "queries.jsonl"]
    assert run(*args)[0] == 0
    assert [query.turns[0].question for query in read_queries(tmp_path / "queries.jsonl")] == ["Hi"]
    status, _, err = run(*args, "--tasks", '["events"]')
    assert status == 2
    assert "--tasks is not for vtimellm" in err


def test_a_rendered_clip_becomes_features(tmp_path, run):
    status, out, _ = run("clip", "--output", tmp_path / "in" / "clip.mp4")
    assert status == 0
    assert "5 to 9 s" in out
    run("clip", "--output", tmp_path / "again.mp4")
    assert (tmp_path / "again.mp4").read_bytes() == (tmp_path / "in" / "clip.mp4").read_bytes()
    status, out, _ = run("tiny-clip", "--output", tmp_path / "clip", "--width", 32)
    assert status == 0
    assert "stand-in" in out
    args = ["--videos", tmp_path / "in", "--output", tmp_path / "out", "--encoder", tmp_path / "clip"]
    assert run("features", *args, "--sampling", "1.0 fps", "--device", "cpu")[0] == 0
    video = ShardReader(tmp_path / "out").read("clip")
    assert (video.features.shape, video.duration_s) == ((12, 32), 12.0)
    scenes = [video.features[rows].astype(float) for rows in (slice(0, 5), slice(5, 9), slice(9, 12))]
    middles = [scene.mean(axis=0) for scene in scenes]
    spread = max(np.linalg.norm(scene - middle, axis=1).max() for scene, middle in zip(scenes, middles, strict=True))
    assert all(np.linalg.norm(a - b) > 2 * spread for a, b in combinations(middles, 2))


def test_tiny_clip_depends_on_its_seed_alone(tmp_path, run):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        torch.rand(3)
        assert run("tiny-clip", "--output", tmp_path / name, "--seed", seed)[0] == 0
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in "abc"]
    assert weights[0] == weights[1] != weights[2]


def test_synthetic(tmp_path, run):
    sizes = {"images": 3, "train": 4, "val": 1, "test": 2, "frames": 16}
    args = ["--output", tmp_path, *(f"--{name}={size}" for name, size in sizes.items())]
    status, out, _ = run("synthetic", *args, "--seed", 5, "--difficulty", 0)
    assert status == 0
    assert "synthetic world" in out
    reader = ShardReader(tmp_path / "videos")
    assert (len(reader), len(ShardReader(tmp_path / "images"))) == (7, 3)
    assert len(reader.read("test00001").features) == 16
    assert "seed=5, difficulty=0.0" in reader.header.encoder
    status, _, err = run("synthetic", *args, "--seed", 6)
    assert status == 2
    assert "were made differently" in err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((), 'expected "subcommand" to be one of'),
        (("verfy", "x"), "invalid choice: 'verfy'"),
        (("verify",), "arguments are required"),
        (("verify", "/nowhere"), "index.json is missing"),
        (("features", "--video", "x"), "unrecognized arguments: --video"),
        (("features", "--videos", "/nowhere", "--output", "x"), "/nowhere: no such folder"),
        (("features", "--videos", "x", "--output", "x", "--batch_frames", "two"), "batch_frames"),
        (("features", "--videos", "x", "--output", "x", "--on_error", "ignore"), "on_error"),
        (("features", "--videos", "x", "--output", "x", "--sampling", "100"), "'uniform 100' or '1.0 fps'"),
        (("tiny-clip", "--output", "x", "--width", "30"), "width must be a multiple of 4"),
        (("synthetic", "--output", "x", "--train", "-1"), "train"),
        (("synthetic", "--output", "x", "--difficulty", "2"), "difficulty must be between 0 and 1"),
        (("annotations", "other", "--input", "a", "--output", "b"), "'activitynet', 'charades_sta'"),
        (("annotations", "vtimellm", "--input", "/nowhere.json", "--output", "b"), "/nowhere.json"),
    ],
)
def test_bad_usage_is_short_and_status_2(run, args, message):
    status, out, err = run(*args)
    assert status == 2
    assert out == ""
    assert message in err
    assert ": error: " in err
    assert err.count("\n") <= 4


def test_quiet_leaves_the_last_line_alone(tmp_path, capsys):
    assert prepare.main(["clip", "--output", str(tmp_path / "clip.mp4"), "--quiet"]) == 0
    assert capsys.readouterr().out.splitlines() == [f"Written: {tmp_path / 'clip.mp4'}"]
    assert prepare.main(["clip", "--output", str(tmp_path / "again.mp4")]) == 0
    said = capsys.readouterr().out.splitlines()
    assert len(said) > 3 and said[-1] == f"Written: {tmp_path / 'again.mp4'}"
