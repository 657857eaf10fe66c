"""Signals end every process behind one batch; the run goes on from there and ends as one that nothing stopped."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import Callback

import train
from callbacks.stopping import Stopped
from command_line.launcher import free_port
from lightning_modules.training_cli import TrainingCLI

ROOT = Path(__file__).parent.parent
SLOW = """
import time
from callbacks.throughput import Throughput
end = Throughput.on_train_batch_end
def slowly(self, *args):
    end(self, *args)
    time.sleep(0.2)
Throughput.on_train_batch_end = slowly
"""


@pytest.fixture(scope="module")
def command(arguments, runs):
    """Two epochs of five steps, with dropout."""

    def build(output: Path, *more: str) -> list[str]:
        more = ["--trainer.max_epochs=2", "--checkpoint.every_n_train_steps=1", *more]
        return arguments(2, output, *more, previous=runs[1], max_steps=-1)

    return build


@pytest.fixture(scope="module")
def whole(command, tmp_path_factory) -> dict:
    """The weights of a run that nothing stopped."""
    folder = tmp_path_factory.mktemp("whole")
    train.main(command(folder))
    return last(folder)["state_dict"]


def last(folder: Path) -> dict:
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)


def assert_same(found: dict, expected: dict) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


def launched(folder: Path, launcher: list[str], args: list[str]) -> subprocess.Popen:
    """train.py with slow batches, in a process group of its own, once its first checkpoint is there."""
    script = folder.with_name(f"{folder.name}.py")
    head, fit = (ROOT / "train.py").read_text().split("    cli.fit()\n")
    script.write_text(f"{head}    exec({SLOW!r}, {{}})\n    cli.fit()\n{fit}")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [*launcher, str(script), *args],
        cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    while process.poll() is None and not (folder / "checkpoints" / "last.ckpt").is_file():
        time.sleep(0.05)
    return process


def children(process: subprocess.Popen) -> list[int]:
    """Its own, without theirs."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = stat.read_text().rpartition(")")[2].split()[1]
        except OSError:  # it has just ended
            continue
        found += [int(stat.parent.name)] if int(parent) == process.pid else []
    return sorted(found)


def assert_all_gone(process: subprocess.Popen) -> None:
    """Data workers look for their parent every five seconds."""
    for _ in range(80):
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    pytest.fail("a process is left")


@pytest.mark.parametrize(
    ("signum", "status", "group", "more"),
    [
        (signal.SIGINT, 130, False, []),
        (signal.SIGUSR1, 143, False, []),
        (signal.SIGTERM, 143, True, ["--data.num_workers=1"]),
    ],
)
def test_one_process(command, tmp_path, whole, signum, status, group, more):
    process = launched(tmp_path / "run", [sys.executable], command(tmp_path / "run", *more))
    (os.killpg if group else os.kill)(process.pid, signum)
    error = process.communicate(timeout=100)[1]
    assert process.returncode == status, error
    assert "Traceback" not in error
    assert f"train.py: stopped by {signum.name} behind step" in error
    assert_all_gone(process)
    assert 0 < last(tmp_path / "run")["global_step"] < 10
    shutil.move(tmp_path / "run", tmp_path / "moved")
    train.main(command(tmp_path / "moved", "--resume=auto"))
    assert_same(last(tmp_path / "moved")["state_dict"], whole)
    kept = sorted(path.name for path in (tmp_path / "moved" / "checkpoints").iterdir())
    assert kept == ["epoch=1-step=10.ckpt", "last.ckpt"]


@pytest.mark.parametrize("launcher", ["torchrun", "devices"])
def test_a_signal_to_one_of_two_processes_ends_both(command, tmp_path, launcher):
    """Under torchrun the second one is told, which the first does not hear of; else the first."""
    run = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={free_port()}"]
    run, more = (run, []) if launcher == "torchrun" else ([sys.executable], ["--trainer.devices=2"])
    args = command(tmp_path / "run", "--data.batch_size=2", "--data.num_workers=1", *more)
    process = launched(tmp_path / "run", run, args)
    os.kill(children(process)[-1] if launcher == "torchrun" else process.pid, signal.SIGTERM)
    error = process.communicate(timeout=100)[1]
    assert process.returncode == (1 if launcher == "torchrun" else 143), error  # torchrun has a status of its own
    assert "train.py: stopped by SIGTERM behind step" in error
    assert_all_gone(process)
    assert 0 < last(tmp_path / "run")["global_step"] < 10
    assert not list((tmp_path / "run" / "checkpoints").glob("*.partial"))


