"""VideoExpert's two experts: one LoRA for the frame tokens of a language model, another for everything else.

Both are ordinary PEFT adapters, ``temporal`` and ``spatial``, active at once:

    y = W x + s (t B_T A_T x + (1 - t) B_S A_S x),   t = 1 at temporal positions   (VideoExpert, eqs. 7-9)

A layer computes them together, as one LoRA of both ranks whose inner states are masked: the hidden states are read
once, and no row of them is copied or moved.

Shape suffixes: B dialogues or videos, L tokens, R rank.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from models.checkpoints import check_keys, lora_config, merge_loras, wrap
from models.token_router import Router
from models.weights import EXPERTS, Lora

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel


def expert_configs(
    rank: int = 64,
    temporal_share: float = 0.5,
    scale: float = 2.0,
    dropout: float = 0.05,
    target_modules: str | list[str] = "all-linear",
) -> "tuple[LoraConfig | None, LoraConfig | None]":
    """Configurations of the temporal and the spatial expert that share a rank (VideoExpert, fig. 5).

    Args:
        rank: of both together.
        temporal_share: part of it that the temporal expert gets; an expert with rank 0 is absent.
        scale: alpha / rank, the same for both.
        dropout: on the input of both.
        target_modules: names of the layers they sit on, see ``models.checkpoints.lora_config``.

    Raises:
        ValueError: the share is not between 0 and 1, or there is no rank to share.
    """
    if not 0 <= temporal_share <= 1 or rank < 1:
        raise ValueError(f"cannot give a share of {temporal_share} of rank {rank} to the temporal expert")
    temporal = round(rank * temporal_share)
    ranks = (temporal, rank - temporal)
    first, second = (lora_config(r, scale * r, dropout, target_modules) if r else None for r in ranks)
    return first, second


def add_experts(
    llm: PreTrainedModel,
    temporal: "LoraConfig | None",
    spatial: "LoraConfig | None",
    tensors: dict[str, dict[str, Tensor]] | None = None,
) -> "PeftModel":
    """Put the two experts on a language model, both trainable.

    For one joint LoRA (the ablation) use ``models.checkpoints.add_lora``; ``route`` then changes nothing.

    Args:
        llm: the base model, changed in place.
        temporal: acts where ``route`` says so; None: the expert is absent and nothing acts there.
        spatial: acts everywhere else; None: absent. Rows of new tokens (``trainable_token_indices``) belong here.
        tensors: of each expert under PEFT's names; None: A random, B zero.

    Raises:
        ValueError: both are absent, a configuration is not a plain LoRA, their dropouts differ, or tensors do not fit.
    """
    configs = {name: config for name, config in zip(EXPERTS, (temporal, spatial), strict=True) if config is not None}
    if not configs:
        raise ValueError("both experts are absent: give at least one of them a rank")
    if len({config.lora_dropout for config in configs.values()}) > 1:
        raise ValueError(f"experts share one dropout, got {temporal.lora_dropout} and {spatial.lora_dropout}")
    model = None
    for name, config in configs.items():
        if config.bias != "none" or config.lora_bias:
            raise ValueError(f"the {name} expert has a bias, which would act on every position: use bias='none'")
        if model is None:
            model = wrap(llm, config, adapter_name=name)
        else:
            model.add_adapter(name, config)
    model.base_model.set_adapter(list(configs))
    if tensors is not None:
        _set_tensors(model, list(configs), tensors)
    _connect(model, Router(llm.get_decoder()))
    return model


def _connect(model: "PeftModel", router: Router) -> None:
    from peft.tuners.lora.layer import LoraLayer

    from models.expert_layers import BothExperts

    for path, layer in model.named_modules():
        if not isinstance(layer, LoraLayer):
            continue
        if ".experts." in path:
            raise ValueError(
                f"{path} sees the tokens that a mixture of experts sends to it, and not whole sequences, so that it "
                "cannot be told which are frames: name other target_modules"
            )
        if layer.lora_variant:
            raise ValueError(
                f"experts must be plain LoRAs, not {type(next(iter(layer.lora_variant.values()))).__name__}"
            )
        names = tuple(name for name in EXPERTS if name in layer.lora_B)
        layer.lora_variant.update(dict.fromkeys(names, BothExperts(router, names)))


def _router(model: nn.Module) -> Router | None:
    return getattr(model.get_decoder(), "expert_router", None)


@contextmanager
def route(model: nn.Module, temporal: Tensor | None) -> Iterator[None]:
    """Forward passes inside treat the marked positions as temporal; outside, all positions are spatial.

    The backward pass may come later, and with gradient checkpointing: every pass keeps the mask it ran with.

    Args:
        model: of ``add_experts``, or the language model inside it; a model without experts is left alone.
        temporal: (B, L) bool, true at temporal positions. It counts from the first position of the sequence, padding
            included, also where a cache holds the beginning; positions beyond it are spatial. None: there are none.

    Raises:
        ValueError: in a forward pass that the mask does not fit.
    """
    router = _router(model)
    if router is None:
        yield
        return
    outer, router.given = router.given, temporal
    try:
        yield
    finally:
        router.given = outer


def experts(model: "PeftModel") -> dict[str, Lora]:
    """Each expert's configuration and tensors under PEFT's names, for saving them."""
    names = [name for name in EXPERTS if name in model.peft_config]
    return {
        name: Lora(model.peft_config[name], {key: value.detach() for key, value in _parameters(model, name).items()})
        for name in names
    }


def put_experts(llm: PreTrainedModel, experts: dict[str, Lora]) -> "PeftModel":
    """Put experts with their tensors on a language model, changed in place; see ``add_experts``."""
    configs = {name: expert.config for name, expert in experts.items()}
    tensors = {name: expert.tensors for name, expert in experts.items()}
    return add_experts(llm, configs.get("temporal"), configs.get("spatial"), tensors)


def merge_experts(llm: PreTrainedModel, experts: dict[str, Lora]) -> PreTrainedModel:
    """Put experts on a language model, changed in place, to answer and not to learn.

    The spatial expert and the rows of new tokens become part of the weights, once. Frames have a LoRA left that is
    the difference of both experts; where there are no frames, the base alone runs. In float32 the states are those of
    ``put_experts`` up to rounding; below, the sum is rounded as that of any merged LoRA is. Experts that sit on
    different layers stay as they are.
    """
    layers = {frozenset(key for key in expert.tensors if ".lora_" in key) for expert in experts.values()}
    if "spatial" not in experts or len(layers) > 1:
        return put_experts(llm, experts)
    spatial = experts["spatial"]
    difference = _difference(experts.get("temporal"), spatial)
    return add_experts(merge_loras(llm, [spatial]), difference.config, None, {"temporal": difference.tensors})


def _difference(temporal: Lora | None, spatial: Lora) -> Lora:
    """What frames get that everything else does not, as one LoRA with a scale of 1."""
    signed = [(spatial, -1.0)] if temporal is None else [(temporal, 1.0), (spatial, -1.0)]
    tensors = {}
    for key in (key for key in spatial.tensors if ".lora_A." in key):
        other = key.replace(".lora_A.", ".lora_B.")
        scales = [sign * lora.config.lora_alpha / lora.config.r for lora, sign in signed]
        tensors[key] = torch.cat([lora.tensors[key] for lora, _ in signed])
        parts = [lora.tensors[other] * scale for (lora, _), scale in zip(signed, scales, strict=True)]
        tensors[other] = torch.cat(parts, dim=1)
    rank = sum(lora.config.r for lora, _ in signed)
    return Lora(lora_config(rank, rank, 0.0, spatial.config.target_modules), tensors)


def _parameters(model: "PeftModel", name: str) -> dict[str, nn.Parameter]:
    """An expert's parameters under the names of a PEFT file, which lack the adapter's name.

    PEFT's own function fails where only one of two adapters has rows of new tokens (0.21).
    """
    parts = ((key.split("."), value) for key, value in model.named_parameters())
    return {".".join(part for part in key if part != name): value for key, value in parts if name in key[-2:]}


def _set_tensors(model: "PeftModel", names: list[str], tensors: dict[str, dict[str, Tensor]]) -> None:
    if set(tensors) != set(names):
        raise ValueError(f"weights are of the experts {sorted(tensors)}, the model has {sorted(names)}")
    for name in names:
        expected = _parameters(model, name)
        check_keys(f"{name} expert", *({k: v.shape for k, v in each.items()} for each in (expected, tensors[name])))
        with torch.no_grad():
            for key, value in expected.items():
                value.copy_(tensors[name][key])
