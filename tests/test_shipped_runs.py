"""Each system's shipped config as its users start it, on two processes, with its language model's real vocabulary."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from transformers import AutoTokenizer

import evaluate
from models.checkpoints import read_weights
from preparation.world.tiny import tiny_lm

ROOT = Path(__file__).parent.parent
SYSTEMS = {
    "vtimellm": ("vicuna-7b-v1.5", ["configs/vtimellm/stage2.yaml"], 128),
    "meco": ("phi-3-mini-4k-instruct", ["configs/meco/stage3.yaml"], 32),
    "videoexpert": ("vicuna-7b-v1.5", ["configs/videoexpert/pretrain.yaml"], 128),
}


def base(folder: Path, tokenizer: Path) -> Path:
    """A tiny language model that has the vocabulary of a real one."""
    folder.mkdir()
    for path in tokenizer.iterdir():
        if path.name.startswith(("tokenizer", "special_tokens", "added_tokens")):
            shutil.copy(path, folder)
    size = max(len(AutoTokenizer.from_pretrained(folder)), 32064)
    tiny_lm(size, width=8, layers=1, heads=1).save_pretrained(folder)
    return folder


def start(python: str, *command: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}  # that of another test
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "WANDB_MODE": "offline"}
    done = subprocess.run([python, *command], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_shipped_config_trains_validates_goes_on_and_is_evaluated(system, python, real, world, tmp_path):
    """With its own global batch. Only size, data and length are this test's."""
    name, configs, batch = SYSTEMS[system]
    llm = base(tmp_path / "llm", real(f"tokenizers/{name}"))
    output = tmp_path / "run"
    train = f"[{{shards: {world / 'videos'}, queries: {world / 'stage2.jsonl'}, weight: {batch / 20 * 3}}}]"
    val = f"[{{shards: {world / 'videos'}, queries: {world / 'val' / 'grounding.jsonl'}}}]"
    args = [*(f"--config={path}" for path in configs), f"--model.init_args.llm={llm}", f"--output={output}"]
    args += ["--model.init_args.previous=null", "--model.init_args.feature_width=8", f"--data.train={train}"]
    args += [f"--data.val={val}", "--data.num_workers=0", "--data.batch_size=16", "--trainer.devices=2"]
    args += ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", "--trainer.max_epochs=1"]
    args += ["--model.init_args.generation.max_new_tokens=8", "--model.init_args.tune_adapter=true"]
    args += ["--trainer.log_every_n_steps=1", "--model.init_args.optimization.lr=0.01"]
    if system == "videoexpert":
        args += ["--model.init_args.spatial=null"]  # the world has no patches
    if system == "meco":
        args += ["--model=BoundaryPerception"]  # there is no stage 2 to go on from
    start(python, "train.py", *args, "--trainer.max_steps=2")
    start(python, "train.py", *args, "--resume=true", "--resume_changed=true")
    rows = (output / "logs" / "metrics.csv").read_text()
    assert "train/loss" in rows and "val/grounding/mIoU" in rows
    about = read_weights(output).manifest["weights"]
    assert about["monitor"] == "val/grounding/mIoU"
    assert about["checkpoint"] == f"best-step={about['step']}.ckpt"
    best = output / "checkpoints" / about["checkpoint"]
    scores = []
    for checkpoint in (output, best):
        to = tmp_path / checkpoint.name
        queries = world / "test" / "grounding.jsonl"
        command = ["benchmark", f"--checkpoint={checkpoint}", f"--shards={world / 'videos'}", f"--queries={queries}"]
        evaluate.main([*command, f"--output={to}", "--num_workers=0", "--generation.temperature=0"])
        scores.append(json.loads((to / "metrics.json").read_text())["metrics"])
    assert scores[0] == scores[1]
