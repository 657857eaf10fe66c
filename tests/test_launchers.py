"""The same train.py under every launcher: two processes that train one model, and the same one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from safetensors.torch import load_file

from command_line.launcher import free_port

ROOT = Path(__file__).parent.parent
CONSOLE = Path(sys.executable).with_name("lightning")


class Witness(Callback):
    """Each process writes down who it is and what it learned from; may fail behind a batch.

    Args:
        fail_after: batches.
        failing: the rank that fails; None: all do.
    """

    def __init__(self, fail_after: int = 0, failing: int | None = None):
        self.left, self.failing = fail_after, failing
        self.seen: list[str] = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.seen += [query.id for query, labels in zip(batch.queries, batch.labels, strict=True) if labels.max() >= 0]
        self.left -= 1
        if self.left == 0 and self.failing in (None, trainer.global_rank):
            raise ValueError("as asked")

    def on_train_end(self, trainer, pl_module):
        path = Path(trainer.default_root_dir) / f"rank{trainer.global_rank}-of-{trainer.world_size}.txt"
        path.write_text("\n".join(self.seen))


@pytest.fixture(scope="module")
def launch(arguments, runs):
    """Run train.py under a launcher; gives the finished process."""

    def start(launcher: list[str], output: Path, *more: str, **failure: int) -> subprocess.CompletedProcess:
        witness = json.dumps([{"class_path": "test_launchers.Witness", "init_args": failure}])
        args = arguments(2, output, f"--trainer.callbacks={witness}", *more, previous=runs[1], max_steps=-1)
        args += ["--trainer.max_epochs=2", "--data.batch_size=3", "--checkpoint.every_n_train_steps=1"]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
        command = [*launcher, str(ROOT / "train.py"), *args]
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)

    return start


def torchrun(python: str) -> list[str]:
    return [python, "-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={free_port()}"]


@pytest.fixture(scope="module")
def plain(launch, python, tmp_path_factory) -> Path:
    """Run folder of ``python train.py --trainer.devices 2``."""
    folder = tmp_path_factory.mktemp("plain")
    done = launch([python], folder, "--trainer.devices=2")
    assert done.returncode == 0, done.stderr
    return folder


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / "lora-1" / "adapter_model.safetensors")


def assert_two_trained(folder: Path, like: Path) -> None:
    ranks = sorted(path.name for path in folder.glob("rank*"))
    assert ranks == ["rank0-of-2.txt", "rank1-of-2.txt"]
    found, expected = weights(folder), weights(like)
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        assert torch.equal(tensor, expected[name]), name


def test_two_processes_share_the_samples(plain):
    shares = [(plain / f"rank{rank}-of-2.txt").read_text().split() for rank in (0, 1)]
    assert len(shares[0]) == len(shares[1]) == 20  # two epochs of ten
    for epoch in (0, 1):
        seen = [query for share in shares for query in share[10 * epoch : 10 * epoch + 10]]
        assert sorted(seen) == [f"train{number:05d}.events" for number in range(20)]
    last = torch.load(plain / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == 8  # two epochs of ceil(20 / (2 * 3)) steps


def test_torchrun(launch, python, plain, tmp_path):
    done = launch(torchrun(python), tmp_path)
    assert done.returncode == 0, done.stderr
    assert_two_trained(tmp_path, plain)


@pytest.mark.parametrize("words", [["run"], ["run", "model"]])
def test_lightning_run(launch, python, plain, tmp_path, words):
    """``fabric run`` is the function that this calls; see test_command_line."""
    if not CONSOLE.is_file():
        pytest.skip(f"no {CONSOLE}: pip install -e .")
    program = [str(CONSOLE)] if words == ["run"] else [python, str(CONSOLE)]
    done = launch([*program, *words, "--accelerator=cpu", "--devices=2"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert_two_trained(tmp_path, plain)


def test_a_group_goes_on_exactly_where_it_failed(launch, python, plain, tmp_path):
    """Fails under torchrun in the second epoch, in the right way; plain python resumes."""
    done = launch(torchrun(python), tmp_path, fail_after=6)
    assert done.returncode == 1
    assert "train.py: error: as asked" in done.stderr
    assert not (tmp_path / "model").exists()
    done = launch([python], tmp_path, "--trainer.devices=2", "--resume=true")
    assert done.returncode == 0, done.stderr
    assert_two_trained(tmp_path, plain)


@pytest.mark.parametrize(("launcher", "failing"), [(torchrun, 1), (lambda python: [python], 0)])
def test_a_process_that_fails_alone_says_so_and_ends_the_others(launch, python, tmp_path, launcher, failing):
    """It must not wait for the others to save a checkpoint with it: they wait for its gradients."""
    devices = [] if launcher is torchrun else ["--trainer.devices=2"]
    done = launch(launcher(python), tmp_path, *devices, fail_after=2, failing=failing)
    assert done.returncode != 0
    assert "train.py: error: as asked" in done.stderr
