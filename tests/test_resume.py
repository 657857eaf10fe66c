"""A run that was interrupted anywhere and resumed ends with the very bits of one that was not."""

import csv
import os
import signal
import subprocess
import time
from pathlib import Path
from random import Random

import pytest
import torch
from lightning.pytorch.callbacks import Callback

import train
from datamodules.dialogue import Dialogue
from lightning_modules.training_cli import TrainingCLI
from lightning_modules.video_language import VideoLanguageModule

ROOT = Path(__file__).parent.parent


class Stop(Exception):
    """Something that goes wrong in the middle of a run."""


class StopAfter(Callback):
    """Fails behind the n-th batch."""

    def __init__(self, batches: int):
        self.left = batches

    def on_train_batch_end(self, *_):
        self.left -= 1
        if self.left == 0:
            raise Stop


@pytest.fixture(scope="module")
def command(arguments, runs):
    """Arguments of a run of stage 2 with dropout: three epochs of five batches."""

    def build(output: Path, *more: str) -> list[str]:
        more = ["--trainer.max_epochs=3", "--checkpoint.every_n_train_steps=1", *more]
        return arguments(2, output, *more, previous=runs[1], max_steps=-1)

    return build


@pytest.fixture(scope="module")
def whole(command, tmp_path_factory):
    """The last checkpoint of a run that nothing interrupted, by arguments."""
    done = {}

    def last(*more: str) -> dict:
        if more not in done:
            folder = tmp_path_factory.mktemp("whole")
            train.main(command(folder, *more))
            done[more] = read(folder)
        return done[more]

    return last


def read(folder: Path) -> dict:
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)


def interrupt(args: list[str], *callbacks: Callback) -> None:
    """What train.main does, with something that goes wrong."""
    cli = TrainingCLI(args)
    cli.trainer.callbacks[:0] = callbacks
    begin = train.find_checkpoint(Path(cli.config["output"]), cli.config["resume"])
    with pytest.raises(Stop):
        cli.trainer.fit(cli.model, cli.datamodule, ckpt_path=begin)


def assert_equal(found, expected, where: str = ""):
    """Bit by bit, through dicts and lists."""
    assert type(found) is type(expected), where
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), where
        for key in expected:
            assert_equal(found[key], expected[key], f"{where}/{key}")
    elif isinstance(expected, (list, tuple)):
        assert len(found) == len(expected), where
        for number, (a, b) in enumerate(zip(found, expected, strict=True)):
            assert_equal(a, b, f"{where}/{number}")
    elif isinstance(expected, torch.Tensor):
        assert torch.equal(found, expected), where
    else:
        assert found == expected, where


def assert_same_end(folder: Path, expected: dict) -> None:
    found = read(folder)
    for key in ("state_dict", "optimizer_states", "lr_schedulers", "epoch", "global_step"):
        assert_equal(found[key], expected[key], key)


def test_dropout_makes_a_difference(command, tmp_path, whole):
    """Otherwise the tests below would prove less than they say; and equal runs are equal."""
    train.main(command(tmp_path / "again"))
    assert_same_end(tmp_path / "again", whole())
    train.main(command(tmp_path / "other", "--model.lora.dropout=0"))
    names = read(tmp_path / "other")["state_dict"]
    assert any(not torch.equal(value, whole()["state_dict"][name]) for name, value in names.items())


@pytest.mark.parametrize(
    ("stop", "accumulate", "workers"),
    [(3, 1, 0), (5, 1, 0), (7, 1, 2), (10, 1, 0), (4, 2, 0), (5, 2, 2), (3, 2, 0), (8, 2, 0), (14, 2, 0)],
)
def test_a_failure_behind_a_batch(command, tmp_path, whole, stop, accumulate, workers):
    """In mid-epoch, at its end (5, 10), and with half of an accumulation done (3, 8)."""
    more = [f"--trainer.accumulate_grad_batches={accumulate}", f"--data.num_workers={workers}"]
    interrupt(command(tmp_path, *more), StopAfter(stop))
    train.main(command(tmp_path, *more, "--resume=true"))
    assert_same_end(tmp_path, whole(f"--trainer.accumulate_grad_batches={accumulate}"))


