"""Training stops at the first number that is none, and such weights are neither written nor read."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from safetensors.torch import load_file, save_file

import train
from callbacks.finite import NotFinite
from command_line.launcher import free_port
from lightning_modules.training_cli import TrainingCLI
from lightning_modules.video_language import VideoLanguageModule
from models.checkpoints import read_weights
from models.finite import not_finite

ROOT = Path(__file__).parent.parent


@pytest.fixture
def broken_batch(monkeypatch):
    """Makes the loss of the batches with these numbers what is given."""

    def put(*numbers: int, value: float = float("nan")) -> list[list[str]]:
        seen, step = [], VideoLanguageModule.training_step

        def training_step(self, batch):
            seen.append([query.id for query in batch.queries])
            output = step(self, batch)
            return output | {"loss": output["loss"] * value} if len(seen) in numbers else output

        monkeypatch.setattr(VideoLanguageModule, "training_step", training_step)
        return seen

    return put


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_it_stops_with_step_queries_and_checkpoint(arguments, tmp_path, broken_batch, value):
    seen = broken_batch(4, value=value)
    args = [*arguments(1, tmp_path, max_steps=6), "--checkpoint.every_n_train_steps=1"]
    with pytest.raises(NotFinite, match=r"step 3: the loss is (nan|inf), of the queries ") as told:
        train.main(args)
    assert all(query in str(told.value) for query in seen[-1])
    assert str(tmp_path / "checkpoints" / "last.ckpt") in str(told.value)
    last = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == 3
    assert not not_finite(last["state_dict"].items())
    assert not (tmp_path / "model").exists()


def test_the_batch_of_an_accumulated_step_is_named(arguments, tmp_path, broken_batch):
    seen = broken_batch(3)
    with pytest.raises(NotFinite, match="step 1: .*there is no checkpoint yet") as told:
        train.main(arguments(1, tmp_path, "--trainer.accumulate_grad_batches=2"))
    assert seen[2][0] in str(told.value)
    assert len(seen) == 4
    assert seen[3][0] not in str(told.value)


@pytest.mark.parametrize("launcher", ["torchrun", "devices"])
def test_two_processes_end_together(arguments, python, tmp_path, launcher):
    run = [python, "-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={free_port()}"]
    run, more = (run, []) if launcher == "torchrun" else ([python], ["--trainer.devices=2"])
    rate = ["--model.optimization.lr=1e37", "--model.optimization.warmup_ratio=0", "--data.batch_size=2"]
    done = subprocess.run(
        [*run, str(ROOT / "train.py"), *arguments(1, tmp_path, *rate, *more, max_steps=50)],
        cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == (1 if launcher == "torchrun" else 2), done.stderr[-3000:]
    assert re.search(r"train\.py: error: step \d+: the (loss|norm of the gradient) is (nan|inf)", done.stderr)
    assert not (tmp_path / "model").exists()


class BreakGradient(Callback):
    """A gradient that is none, of a loss that is one."""

    def on_after_backward(self, trainer, pl_module):
        next(p for p in pl_module.parameters() if p.grad is not None).grad[0] = float("inf")


def test_a_gradient_is_looked_at_too(arguments, tmp_path):
    cli = TrainingCLI(arguments(1, tmp_path))
    cli.trainer.callbacks.insert(0, BreakGradient())
    with pytest.raises(NotFinite, match="step 0: the norm of the gradient is inf, of the queries"):
        cli.fit()


def test_so_many_steps_are_left_out_and_no_more(arguments, tmp_path, broken_batch):
    broken_batch(2, 4)
    more = ["--nonfinite_steps=2", "--model.optimization.weight_decay=0.5", "--trainer.gradient_clip_val=1"]
    with pytest.warns(UserWarning, match=r"step 3 was left out \(2 of at most 2\): the loss is nan"):
        train.main(arguments(1, tmp_path / "run", *more, max_steps=5))
    assert not not_finite(read_weights(tmp_path / "run").adapter.items())
    with pytest.raises(NotFinite, match="step 3"), pytest.warns(UserWarning, match="1 of at most 1"):
        broken_batch(2, 4)
        train.main(arguments(1, tmp_path / "other", "--nonfinite_steps=1", max_steps=5))


def test_a_step_that_is_left_out_moves_nothing(arguments, tmp_path, broken_batch):
    kept = []

    class Watch(Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            kept.append(pl_module.model.adapter.weight.detach().clone())

    broken_batch(3)
    cli = TrainingCLI(arguments(1, tmp_path, "--nonfinite_steps=1", "--model.optimization.weight_decay=0.5"))
    cli.trainer.callbacks.insert(0, Watch())
    with pytest.warns(UserWarning, match="left out"):
        cli.fit()
    assert torch.equal(kept[1], kept[2])
    assert not torch.equal(kept[2], kept[3])


class BreakWeights(Callback):
    """Weights that overflow in the last update, which no loss sees any more."""

    def on_train_batch_end(self, trainer, pl_module, *_):
        if trainer.global_step == 3:
            with torch.no_grad():
                pl_module.model.adapter.weight[0, 0] = float("nan")


def test_weights_with_nan_are_never_written(arguments, tmp_path):
    cli = TrainingCLI([*arguments(1, tmp_path, max_steps=3), "--checkpoint.every_n_train_steps=2"])
    cli.trainer.callbacks.insert(0, BreakWeights())
    with pytest.raises(NotFinite, match=r"behind step 3: 1 of the tensors that learn .* first model\.adapter\.weight"):
        train.run(cli)
    assert torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 2
    assert not (tmp_path / "model").exists()


def test_weights_with_nan_are_not_read(runs, tmp_path):
    for name in ("manifest.json", "adapter.safetensors"):
        (tmp_path / name).write_bytes((runs[1] / "model" / name).read_bytes())
    assert json.loads((tmp_path / "manifest.json").read_text())
    tensors = load_file(tmp_path / "adapter.safetensors")
    tensors["bias"][0] = float("nan")
    save_file(tensors, tmp_path / "adapter.safetensors")
    with pytest.raises(ValueError, match="adapter.safetensors: bias holds NaN or infinity, .* diverged"):
        read_weights(tmp_path)


@pytest.mark.parametrize(
    "setting", ["lr=nan", "lr=inf", "lr=-1", "warmup_ratio=2", "warmup_ratio=-1", "weight_decay=-0.1", "betas=[0.9, 1]"]
)
def test_rates_that_are_none_are_refused(arguments, tmp_path, setting):
    with pytest.raises((SystemExit, ValueError)):
        TrainingCLI(
            arguments(1, tmp_path, f"--model.optimization.{setting.replace('nan', '.nan').replace('inf', '.inf')}")
        )
