"""A frozen language model in 4 or 8 bits (bitsandbytes, extra ``quantization``), beside which LoRAs learn (QLoRA).

Weights are made small after everything was merged into them that belongs there: no sum is rounded twice.
"""

import importlib.util

import torch
from torch import nn
from transformers import PreTrainedModel

from models.decoders import layers
from models.quantization_names import Quantization

BYTES = {"nf4": (4 + 8 / 64 + 32 / (64 * 256)) / 8, "int8": 1.0}
"""Of a number: nf4 has a factor of 8 bits for 64 numbers, and one of 32 bits for 256 factors."""


def check_quantization(quantization: Quantization | None) -> None:
    """Refuse 4-bit and 8-bit weights where nothing makes them.

    Args:
        quantization: as configured; None: weights stay as they are.

    Raises:
        ValueError: bitsandbytes is not installed.
    """
    if quantization is None:
        return
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ValueError(f"quantization {quantization} needs bitsandbytes: pip install -e '.[quantization]'")


def quantize(
    llm: PreTrainedModel, quantization: Quantization, dtype: torch.dtype, device: torch.device
) -> PreTrainedModel:
    """Put the linear layers of the decoder into few bits, one after the other; embeddings and output stay as they are.

    Args:
        llm: changed in place; what is in its decoder layers ends on ``device``.
        quantization: ``nf4`` (QLoRA, double quantisation) or ``int8`` (LLM.int8()).
        dtype: to compute in.
        device: does the work and holds the result.
    """
    import bitsandbytes as bnb

    def of(layer: nn.Linear) -> nn.Linear:
        size = layer.in_features, layer.out_features, layer.bias is not None
        if quantization == "nf4":
            small = bnb.nn.Linear4bit(*size, compute_dtype=dtype, quant_type="nf4", device="meta")
            small.weight = bnb.nn.Params4bit(layer.weight.data, quant_type="nf4", module=small)
            small.support_avx512bf16_for_cpu = False  # it repacks weights in validation, and training cannot read them
        else:
            small = bnb.nn.Linear8bitLt(*size, has_fp16_weights=False, threshold=6.0, device="meta")
            small.weight = bnb.nn.Int8Params(layer.weight.data, requires_grad=False, has_fp16_weights=False)
        small.bias = layer.bias
        return small.to(device).requires_grad_(False)

    for block in layers(llm):
        for name, layer in [(n, m) for n, m in block.named_modules() if type(m) is nn.Linear]:
            parent, _, own = name.rpartition(".")
            setattr(block.get_submodule(parent), own, of(layer))
            layer.weight = None
    # PEFT asks for these names to choose its layers.
    setattr(llm, "is_loaded_in_4bit" if quantization == "nf4" else "is_loaded_in_8bit", True)
    return llm


def base_bytes(model: nn.Module, quantization: Quantization | None) -> float:
    """What the frozen parameters of a model take, also of one without numbers that was not quantised yet.

    Args:
        model: with a language model in it.
        quantization: in which it will be.
    """
    of_llm = getattr(model, "causal_lm", model)
    blocks = layers(of_llm) if quantization and hasattr(of_llm, "get_decoder") else ()
    linear = [module for block in blocks for module in block.modules() if isinstance(module, nn.Linear)]
    small = {id(layer.weight) for layer in linear if not layer.weight.requires_grad}
    frozen = [parameter for parameter in model.parameters() if not parameter.requires_grad]
    return sum(p.numel() * (BYTES[quantization] if id(p) in small else p.element_size()) for p in frozen)
