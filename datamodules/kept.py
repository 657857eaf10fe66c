"""What is made from large files once and used again: arrays in a folder, found by the content of the files and mapped.

Processes of one machine share the pages of a mapped array. One of them makes it, and the others wait for it.
"""

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from command_line.paths import cache_folder
from datamodules.strict_json import read_object

CACHE = cache_folder() / "lines"
KEPT_FROM = 1 << 22
"""Bytes of files of which something is kept; smaller ones are read sooner than hashed and looked up."""
SETTLED_S = 2.0
"""A file that changed less long ago may change again without a sign: clocks of file systems tick slowly."""


def keep(name: Path, about: Mapping, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays, and what says that they are whole last. Where that cannot be, nothing is kept.

    Args:
        name: beginning of the paths that are written.
        about: what JSON can hold.
        arrays: by name.
    """
    mark = f".{os.getpid()}.partial"
    about = {**about, "shapes": {key: list(array.shape) for key, array in arrays.items()}}
    paths = [*(_array_path(name, key) for key in arrays), name.with_suffix(".json")]
    try:
        name.parent.mkdir(parents=True, exist_ok=True)
        for path, array in zip(paths, arrays.values(), strict=False):
            with open(f"{path}{mark}", "wb") as file:
                np.save(file, array, allow_pickle=False)
        Path(f"{paths[-1]}{mark}").write_text(json.dumps(about), encoding="utf-8")
        for path in paths:
            os.replace(f"{path}{mark}", path)
    except OSError:
        for path in paths:
            with suppress(OSError):
                os.unlink(f"{path}{mark}")


def load(name: Path, form: str, dtypes: Mapping[str, np.dtype]) -> tuple[dict, dict[str, np.ndarray]] | None:
    """What was kept, with its arrays mapped; None where it is not there, not whole, or of another ``format``."""
    try:
        about = read_object(name.with_suffix(".json"))
        if about["format"] != form:
            return None
        arrays = {key: mapped(_array_path(name, key)) for key in dtypes}
        whole = all(list(array.shape) == about["shapes"][key] for key, array in arrays.items())
        return (about, arrays) if whole and {k: a.dtype for k, a in arrays.items()} == dict(dtypes) else None
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        return None


def mapped(path: Path) -> np.ndarray:
    """An array in a file, of which what is looked at is read. Raises ValueError, OSError and EOFError."""
    return np.load(path, mmap_mode="r", allow_pickle=False)


def _array_path(name: Path, key: str) -> Path:
    return name.with_suffix(f".{key}.npy")


@contextmanager
def alone(name: Path) -> Iterator[None]:
    """Inside, no other process of this machine makes what has this name; where files cannot be locked, others may."""
    lock = _locked(name.with_suffix(".lock"))
    try:
        yield
    finally:
        if lock is not None:
            with suppress(OSError):
                name.with_suffix(".lock").unlink()
            os.close(lock)


def _locked(path: Path) -> int | None:
    """A descriptor that holds the lock; None where there are no locks."""
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            return None
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            if os.path.samestat(os.fstat(file), path.stat()):
                return file
        except FileNotFoundError:  # who held it took it away
            pass
        except OSError:
            os.close(file)
            return None
        os.close(file)


def beside(name: Path, what: str, paths: Sequence[Path]) -> Path:
    """A name for something that depends on what has the other name, and on files that would be too much to read."""
    states = [(path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    return name.with_name(f"{name.name[:32]}-{what}-{hashlib.sha256(repr(states).encode()).hexdigest()[:32]}")


def file_fingerprint(*paths: Path) -> str:
    """SHA-256 of the content of files, one behind the other; it is read piece by piece."""
    digest = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            hashlib.file_digest(file, lambda: digest)
    return digest.hexdigest()


def remembered(what: str, paths: Sequence[Path], make: Callable[[], str], cache: Path | None = None) -> str:
    """What ``make`` gives for files, from what it gave before as long as the files were not touched.

    A file is taken for untouched while its place on the disk, size, and the time of its last change (which no program
    can set) stay.

    Args:
        what: it is.
        paths: of the files that it depends on; small ones are read again.
        make: reads them.
        cache: folder; None: ``CACHE``.

    Raises:
        OSError: as ``make`` does, or a file is not there.
    """
    cache = CACHE if cache is None else cache
    states = [path.stat() for path in paths]
    if sum(state.st_size for state in states) < KEPT_FROM:
        return make()
    now = [[state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns] for state in states]
    identity = "\0".join([what, *(str(path.resolve()) for path in paths)])
    name = cache / f"print-{hashlib.sha256(identity.encode()).hexdigest()[:32]}"
    with alone(name):
        about = load(name, what, {})
        if about and about[0].get("state") == now and isinstance(about[0].get("value"), str):
            return about[0]["value"]
        began, value = time.time(), make()
        if all(state.st_ctime < began - SETTLED_S for state in states):
            keep(name, {"format": what, "state": now, "value": value}, {})
        return value