class Interrupt(Callback):
    """Ctrl-C at a chosen place of the third step: in the update, behind it, and while gradients are computed."""

    def __init__(self, place: str):
        self.place = place

    def on_train_start(self, trainer, pl_module):
        optimizer = trainer.optimizers[0]
        self.trainer = trainer
        if self.place == "in the update":
            optimizer.register_step_pre_hook(lambda *_: self._send())
        if self.place == "behind the update":
            optimizer.register_step_post_hook(lambda *_: self._send())

    def on_after_backward(self, trainer, pl_module):
        if self.place == "backward":
            self._send()

    def _send(self) -> None:
        if self.trainer.global_step == 2:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("place", ["in the update", "behind the update", "backward"])
def test_ctrl_c_finishes_the_step(command, tmp_path, whole, place):
    cli = TrainingCLI(command(tmp_path))
    cli.trainer.callbacks.append(Interrupt(place))
    with pytest.raises(Stopped, match="stopped by SIGINT behind step 3"):
        cli.fit()
    assert last(tmp_path)["global_step"] == 3
    train.main(command(tmp_path, "--resume=true"))
    assert_same(last(tmp_path)["state_dict"], whole)


def test_a_failure_within_the_update_saves_nothing_of_it(command, tmp_path, whole):
    """The weights may be half new: the checkpoint is the one of before."""

    def fail(*_):
        raise RuntimeError("out of memory")

    class Fail(Callback):
        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            if trainer.global_step == 2:
                optimizer.register_step_post_hook(fail)

    cli = TrainingCLI(command(tmp_path))
    cli.trainer.callbacks.append(Fail())
    with pytest.raises(RuntimeError, match="out of memory"):
        cli.fit()
    assert last(tmp_path)["global_step"] == 2
    train.main(command(tmp_path, "--resume=true"))
    assert_same(last(tmp_path)["state_dict"], whole)


def test_slurm_asks_for_the_job_again_and_a_stray_checkpoint_starts_nothing(command, tmp_path, monkeypatch):
    """SIGUSR1 is how a job is told that its time is up."""
    for name, value in {"NTASKS": 1, "JOB_ID": 7, "JOB_NAME": "x", "NODELIST": "localhost", "LOCALID": 0}.items():
        monkeypatch.setenv(f"SLURM_{name}", str(value))
    monkeypatch.setenv("SLURM_PROCID", "0")
    monkeypatch.setenv("SLURM_NODEID", "0")
    scontrol = tmp_path / "scontrol"
    scontrol.write_text(f"#!/bin/sh\necho $@ > {tmp_path / 'asked'}\n")
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    run = tmp_path / "run"
    run.mkdir()
    (run / "hpc_ckpt_1.ckpt").write_bytes(b"of another run")

    class Signal(Callback):
        def on_train_batch_start(self, trainer, *_):
            if trainer.global_step == 2:
                os.kill(os.getpid(), signal.SIGUSR1)

    cli = TrainingCLI(command(run, "--resume=auto"))
    cli.trainer.callbacks.append(Signal())
    with pytest.raises(Stopped) as stop:
        cli.fit()
    assert stop.value.code == 143
    assert (tmp_path / "asked").read_text() == "requeue 7\n"
    assert sorted(path.name for path in run.glob("hpc*")) == ["hpc_ckpt_1.ckpt"]
    train.main(command(run, "--resume=auto"))
    assert last(run)["global_step"] == 10


def test_a_data_worker_outlives_a_signal_to_its_group_but_not_for_ever(tmp_path):
    code = (
        "import sys, time; from command_line import signals; signals.GRACE_S = 2\n"
        "signals.leave_it_to_the_parent(0); print('ready', flush=True)\n"
        "for _ in range(100): time.sleep(0.1)"
    )
    worker = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert worker.stdout.readline() == "ready\n"
    for signum in (signal.SIGINT, signal.SIGUSR1, signal.SIGTERM):
        worker.send_signal(signum)
    time.sleep(0.5)
    assert worker.poll() is None
    assert worker.wait(20) == -signal.SIGALRM