def test_two_failures(command, tmp_path, whole):
    for number, stop in enumerate((4, 5)):
        interrupt(command(tmp_path, f"--resume={'true' if number else 'false'}"), StopAfter(stop))
    train.main(command(tmp_path, "--resume=true"))
    assert_same_end(tmp_path, whole())


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_failure_within_a_batch(command, tmp_path, whole, monkeypatch, accumulate):
    """For example a loss of memory: the batch was fetched and is not done."""
    calls, step = [], VideoLanguageModule.training_step

    def fail_in_eighth(self, batch):
        calls.append(batch)
        if len(calls) == 8:
            raise Stop
        return step(self, batch)

    more = [f"--trainer.accumulate_grad_batches={accumulate}"]
    monkeypatch.setattr(VideoLanguageModule, "training_step", fail_in_eighth)
    interrupt(command(tmp_path, *more))
    train.main(command(tmp_path, *more, "--resume=true"))
    assert_same_end(tmp_path, whole(*more))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_sample_that_is_mended_before_the_run_goes_on(command, tmp_path, whole, monkeypatch, workers):
    """A failure while a batch is read."""
    example, wanted = Dialogue.example, "train00007.events"
    second_epoch = Random(f"0/1/{wanted}").getstate()

    def fail_in_second_epoch(self, query, video, random):
        if query.id == wanted and random.getstate() == second_epoch:
            raise ValueError("cannot be read")
        return example(self, query, video, random)

    with monkeypatch.context() as patch:
        patch.setattr(Dialogue, "example", fail_in_second_epoch)
        with pytest.raises(ValueError, match="cannot be read"):
            train.main(command(tmp_path, f"--data.num_workers={workers}"))
    assert 5 <= read(tmp_path)["global_step"] < 10
    train.main(command(tmp_path, f"--data.num_workers={workers}", "--resume=true"))
    assert_same_end(tmp_path, whole())


def test_the_log_of_before_is_kept(command, tmp_path):
    logger = f"{{class_path: CSVLogger, init_args: {{save_dir: {tmp_path}, name: logs, version: ''}}}}"
    more = [f"--trainer.logger={logger}", "--trainer.log_every_n_steps=1"]
    for number, stop in enumerate((4, 3)):
        interrupt(command(tmp_path, *more, f"--resume={'true' if number else 'false'}"), StopAfter(stop))
    train.main(command(tmp_path, *more, "--resume=true"))
    steps = []
    for log in ("metrics-001.csv", "metrics-002.csv", "metrics.csv"):
        with open(tmp_path / "logs" / log, newline="") as lines:
            steps += [int(row["step"]) for row in csv.DictReader(lines) if row["train/loss"]]
    assert steps == [step for step in range(15) if step not in (3, 6)]  # each failed before its step was logged


def test_a_cut_epoch(command, tmp_path, whole):
    more = "--trainer.limit_train_batches=3"
    for stop, name in ((3, "boundary"), (5, "middle")):
        interrupt(command(tmp_path / name, more), StopAfter(stop))
        train.main(command(tmp_path / name, more, "--resume=true"))
        assert_same_end(tmp_path / name, whole(more))


def test_validation_in_between(command, tmp_path, world, whole):
    source = f"[{{shards: {world / 'videos'}, queries: {world / 'val' / 'grounding.jsonl'}}}]"
    more = (f"--data.val={source}", "--model.generation.max_new_tokens=4", "--trainer.val_check_interval=2")
    interrupt(command(tmp_path, *more), StopAfter(8))
    train.main(command(tmp_path, *more, "--resume=true"))
    assert_same_end(tmp_path, whole())  # validation draws nothing from the training's randomness


def test_a_finished_run_has_nothing_left_to_do(command, tmp_path, whole):
    train.main(command(tmp_path))
    weights = (tmp_path / "model" / "lora-1" / "adapter_model.safetensors").read_bytes()
    (tmp_path / "model" / "lora-1" / "adapter_model.safetensors").unlink()
    train.main(command(tmp_path, "--resume=true"))
    assert (tmp_path / "model" / "lora-1" / "adapter_model.safetensors").read_bytes() == weights
    assert_equal(read(tmp_path)["state_dict"], whole()["state_dict"])


SLOW = """
import gc, sys, time, train
from callbacks.throughput import Throughput
end = Throughput.on_train_batch_end
def slowly(self, *args):
    end(self, *args)
    time.sleep(0.2)
Throughput.on_train_batch_end = slowly
"""


def test_a_terminated_process_leaves_a_checkpoint_and_says_so(command, python, tmp_path, whole):
    """SIGTERM, as schedulers send it: exit status 143, and the run can go on."""
    script, run = tmp_path / "slow.py", tmp_path / "run"
    script.write_text(SLOW + (ROOT / "train.py").read_text().partition("import sys\n")[2])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([python, script, *command(run)], cwd=tmp_path, env=environment, stderr=subprocess.PIPE)
    checkpoints = run / "checkpoints"
    while process.poll() is None and not (checkpoints / "last.ckpt").is_file():
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 143, error.decode()
    assert 0 < read(run)["global_step"] < 15
    assert not (run / "model").exists()
    train.main(command(run, "--resume=true"))
    assert_same_end(run, whole())
