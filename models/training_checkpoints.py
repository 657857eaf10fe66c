"""A checkpoint of a run as the weights of a model, without loading the base it was trained on.

Lightning's checkpoint holds the tensors that learn under the names of the module. What else makes a weights folder of
them lies beside, under ``parts``: the manifest, the settings of each LoRA, the part of the adapter that is frozen, and
which LoRAs of the stage before were merged into the base.
"""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from models.checkpoints import read_weights
from models.manifest import SCHEMA
from models.tensor_files import check_finite, first
from models.weights import EXPERTS, LORA_KEYS, Lora, Weights, lora_from

VERSION = 1
"""Of the ``parts`` of a checkpoint."""


@dataclass
class Parts:
    """What a weights folder needs beside the tensors that learn."""

    manifest: dict
    loras: dict[str, dict] = field(default_factory=dict)
    """Settings of each LoRA that learns, by PEFT's name of it."""
    adapter: dict[str, Tensor] = field(default_factory=dict)
    """The part of the visual adapter that does not learn, and its buffers."""
    previous: str | None = None
    """Weights of the stage before."""
    merged: int = 0
    """How many LoRAs of ``previous``, from the first, were merged into the base."""
    version: int = VERSION

    @classmethod
    def of(cls, model: nn.Module, manifest: dict, previous: Path | None, merged: int) -> "Parts":
        """Those of a model in training (a ``VideoLLM``); all processes must call it."""
        configs = getattr(model.llm, "peft_config", {})
        learning = {name for name, parameter in model.adapter.named_parameters() if parameter.requires_grad}
        return cls(
            manifest,
            loras={name: {key: plain(getattr(config, key)) for key in LORA_KEYS} for name, config in configs.items()},
            adapter={key: whole(value) for key, value in model.adapter.state_dict().items() if key not in learning},
            previous=str(previous) if previous else None,
            merged=merged,
        )


def whole(parameter: Tensor) -> Tensor:
    """A parameter's values, also where each process holds a part of them; all must call it."""
    return parameter.full_tensor() if isinstance(parameter, DTensor) else parameter.detach()


def plain(value):
    """A LoRA's setting as a checkpoint can hold it without a pickle of its class."""
    if isinstance(value, set):
        return sorted(value)
    return str(value.value) if hasattr(value, "value") else value


def assemble(learned: dict[str, Tensor], parts: Parts, merged: list[Lora]) -> Weights:
    """The weights of a model.

    Args:
        learned: tensors under the names that they have in the module: ``model.adapter.weight`` and so on.
        parts: what belongs to them.
        merged: LoRAs that were merged into the base, in their order.
    """
    adapter, head = dict(parts.adapter), {}
    tensors: dict[str, dict[str, Tensor]] = {name: {} for name in parts.loras}
    for key, value in learned.items():
        part, _, name = key.removeprefix("model.").partition(".")
        if part == "llm":
            lora, name = peft_name(name, parts.loras)
            tensors[lora][name] = value
        else:
            {"adapter": adapter, "head": head}[part][name] = value
    own = {name: Lora(lora_from(settings), tensors[name]) for name, settings in parts.loras.items()}
    experts = {name: own.pop(name) for name in EXPERTS if name in own}
    return Weights(adapter, [*merged, *own.values()], parts.manifest, head, experts)


def peft_name(key: str, loras: dict) -> tuple[str, str]:
    """Which LoRA a parameter of a PEFT model belongs to, and its name in a PEFT file, which lacks the LoRA's name."""
    words = key.split(".")
    (lora,) = [word for word in words[-2:] if word in loras]
    return lora, ".".join(word for word in words if word not in (lora, "modules_to_save"))


def read_checkpoint(path: Path, previous: Path | None = None) -> Weights:
    """The weights in a checkpoint of train.py.

    Args:
        path: of the ``.ckpt``.
        previous: the stage before, where it is not any more where the checkpoint names it.

    Raises:
        ValueError: it is none of train.py's, is of a time when they held less, or the stage before is not there.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except FileNotFoundError:
        raise
    except Exception as error:  # torch raises whatever its zip reader, pickle or mmap raises
        raise ValueError(f"{path} cannot be read as a checkpoint: {first(error)}") from error
    if not isinstance(checkpoint, dict) or "parts" not in checkpoint:
        raise ValueError(
            f"{path} does not say what its tensors belong to: it is of an earlier version, or not of train.py; go on "
            "with its run (--resume true), and the checkpoints and weights that this writes can be used"
        )
    parts = _parts(checkpoint, path)
    merged = []
    if parts.merged:
        try:
            merged = read_weights(previous or parts.previous).loras[: parts.merged]
        except ValueError as error:
            raise ValueError(f"{path} goes on from {previous or parts.previous}, and {error}") from error
    if len(merged) != parts.merged:
        raise ValueError(f"{path} goes on from {parts.merged} LoRAs of {previous or parts.previous}, which has less")
    try:
        weights = assemble(checkpoint["state_dict"], parts, merged)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{path}: its tensors are not those that its parts name ({error!r})") from None
    for name, tensors in weights.parts.items():
        check_finite(tensors, f"{path}, {name}")
    return weights


def _parts(checkpoint: dict, path: Path) -> Parts:
    """What belongs to the tensors of a checkpoint. Raises ValueError where it is damaged or of a later version."""
    try:
        parts = Parts(**checkpoint["parts"])
        SCHEMA.check(parts.manifest)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: parts: {error}") from None
    if parts.version != VERSION:
        raise ValueError(f"{path}: parts are of version {parts.version!r}, this WhenLM reads {VERSION}")
    return parts
