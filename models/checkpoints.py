"""What a run leaves behind and the next one starts from: adapter and LoRA weights beside a named base model.

A weights folder holds ``manifest.json``, ``adapter.safetensors``, ``head.safetensors`` where the localizer learns
anything, one PEFT folder ``lora-1``, ``lora-2``, .. for each LoRA, in the order in which they are merged into the base,
and PEFT folders ``temporal`` and ``spatial`` where there are experts, which stay beside it. The base itself is referred
to by name and fingerprint. The released VTimeLLM folders are read as well.
"""

import hashlib
import os
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from datamodules.tokenizers import as_published
from models.gguf import converted, gguf_file
from models.manifest import MANIFEST, check_parts, expert_names, lora_names, read_manifest, write_manifest
from models.released import read_lora, read_released, released_stages
from models.tensor_files import first, read_tensors, save_tensors
from models.vocabulary import is_tied
from models.weights import Lora, Weights

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel

COMPUTE_TYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def compute_type(name: str) -> torch.dtype:
    """A floating type by its name. Raises ValueError for any other name."""
    known = {str(dtype).removeprefix("torch."): dtype for dtype in COMPUTE_TYPES}
    if name not in known:
        raise ValueError(f"dtype {name!r} is none to compute in; known: {', '.join(known)}")
    return known[name]


def load_llm(name: str, dtype: torch.dtype) -> PreTrainedModel:
    """A causal LM from a local folder, a GGUF file (see ``models.gguf``) or the hub.

    Raises:
        ValueError: there is no such folder or file and no such cached or reachable model.
    """
    return _load(AutoModelForCausalLM, name, dtype=dtype)


def checkpoint_activations(llm: PreTrainedModel) -> None:
    """Recompute activations in the backward pass; transformers 5.24 renamed the method."""
    enable = getattr(llm, "activation_checkpointing_enable", llm.gradient_checkpointing_enable)
    enable({"use_reentrant": False})


def best_device() -> torch.device:
    """CUDA or MPS where there is one, and this process's part of it, else the CPU."""
    if not torch.accelerator.is_available():
        return torch.device("cpu")
    number = int(os.environ.get("LOCAL_RANK", 0)) % torch.accelerator.device_count()
    return torch.device(torch.accelerator.current_accelerator().type, number)


def load_config(name: str) -> PreTrainedConfig:
    """The configuration of the same model. Raises ValueError as ``load_llm`` does."""
    return _load(AutoConfig, name)


def empty_llm(name: str, dtype: torch.dtype) -> PreTrainedModel:
    """The same model without its weights, on whatever device is the default. Raises ValueError as ``load_llm`` does."""
    return AutoModelForCausalLM.from_config(load_config(name), dtype=dtype)


def load_tokenizer(name: str, what: str = "llm", **settings) -> PreTrainedTokenizerBase:
    """The tokenizer of a causal LM, or of ``what`` else, which encodes as its published files say.

    Raises:
        ValueError: there is no such tokenizer, as for ``load_llm``, or none that can be used (see ``as_published``).
    """
    tokenizer = _load(AutoTokenizer, name, what, **settings)
    as_published(tokenizer, tokenizer.name_or_path)  # of a GGUF file, the folder that was made of it
    return tokenizer


def _load(kind: type, name: str, what: str = "llm", **settings):
    if file := gguf_file(name):
        name = str(converted(file))
    try:
        return kind.from_pretrained(name, **settings)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{what} {name!r} is neither a folder with a checkpoint nor a model of the hub that can be reached: "
            f"{first(error)}"
        ) from error
    except pickle.UnpicklingError:
        raise ValueError(
            f"{what} {name!r} holds a pickle with other objects than plain tensors, and these are not loaded; convert "
            "it to safetensors where you trust it"
        ) from None
    except torch.OutOfMemoryError:
        raise
    except (SafetensorError, RuntimeError, LookupError, TypeError, AttributeError, EOFError, ArithmeticError) as error:
        raise ValueError(f"{what} {name!r} is damaged: {type(error).__name__}: {first(error)}") from error


def fingerprint(llm: PreTrainedModel) -> str:
    """A short hash of a model's parameter names, shapes and the signs of their first values.

    It tells one set of weights from another without reading them all, and is the same in every precision.
    """
    digest = hashlib.sha256()
    for name, parameter in sorted(llm.named_parameters()):
        signs = parameter.detach().flatten()[:4096].signbit().cpu().numpy()
        digest.update(f"{name}{tuple(parameter.shape)}".encode() + np.packbits(signs).tobytes())
    return digest.hexdigest()[:16]


def lora_config(r: int, alpha: float, dropout: float, targets: str | list[str] = "all-linear", **more) -> "LoraConfig":
    """LoRA on linear layers: by default all of the language model but the output layer (VTimeLLM, section 4.1)."""
    from peft import LoraConfig

    return LoraConfig(
        r=r, lora_alpha=alpha, lora_dropout=dropout, target_modules=targets, bias="none", task_type="CAUSAL_LM", **more
    )


