"""A full disk ends two processes in one line, and what only reports comes behind what must be kept."""

import json
import os
import resource
import signal
import subprocess
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import Callback

import train
from callbacks.stopping import Stopped
from command_line.launcher import free_port
from lightning_modules.training_cli import TrainingCLI
from models.checkpoints import read_weights

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("launcher", ["torchrun", "devices"])
def test_a_disk_that_is_full_for_a_checkpoint(arguments, python, tmp_path, launcher):
    """RLIMIT_FSIZE stops a write in its middle, as a full disk does."""
    run = [python, "-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={free_port()}"]
    run, more = (run, []) if launcher == "torchrun" else ([python], ["--trainer.devices=2"])
    done = subprocess.run(
        [*run, str(ROOT / "train.py"), *arguments(1, tmp_path / "run", "--data.batch_size=2", *more)],
        cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=200,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000)),
    )  # fmt: skip
    assert done.returncode == (1 if launcher == "torchrun" else 2), done.stderr[-3000:]
    said = [line for line in done.stderr.splitlines() if line.startswith("train.py: error: ")]
    assert len(said) == 1 and "step=4.ckpt could not be written: File too large" in said[0]
    assert [path.name for path in (tmp_path / "run").rglob("*") if path.is_file()] == ["config.yaml"]


FULL = """
import errno, os
import safetensors.torch, torch.distributed
import models.tensor_files
def full(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
for module in (safetensors.torch, models.tensor_files):
    if hasattr(module, "save_file"):
        module.save_file = full
"""


def test_a_disk_that_is_full_for_the_weights(arguments, python, tmp_path):
    """The checkpoint is there, so the command with --resume true writes them when there is room."""
    script = tmp_path / "train.py"
    head, fit = (ROOT / "train.py").read_text().split("    cli.fit()\n")
    script.write_text(f"{head}    cli.fit()\n    exec({FULL!r}, {{}})\n{fit}")
    args = arguments(1, tmp_path / "run", "--data.batch_size=2", "--trainer.devices=2")
    done = subprocess.run(
        [python, str(script), *args], cwd=ROOT, capture_output=True, text=True, timeout=200,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 2, done.stderr[-3000:]
    assert done.stderr.count("train.py: error: ") == 1 and "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run" / "model").exists()
    train.main([*args[:-1], "--trainer.devices=1", "--data.batch_size=4", "--resume=true"])
    assert read_weights(tmp_path / "run").adapter


class InValidation(Callback):
    """A signal while the second validation is asked."""

    def on_validation_batch_start(self, trainer, *_):
        if trainer.global_step == 4:
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_signal_in_a_validation_stops_there_and_the_run_ends_as_if_nothing_had_stopped_it(
    arguments, runs, world, tmp_path
):
    source = f"[{{shards: {world / 'videos'}, queries: {world / 'val' / 'grounding.jsonl'}}}]"
    more = [f"--data.val={source}", "--data.eval_batch_size=1", "--model.generation.max_new_tokens=4"]
    more += ["--trainer.val_check_interval=2", "--trainer.check_val_every_n_epoch=null"]

    def command(folder: Path, *others: str) -> list[str]:
        return arguments(2, tmp_path / folder, *more, *others, previous=runs[1], max_steps=6)

    train.main(command(Path("whole")))
    cli = TrainingCLI(command(Path("cut")))
    cli.trainer.callbacks.append(InValidation())
    with pytest.raises(Stopped, match="stopped by SIGTERM behind step 4"):
        cli.fit()
    train.main(command(Path("cut"), "--resume=auto"))
    ends = [torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True) for name in ("whole", "cut")]
    assert ends[0]["global_step"] == ends[1]["global_step"] == 6
    for name, tensor in ends[0]["state_dict"].items():
        assert torch.equal(ends[1]["state_dict"][name], tensor), name


def test_names_that_read_like_markup_cost_no_run_its_weights(arguments, world, tmp_path, capsys):
    lines = (world / "stage1.jsonl").read_text().splitlines()
    absent = json.loads(lines[0]) | {"id": "[/x] \x1b[2J", "video": "[/y]"}
    (tmp_path / "[red]q.jsonl").write_text("\n".join([json.dumps(absent), '{"id": "[/z]"}', *lines]) + "\n")
    source = f"[{{shards: {world / 'images'}, queries: '{tmp_path / '[red]q.jsonl'}'}}]"
    args = arguments(1, tmp_path / "run", f"--data.train={source}", "--data.on_error=skip", max_steps=2)
    train.main(args)
    said = capsys.readouterr()
    assert "line that is no query" in said.out + said.err
    assert "\x1b" not in said.out
    assert read_weights(tmp_path / "run").adapter
