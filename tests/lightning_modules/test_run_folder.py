"""Files of a run are whole or absent, and a folder belongs to one run at a time."""

import errno
import multiprocessing
import os
import resource
import time
from multiprocessing.synchronize import Event
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from lightning_modules import preflight, run_folder
from lightning_modules.run_folder import Lock, WholeFiles, find_checkpoint, tidy, whole_folder


def write(output: Path, name: str, step: int) -> Path:
    path = output / "checkpoints" / name
    WholeFiles().save_checkpoint({"global_step": step, "numbers": torch.arange(1000.0)}, path)
    return path


def test_a_full_disk_leaves_the_checkpoint_of_before(tmp_path, monkeypatch):
    path = write(tmp_path, "last.ckpt", 3)
    before = path.read_bytes()

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(run_folder.os, "fsync", full)
    with pytest.raises(OSError, match=r"last\.ckpt could not be written: No space left on device; .* are whole"):
        write(tmp_path, "last.ckpt", 4)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["last.ckpt"]


def test_no_file_may_be_longer(tmp_path):
    """RLIMIT_FSIZE, which stops a write in its middle as a full disk does."""
    path = tmp_path / "last.ckpt"
    WholeFiles().save_checkpoint({"global_step": 1}, path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20000, limits[1]))
    try:
        with pytest.raises(OSError, match="last.ckpt could not be written: File too large"):
            WholeFiles().save_checkpoint({"global_step": 2, "x": torch.zeros(100000)}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert torch.load(tmp_path / "last.ckpt", weights_only=True) == {"global_step": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


def empty(path: Path) -> None:
    path.write_bytes(b"")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-300])


def page(path: Path) -> None:
    path.write_text("<html>404</html>")


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1  # within a tensor
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [empty, cut, page, flipped])
def test_the_newest_readable_checkpoint_is_taken(tmp_path, damage):
    good, best = write(tmp_path, "epoch=0-step=3.ckpt", 3), write(tmp_path, "best-step=9.ckpt", 9)
    damage(write(tmp_path, "last.ckpt", 6))
    with pytest.warns(UserWarning, match=r"last\.ckpt cannot be read .* going on from epoch=0-step=3\.ckpt, step 3"):
        assert find_checkpoint(tmp_path, True) == good
    damage(good)
    with pytest.raises(ValueError, match=r"step=3\.ckpt cannot be read .*last\.ckpt cannot be read"):
        find_checkpoint(tmp_path, "auto")
    assert best.is_file()


def test_a_stale_last_checkpoint_is_not_the_newest(tmp_path):
    write(tmp_path, "last.ckpt", 9)
    newer = write(tmp_path, "last-v1.ckpt", 21)  # as runs of before left it where their folder had moved
    assert find_checkpoint(tmp_path, True) == newer
    last = write(tmp_path, "last.ckpt", 21)
    assert find_checkpoint(tmp_path, True) == last


def test_to_start_to_go_on_and_auto(tmp_path):
    assert find_checkpoint(tmp_path, False) is find_checkpoint(tmp_path, "auto") is None
    with pytest.raises(ValueError, match="--resume true, but there is no"):
        find_checkpoint(tmp_path, True)
    torch.save({"global_step": 5}, tmp_path / "hpc_ckpt_1.ckpt")  # of Lightning's requeueing: not of this run
    assert find_checkpoint(tmp_path, "auto") is None
    last = write(tmp_path, "last.ckpt", 1)
    assert find_checkpoint(tmp_path, "auto") == find_checkpoint(tmp_path, True) == last
    with pytest.raises(ValueError, match="add --resume true"):
        find_checkpoint(tmp_path, False)


def test_what_dead_runs_left_is_removed(tmp_path):
    last = write(tmp_path, "last.ckpt", 1)
    (tmp_path / "checkpoints" / "last.ckpt.partial").write_text("half")
    (tmp_path / "model.partial").mkdir()
    (tmp_path / "model.partial" / "adapter.safetensors").write_text("half")
    (tmp_path / "model.old.partial").mkdir()  # died between two renames
    (tmp_path / "model.old.partial" / "manifest.json").write_text("{}")
    tidy(tmp_path)
    assert {path.name for path in tmp_path.rglob("*")} == {"checkpoints", "last.ckpt", "model", "manifest.json"}
    assert last.is_file()


def test_a_weights_folder_is_the_old_or_the_new_one(tmp_path):
    def make(text: str):
        def write(folder: Path) -> None:
            folder.mkdir()
            (folder / "a").write_text(text)
            if text == "broken":
                raise OSError(errno.ENOSPC, "No space left on device")

        return write

    whole_folder(tmp_path / "model", make("one"))
    with pytest.raises(OSError, match="No space"):
        whole_folder(tmp_path / "model", make("broken"))
    assert (tmp_path / "model" / "a").read_text() == "one"
    whole_folder(tmp_path / "model", make("two"))
    assert (tmp_path / "model" / "a").read_text() == "two"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def hold(folder: Path, taken: Event) -> None:
    lock = Lock(folder)
    lock.take()
    taken.set()
    time.sleep(100)


def test_a_second_run_is_refused_until_the_first_is_dead(tmp_path):
    fork = multiprocessing.get_context("fork")
    taken = fork.Event()
    holder = fork.Process(target=hold, args=(tmp_path, taken), daemon=True)
    holder.start()
    assert taken.wait(60)
    with pytest.raises(ValueError, match=f"is in use by process {holder.pid} on .*choose another --output"):
        Lock(tmp_path).take()
    holder.kill()
    holder.join()
    lock = Lock(tmp_path)
    lock.take()
    assert str(os.getpid()) in lock.path.read_text()
    lock.release()
    assert not lock.path.exists()


def test_too_little_room_is_warned_of(tmp_path, monkeypatch):
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda folder: SimpleNamespace(free=100))
    with pytest.warns(UserWarning, match=r"checkpoints take about 0\.04 GB, and 0\.00 GB are free"):
        preflight.check_room(tmp_path / "run", 1_000_000, 4)
