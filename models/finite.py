"""Numbers that are none: NaN and infinity in what was trained."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor


def not_finite(named: Iterable[tuple[str, Tensor]]) -> list[str]:
    """Names of the tensors that hold a NaN or an infinity."""
    named = [(name, tensor) for name, tensor in named if tensor.is_floating_point()]
    if not named:
        return []
    device = named[0][1].device
    flags = torch.stack([tensor.detach().isfinite().all().to(device) for _, tensor in named])  # read in one transfer
    return [name for (name, _), fine in zip(named, flags.tolist(), strict=True) if not fine]


def check_finite(parts: Mapping[str, Mapping[str, Tensor]], whose: str) -> None:
    """Refuse weights that are no numbers.

    Args:
        parts: tensors by part (``adapter``, ``lora-1``, ..) and name.
        whose: what the weights are, for the message.

    Raises:
        ValueError: naming the first of them.
    """
    named = [(f"{part} {name}", tensor) for part, tensors in parts.items() for name, tensor in tensors.items()]
    if broken := not_finite(named):
        raise ValueError(
            f"{whose}: {len(broken)} of {len(named)} tensors hold NaN or infinity, first {broken[0]}; "
            "the training diverged"
        )
