"""Hidden states of a causal language model, taken at places inside it by hooks: no other layer is kept."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from models.decoders import layers


def inner_layer(llm: PreTrainedModel, point: str) -> nn.Module:
    """The layer of which a place (``localizers.base.StatePoint``) is the input or the output.

    Raises:
        ValueError: the language model has fewer layers.
    """
    found = layers(llm)
    number = int(point.removeprefix("after_block_")) if point.startswith("after_block_") else len(found)
    if not 1 <= number <= len(found):
        raise ValueError(
            f"{type(llm).__name__} has {len(found)} layers, and states behind layer {number} are asked for"
        )
    return found[number - 1]


class _Reached(Exception):
    """A layer has its output."""


@torch.no_grad()
def first_layers(llm: PreTrainedModel, layer: nn.Module, **inputs) -> Tensor:
    """The output (B, L, D) of a layer; those behind it are not run."""
    found = []

    def stop(_, args, output) -> None:
        found.append(output if isinstance(output, Tensor) else output[0])
        raise _Reached

    hook = layer.register_forward_hook(stop)
    try:
        llm.get_decoder()(**inputs)
    except _Reached:
        pass
    finally:
        hook.remove()
    return found[0]


@contextmanager
def watching(llm: PreTrainedModel, points: Sequence[str]) -> Iterator[dict[str, list[Tensor]]]:
    """Collects the hidden states (B, L, D) of each forward pass inside.

    Args:
        llm: the language model.
        points: places, see ``localizers.base.StatePoint``.
    """
    seen: dict[str, list[Tensor]] = {point: [] for point in points}

    def before(point: str, module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
        seen[point].append(args[0] if args else kwargs["hidden_states"])

    def behind(point: str, module: nn.Module, args: tuple[Tensor, ...], output) -> None:
        seen[point].append(output if isinstance(output, Tensor) else output[0])

    hooks = []
    for point in points:
        module = llm.get_decoder() if point == "after_norm" else inner_layer(llm, point)
        if point == "before_last_layer":
            hooks.append(module.register_forward_pre_hook(partial(before, point), with_kwargs=True))
        else:
            hooks.append(module.register_forward_hook(partial(behind, point)))
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()
