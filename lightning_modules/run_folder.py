"""The files of a run from which it goes on: complete or absent, and of one run at a time."""

import fcntl
import os
import shutil
import socket
import zipfile
from collections.abc import Callable
from pathlib import Path

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn

PARTIAL = ".partial"
"""Ends the name of what is being written."""


class WholeFiles(TorchCheckpointIO):
    """Writes a checkpoint beside its place and moves it there when it is on the disk, so that it is whole or absent.

    Args:
        later: keep what went wrong in ``error`` in place of raising it, for all processes to learn of it together.
    """

    def __init__(self, later: bool = False):
        self.later = later
        self.error: str | None = None

    def save_checkpoint(self, checkpoint: dict, path: str | Path, storage_options=None) -> None:
        """Write it. Raises OSError with the file's name where there is no room for it."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + PARTIAL)
        try:
            with open(partial, "wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            move(partial, path)
        except (OSError, RuntimeError) as error:  # torch's writer says RuntimeError where the disk is full
            partial.unlink(missing_ok=True)
            raise OSError(
                f"{path} could not be written: {_cause(error)}; the checkpoints of before are whole"
            ) from error


def _cause(error: BaseException) -> str:
    """The system's words, also where torch's are around them."""
    while not isinstance(error, OSError) and error.__context__ is not None:
        error = error.__context__
    return os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error).splitlines()[0]


def move(partial: Path, path: Path) -> None:
    """Give what is written its name, in place of what had it; after a power cut it has one or the other."""
    if path.is_dir():
        old = path.with_name(f"{path.name}.old{PARTIAL}")
        shutil.rmtree(old, ignore_errors=True)
        path.rename(old)
        partial.rename(path)
        shutil.rmtree(old)
    else:
        partial.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def whole_folder(folder: Path, write: Callable[[Path], None]) -> None:
    """Let a folder be written as a whole.

    Args:
        folder: the name that it has in the end.
        write: writes the files into the folder that it is given.
    """
    partial = folder.with_name(folder.name + PARTIAL)
    shutil.rmtree(partial, ignore_errors=True)
    try:
        write(partial)
        for path in partial.rglob("*"):
            if path.is_file():
                with open(path, "rb") as file:
                    os.fsync(file.fileno())
        move(partial, folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


@rank_zero_only
def tidy(output: Path) -> None:
    """Remove what dead runs have left half-written. Only for who holds the folder, see ``Lock``."""
    old, model = output / f"model.old{PARTIAL}", output / "model"
    if old.is_dir() and not model.is_dir():  # it died between two renames
        old.rename(model)
    for path in [*output.glob(f"*{PARTIAL}"), *(output / "checkpoints").glob(f"*{PARTIAL}")]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def find_checkpoint(output: Path, resume: bool | str) -> Path | None:
    """The run folder's newest checkpoint that can be read if the run is to go on, nothing if it is to start.

    Args:
        output: run folder.
        resume: True: the run goes on; False: it starts; ``auto``: it goes on where there is something.

    Raises:
        ValueError: there is nothing to go on from, or something that a new start would overwrite.
    """
    last, made = output / "checkpoints" / "last.ckpt", output / "model" / "manifest.json"
    there = checkpoints(output)
    if resume is True and not there:
        raise ValueError(f"--resume true, but there is no {last}")
    if not resume and there:
        there = [last] if last in there else there
        raise ValueError(f"{there[0]} exists: add --resume true to go on with that run, or choose another --output")
    if not there and made.is_file():
        raise ValueError(f"{made} exists, of a finished run without checkpoints: choose another --output")
    return newest(there) if there else None


def checkpoints(output: Path) -> list[Path]:
    """Those that a run goes on from: not those that are kept because their weights were best."""
    found = [path for path in (output / "checkpoints").glob("*.ckpt") if not path.name.startswith("best-")]
    return sorted(found)


def newest(paths: list[Path]) -> Path:
    """The checkpoint of most steps among those that can be read; says so of the others.

    Raises:
        ValueError: none can be read.
    """
    steps, broken = {}, {}
    for path in paths:
        try:
            steps[path] = step_of(path)
        except ValueError as error:
            broken[path] = error
    if not steps:
        raise ValueError("; ".join(map(str, broken.values())) + "; choose another --output for a new run")
    chosen = max(steps, key=lambda path: (steps[path], path.name == "last.ckpt", path.stat().st_mtime))
    for error in broken.values():
        rank_zero_warn(f"{error}: going on from {chosen.name}, step {steps[chosen]}")
    return chosen


def step_of(path: Path) -> int:
    """The step behind which a checkpoint stands. Raises ValueError where it cannot be read, every byte of it."""
    try:
        with zipfile.ZipFile(path) as archive:
            if damaged := archive.testzip():
                raise ValueError(f"{damaged} is damaged")
        return int(read(path)["global_step"])
    except Exception as error:  # torch raises whatever its zip reader, pickle or mmap raises
        what = "it is empty" if path.is_file() and not path.stat().st_size else str(error).splitlines()[0]
        raise ValueError(f"{path} cannot be read as a checkpoint ({what})") from error


def read(path: Path) -> dict:
    """A checkpoint, whose tensors stay in the file until they are used."""
    return torch.load(path, map_location="cpu", weights_only=True, mmap=True)


class Lock:
    """Holds a run folder for one run, on rank 0. A process that dies lets it go.

    It is a POSIX lock on ``run.lock``, which names the process. Data workers do not inherit it.
    """

    def __init__(self, output: Path):
        self.path = output / "run.lock"
        self._file = None

    @rank_zero_only
    def take(self) -> None:
        """Raise ValueError where another process has the folder."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(self.path, "a+")  # noqa: SIM115 (it stays open as long as the run)
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            self._file.seek(0)
            owner = self._file.read().strip() or "another process"
            self._file.close()
            self._file = None
            raise ValueError(
                f"{self.path.parent} is in use by {owner}: wait for it, or choose another --output"
            ) from None
        except OSError as error:  # a file system without locks
            rank_zero_warn(f"{self.path} cannot be locked ({error.strerror}): do not start a second run in this folder")
        self._file.truncate(0)
        self._file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        self._file.flush()

    def release(self) -> None:
        """Let it go, and leave no empty folder behind."""
        if self._file is None:
            return
        self.path.unlink(missing_ok=True)
        self._file.close()
        self._file = None
        if not any(self.path.parent.iterdir()):
            self.path.parent.rmdir()
