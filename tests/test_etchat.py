"""E.T. Chat on the tiny world: its stage trains, hands on what it learned, and its answers have spans."""

import json
from pathlib import Path

import pytest
import torch

import evaluate
import train
from lightning_modules.training_cli import TrainingCLI
from localizers import FrameMatching
from models.checkpoints import read_weights

ETCHAT = "--model.localizer=FrameMatching"


@pytest.fixture(scope="module")
def run(runs, arguments, tmp_path_factory) -> Path:
    """A stage 2 with frame matching."""
    folder = tmp_path_factory.mktemp("etchat") / "run"
    train.main([*arguments(2, folder, previous=runs[1], max_steps=6), ETCHAT, "--model.style=etchat"])
    return folder


def test_heads_and_the_token_learn_and_are_handed_on(run, arguments, tmp_path):
    weights, fresh = read_weights(run), FrameMatching().head(32).state_dict()
    assert weights.head.keys() == fresh.keys()
    rows = [tensor for name, tensor in weights.loras[0].tensors.items() if "trainable_tokens_delta" in name]
    assert [len(row) for row in rows] == [1, 1]
    train.main([*arguments(3, tmp_path / "next", previous=run), ETCHAT, "--model.style=etchat"])
    second = read_weights(tmp_path / "next")
    assert not torch.equal(second.head["vid_head.1.weight"], weights.head["vid_head.1.weight"])
    assert second.manifest["localizer"]["init_args"]["alpha"] == 2.0


def test_a_run_goes_on_exactly_where_it_stopped(runs, arguments, whole_and_parts):
    whole, parts = whole_and_parts(lambda folder: [*arguments(2, folder, previous=runs[1]), ETCHAT])
    assert all(torch.equal(value, parts.head[name]) for name, value in whole.head.items())


def test_every_query_has_a_prediction(run, world, tmp_path):
    args = [f"--checkpoint={run}", f"--shards={world / 'videos'}", f"--queries={world / 'test/grounding.jsonl'}"]
    evaluate.main(["benchmark", *args, f"--output={tmp_path}", "--num_workers=0", "--generation.max_new_tokens=12"])
    report = json.loads((tmp_path / "metrics.json").read_text())
    assert report["protocol"]["missing"] == 0
    assert report["metrics"]["grounding/n"] == len((tmp_path / "predictions.jsonl").read_text().splitlines())
    assert report["protocol"]["localizer"]["class_path"].endswith("FrameMatching")
    with pytest.raises(ValueError, match="localizer.alpha is no setting of decoding alone; .* nothing can change"):
        evaluate.main(["benchmark", *args, f"--output={tmp_path}", "--localizer.alpha=3"])


def test_the_shipped_config_holds_the_released_values(monkeypatch):
    """``scripts/train_stage_3.sh``."""
    monkeypatch.setattr(TrainingCLI, "instantiate_classes", lambda self: None)
    files = ["--config=configs/etchat/stage3.yaml", "--config=configs/data/et_instruct.yaml"]
    config = TrainingCLI(files).config.as_dict()
    model = config["model"]["init_args"]
    assert model["localizer"]["class_path"] == "localizers.FrameMatching"
    assert model["localizer"]["init_args"]["alpha"] == 2.0
    assert model["localizer"]["init_args"]["bidirectional"]
    assert (model["optimization"]["lr"], model["optimization"]["other_lr"]) == (5e-5, 2e-5)
    assert (model["lora"]["r"], model["lora"]["alpha"]) == (128, 256)
    assert config["data"]["global_batch_size"] == 32
    assert config["data"]["val"] and config["checkpoint"]["monitor"] == "val/grounding/mIoU"
