"""VideoExpert's two experts: one LoRA for the frame tokens of a language model, another for everything else.

Both are ordinary PEFT adapters, ``temporal`` and ``spatial``, active at once. Which of them acts on a position is
decided in the rank-wide space between their two matrices, so no row of the hidden states is copied or moved:

    y = W x + s (t B_T A_T x + (1 - t) B_S A_S x),   t = 1 at temporal positions   (VideoExpert, eqs. 7-9)

Shape suffixes: B dialogues or videos, L tokens.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from peft import LoraConfig, PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers import PreTrainedModel

from models.checkpoints import EXPERTS, Lora, check_keys, lora_config, wrap
from models.token_router import Router


def expert_configs(
    rank: int = 64,
    temporal_share: float = 0.5,
    scale: float = 2.0,
    dropout: float = 0.05,
    target_modules: str | list[str] = "all-linear",
) -> tuple[LoraConfig | None, LoraConfig | None]:
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
    temporal: LoraConfig | None,
    spatial: LoraConfig | None,
    tensors: dict[str, dict[str, Tensor]] | None = None,
) -> PeftModel:
    """Put the two experts on a language model, both trainable.

    For one joint LoRA (the ablation) use ``models.checkpoints.add_lora``; ``route`` then changes nothing.

    Args:
        llm: the base model, changed in place.
        temporal: acts where ``route`` says so; None: the expert is absent and nothing acts there.
        spatial: acts everywhere else; None: absent. Rows of new tokens (``trainable_token_indices``) belong here.
        tensors: of each expert under PEFT's names; None: A random, B zero.

    Raises:
        ValueError: both are absent, a configuration is not a plain LoRA, or tensors do not fit.
    """
    configs = {name: config for name, config in zip(EXPERTS, (temporal, spatial), strict=True) if config is not None}
    if not configs:
        raise ValueError("both experts are absent: give at least one of them a rank")
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


def _connect(model: PeftModel, router: Router) -> None:
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
        for name in EXPERTS:
            if name in layer.lora_B:
                layer.lora_B[name].register_forward_pre_hook(partial(_act, router, name == "temporal"))


def _act(router: Router, temporal: bool, _: nn.Module, args: tuple[Tensor]) -> Tensor:
    return router.select(args[0], temporal)


def _lora_layers(model: nn.Module) -> list[LoraLayer]:
    return [module for module in model.modules() if isinstance(module, LoraLayer)]


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


@contextmanager
def spatial_merged(model: nn.Module) -> Iterator[None]:
    """Inside, the spatial expert is part of the weights and costs nothing: for decoding after the prompt was read.

    A second copy of the adapted weights is held meanwhile, so that afterwards they are exactly what they were. In
    float32 the states agree up to rounding; in bfloat16 the sum is rounded, and answers may differ.
    Temporal positions are refused. A model without experts is left alone.
    """
    router = _router(model)
    layers = [] if router is None else [layer for layer in _lora_layers(model) if "spatial" in layer.lora_B]
    weights = [layer.get_base_layer().weight.data for layer in layers]
    try:
        with torch.no_grad():
            for layer, weight in zip(layers, weights, strict=True):
                merged = weight.float() + layer.get_delta_weight("spatial").float()
                layer.get_base_layer().weight.data = merged.to(weight.dtype)
                layer.merged_adapters.append("spatial")
        if layers:
            router.merged = True
        yield
    finally:
        for layer, weight in zip(layers, weights, strict=True):
            layer.get_base_layer().weight.data = weight
            layer.merged_adapters.clear()
        if layers:
            router.merged = False


def experts(model: PeftModel) -> dict[str, Lora]:
    """Each expert's configuration and tensors under PEFT's names, for saving them."""
    names = [name for name in EXPERTS if name in model.peft_config]
    return {
        name: Lora(model.peft_config[name], {key: value.detach() for key, value in _parameters(model, name).items()})
        for name in names
    }


def put_experts(llm: PreTrainedModel, experts: dict[str, Lora]) -> PeftModel:
    """Put experts with their tensors on a language model, changed in place; see ``add_experts``."""
    configs = {name: expert.config for name, expert in experts.items()}
    tensors = {name: expert.tensors for name, expert in experts.items()}
    return add_experts(llm, configs.get("temporal"), configs.get("spatial"), tensors)


def _parameters(model: PeftModel, name: str) -> dict[str, nn.Parameter]:
    """An expert's parameters under the names of a PEFT file, which lack the adapter's name.

    PEFT's own function fails where only one of two adapters has rows of new tokens (0.21).
    """
    parts = ((key.split("."), value) for key, value in model.named_parameters())
    return {".".join(part for part in key if part != name): value for key, value in parts if name in key[-2:]}


def _set_tensors(model: PeftModel, names: list[str], tensors: dict[str, dict[str, Tensor]]) -> None:
    if set(tensors) != set(names):
        raise ValueError(f"weights are of the experts {sorted(tensors)}, the model has {sorted(names)}")
    for name in names:
        expected = _parameters(model, name)
        check_keys(f"{name} expert", *({k: v.shape for k, v in each.items()} for each in (expected, tensors[name])))
        with torch.no_grad():
            for key, value in expected.items():
                value.copy_(tensors[name][key])
