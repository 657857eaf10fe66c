"""Short names of many numbers: which base, and which weights of the stage before, a run was made of."""

import hashlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor
from transformers import PreTrainedModel

from models.checkpoints import Weights


def of_tensors(named: Iterable[tuple[str, Tensor]]) -> str:
    """A hash of every byte of tensors, with their names, shapes and types; several are read at once."""
    named = sorted(named, key=lambda pair: pair[0])
    with ThreadPoolExecutor() as threads:  # hashing a large buffer lets other threads run
        digests = list(threads.map(_digest, (tensor for _, tensor in named)))
    whole = hashlib.sha256()
    for (name, tensor), digest in zip(named, digests, strict=True):
        whole.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode() + digest)
    return whole.hexdigest()[:16]


def _digest(tensor: Tensor) -> bytes:
    plain = tensor.detach().cpu().contiguous().flatten()
    return hashlib.sha256(plain.view(torch.uint8).numpy().data).digest()


def of_base(llm: PreTrainedModel) -> str:
    """Of all of its parameters as they were loaded, so that it is another one in another precision."""
    return of_tensors(llm.named_parameters())


def of_weights(weights: Weights) -> str | None:
    """Of everything that was trained; None where there is nothing."""
    named = [(f"{part}.{name}", tensor) for part, tensors in weights.parts.items() for name, tensor in tensors.items()]
    return of_tensors(named) if named else None
