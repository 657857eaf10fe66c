"""Files of tensors: read without running anything that is in them, refused by name where they are damaged."""

import hashlib
import pickle
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

REMEDY = "copy it again from its source"


def save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Write safetensors, with the mode of any new file.

    Raises:
        ValueError: a number is not finite.
        OSError: the file cannot be written.
    """
    check_finite(tensors, path)
    try:
        save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, path)
    except SafetensorError as error:
        raise OSError(f"{path} cannot be written: {error}") from None
    readable(path)


def readable(path: Path) -> None:
    """Give a file the mode that any new file gets here; safetensors writes for its owner alone (0600)."""
    new = path.with_name(f".{path.name}.mode")
    new.touch()
    path.chmod(new.stat().st_mode & 0o777)
    new.unlink()


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a ``.safetensors`` file, or of a ``.bin`` that holds plain tensors.

    Raises:
        ValueError: naming the file; it is none, is damaged, or holds NaN or infinity.
        OSError: it is not there, or cannot be read.
    """
    tensors = _read_bin(path) if path.suffix == ".bin" else _read_safetensors(path)
    check_finite(tensors, path)
    return tensors


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; {REMEDY}")
    try:
        return load_file(path)
    except (SafetensorError, ValueError, KeyError, TypeError, OverflowError, RuntimeError, MemoryError) as error:
        raise ValueError(f"{path} cannot be read as safetensors: {error!r}; {REMEDY}") from None


def plain_pickle(path: Path) -> Any:
    """What ``torch.save`` wrote of tensors, numbers, texts and lists; any other object is refused and never made.

    Raises:
        ValueError: naming the file; it is damaged, or holds another object.
        OSError: it is not there, or cannot be read.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except pickle.UnpicklingError:
        raise ValueError(f"{path} holds other objects than plain tensors, and these are not loaded") from None
    except Exception as error:  # torch raises whatever its zip reader or its unpickler raises
        raise ValueError(f"{path} cannot be read as tensors: {first(error)}; {REMEDY}") from None


def _read_bin(path: Path) -> dict[str, Tensor]:
    content = plain_pickle(path)
    if not isinstance(content, dict) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in content.items()
    ):
        raise ValueError(f"{path} holds other objects than tensors by their names")
    return content


def first(error: Exception) -> str:
    """The first line of an error, its kind where it says nothing; torch's advice to load pickles all the same is not
    handed on.
    """
    if "weights_only" in str(error):
        return "it holds other objects than plain tensors"
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def check_finite(tensors: dict[str, Tensor], where: Path | str) -> None:
    """Raise ValueError if a number is NaN or infinite."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise ValueError(f"{where}: {name} holds NaN or infinity, as a run leaves behind that has diverged")


def fingerprint_of(tensors: dict[str, Tensor]) -> str:
    """SHA-256 of names, types, shapes and numbers."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