def add_lora(llm: PreTrainedModel, config: "LoraConfig", tensors: dict[str, Tensor] | None = None) -> "PeftModel":
    """Put a LoRA on a model: a new one (A random, B zero), or one with the given tensors.

    Raises:
        ValueError: the tensors are not those of this configuration on this model.
    """
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    model = wrap(llm, config)
    if tensors is not None:
        expected = lora_tensors(model)
        check_keys("LoRA", {k: v.shape for k, v in expected.items()}, {k: v.shape for k, v in tensors.items()})
        first = {storage(tensor): name for name, tensor in expected.items()}
        every = get_peft_model_state_dict(model, save_embedding_layers=False)
        set_peft_model_state_dict(model, {name: tensors[first[storage(value)]] for name, value in every.items()})
    return model


def lora_tensors(model: "PeftModel") -> dict[str, Tensor]:
    """The tensors of a LoRA under PEFT's names; of one that has two (tied matrices that learn) under the first."""
    from peft import get_peft_model_state_dict

    tensors, seen = {}, set()
    for name, tensor in get_peft_model_state_dict(model, save_embedding_layers=False).items():
        if storage(tensor) not in seen:
            tensors[name] = tensor
            seen.add(storage(tensor))
    return tensors


def storage(tensor: Tensor) -> int:
    """Tells tensors that share their numbers from others, also where there are none yet (``meta``)."""
    return tensor.untyped_storage()._cdata


def wrap(llm: PreTrainedModel, config: "LoraConfig", **settings) -> "PeftModel":
    """PEFT's ``get_peft_model``.

    Raises:
        ValueError: the LoRA cannot sit on this model.
    """
    from peft import get_peft_model
    from peft.tuners.lora import Linear as PlainLora
    from peft.tuners.lora import LoraLayer

    name = type(llm).__name__
    try:
        model = get_peft_model(llm, config, **settings)
    except ValueError as error:
        remedy = "name other target_modules, or on a mixture of experts set dropout: 0"
        raise ValueError(f"no LoRA with these settings can be put on {name}: {error} ({remedy})") from error
    if config.ensure_weight_tying and not is_tied(model):
        raise ValueError(
            f"{name} has one matrix for input and output, which PEFT would train apart; use its rows alone"
        )
    for path, layer in model.named_modules():
        base = layer.get_base_layer() if isinstance(layer, LoraLayer) else None
        plain = type(layer) is not PlainLora or type(base).forward is torch.nn.Linear.forward
        if isinstance(base, torch.nn.Linear) and not plain:
            raise ValueError(f"{name}: {path} is no plain linear layer; name target_modules without it")
    return model


def merge_loras(llm: PreTrainedModel, loras: Sequence[Lora]) -> PreTrainedModel:
    """Add each LoRA to the weights it adapts: W += alpha / r * B A."""
    for lora in loras:
        llm = add_lora(llm, lora.config, lora.tensors).merge_and_unload()
    return llm


def check_keys(what: str, expected: dict[str, object], found: dict[str, object]) -> None:
    """Refuse weights with a missing, extra or differently shaped tensor.

    Raises:
        ValueError: naming the first differences of each kind.
    """
    problems = {
        "missing": sorted(expected.keys() - found.keys()),
        "not expected": sorted(found.keys() - expected.keys()),
        "of another shape": sorted(k for k in expected.keys() & found.keys() if expected[k] != found[k]),
    }
    found_problems = [f"{len(keys)} {kind}, first {keys[0]}" for kind, keys in problems.items() if keys]
    if found_problems:
        raise ValueError(f"{what} weights do not fit this model: {'; '.join(found_problems)}")


def write_weights(folder: Path, weights: Weights) -> None:
    """Write a weights folder.

    Raises:
        ValueError: a number is not finite.
        OSError: a file cannot be written.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, tensors in (("adapter", weights.adapter), ("head", weights.head)):
        if tensors:
            save_tensors(tensors, folder / f"{name}.safetensors")
    merged = {f"lora-{number}": lora for number, lora in enumerate(weights.loras, 1)}
    for name, lora in (merged | weights.experts).items():
        lora.config.save_pretrained(folder / name)
        save_tensors(lora.tensors, folder / name / "adapter_model.safetensors")
    write_manifest(folder, weights)


def read_weights(folder: Path) -> Weights:
    """Read the weights of a run folder, of a weights folder, of a checkpoint, or of the released VTimeLLM folders.

    Raises:
        ValueError: it is none of these, or a part is missing or damaged; the message names the file.
        OSError: a file cannot be read.
    """
    folder = Path(folder)
    if folder.suffix == ".ckpt":
        from models.training_checkpoints import read_checkpoint  # which needs this module

        return read_checkpoint(folder)
    inner = folder / "model" if (folder / "model" / MANIFEST).is_file() else folder
    if (inner / MANIFEST).is_file():
        return _read_folder(inner)
    if stages := released_stages(folder):
        return read_released(stages)
    raise ValueError(
        f"{folder} holds no trained weights: neither model/manifest.json (a finished run of train.py) "
        "nor *stage1/mm_projector.bin (the released VTimeLLM weights)"
    )


def _read_folder(folder: Path) -> Weights:
    manifest, listed = read_manifest(folder)
    adapter, head = folder / "adapter.safetensors", folder / "head.safetensors"
    weights = Weights(
        adapter=read_tensors(adapter) if listed is None or adapter.is_file() else {},
        head=read_tensors(head) if head.is_file() else {},
        loras=[read_lora(folder / name) for name in lora_names(folder)],
        experts={name: read_lora(folder / name) for name in expert_names(folder)},
        manifest=manifest,
    )
    check_parts(folder, weights, listed)
    return weights
