"""What a run leaves behind and the next one starts from: adapter and LoRA weights beside a named base model.

A weights folder holds ``manifest.json``, ``adapter.safetensors``, ``head.safetensors`` where the localizer learns
anything, one PEFT folder ``lora-1``, ``lora-2``, .. for each LoRA, in the order in which they are merged into the base,
and PEFT folders ``temporal`` and ``spatial`` where there are experts, which stay beside it. The base itself is referred
to by name and fingerprint. The released VTimeLLM folders are read as well.
"""

import hashlib
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.lora import Linear as PlainLora
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from datamodules.tokenizers import as_published
from models.finite import check_finite
from models.gguf import converted, gguf_file
from models.vocabulary import is_tied

EXPERTS = ("temporal", "spatial")
"""Names of the experts of ``models.routed_lora``."""
LORA_KEYS = (
    "r", "lora_alpha", "lora_dropout", "target_modules", "task_type", "modules_to_save", "trainable_token_indices",
    "ensure_weight_tying",
)  # fmt: skip
"""Settings of a LoRA that matter here. PEFT files of other versions have others beside, and may lack the last three."""


@dataclass
class Lora:
    """One low-rank adapter: its configuration and its tensors under PEFT's names."""

    config: LoraConfig
    tensors: dict[str, Tensor]


@dataclass
class Weights:
    """Everything that was trained on top of a base model."""

    adapter: dict[str, Tensor] = field(default_factory=dict)
    """State dict of the visual adapter; empty if there is none yet."""
    loras: list[Lora] = field(default_factory=list)
    """In the order in which they were trained and are merged."""
    manifest: dict = field(default_factory=dict)
    """What made them: base, localizer, conversation format, stage, features."""
    head: dict[str, Tensor] = field(default_factory=dict)
    """State dict of what the localizer learns on hidden states; empty if it learns nothing."""
    experts: dict[str, Lora] = field(default_factory=dict)
    """By name; they act on the base with ``loras`` merged. Empty if there are none."""

    def parts(self) -> dict[str, dict[str, Tensor]]:
        """The tensors of each part that has any, by the name of its file or folder."""
        loras = {f"lora-{number}": lora for number, lora in enumerate(self.loras, 1)} | self.experts
        parts = {"adapter": self.adapter, "head": self.head} | {name: lora.tensors for name, lora in loras.items()}
        return {name: tensors for name, tensors in parts.items() if tensors}


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


def empty_llm(name: str, dtype: torch.dtype) -> PreTrainedModel:
    """The same model without its weights, on whatever device is the default. Raises ValueError as ``load_llm`` does."""
    return AutoModelForCausalLM.from_config(_load(AutoConfig, name), dtype=dtype)


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
            f"{str(error).splitlines()[0]}"
        ) from error


def fingerprint(llm: PreTrainedModel) -> str:
    """A short hash of a model's parameter names, shapes and the signs of their first values.

    It tells one set of weights from another without reading them all, and is the same in every precision.
    """
    digest = hashlib.sha256()
    for name, parameter in sorted(llm.named_parameters()):
        signs = parameter.detach().flatten()[:4096].signbit().cpu().numpy()
        digest.update(f"{name}{tuple(parameter.shape)}".encode() + np.packbits(signs).tobytes())
    return digest.hexdigest()[:16]


def lora_config(r: int, alpha: float, dropout: float, targets: str | list[str] = "all-linear", **more) -> LoraConfig:
    """LoRA on linear layers: by default all of the language model but the output layer (VTimeLLM, section 4.1)."""
    return LoraConfig(
        r=r, lora_alpha=alpha, lora_dropout=dropout, target_modules=targets, bias="none", task_type="CAUSAL_LM", **more
    )


def add_lora(llm: PreTrainedModel, config: LoraConfig, tensors: dict[str, Tensor] | None = None) -> PeftModel:
    """Put a LoRA on a model: a new one (A random, B zero), or one with the given tensors.

    Raises:
        ValueError: the tensors are not those of this configuration on this model.
    """
    model = wrap(llm, config)
    if tensors is not None:
        expected = lora_tensors(model)
        check_keys("LoRA", {k: v.shape for k, v in expected.items()}, {k: v.shape for k, v in tensors.items()})
        first = {storage(tensor): name for name, tensor in expected.items()}
        every = get_peft_model_state_dict(model, save_embedding_layers=False)
        set_peft_model_state_dict(model, {name: tensors[first[storage(value)]] for name, value in every.items()})
    return model


def lora_tensors(model: PeftModel) -> dict[str, Tensor]:
    """The tensors of a LoRA under PEFT's names; of one that has two (tied matrices that learn) under the first."""
    tensors, seen = {}, set()
    for name, tensor in get_peft_model_state_dict(model, save_embedding_layers=False).items():
        if storage(tensor) not in seen:
            tensors[name] = tensor
            seen.add(storage(tensor))
    return tensors


def storage(tensor: Tensor) -> int:
    """Tells tensors that share their numbers from others, also where there are none yet (``meta``)."""
    return tensor.untyped_storage()._cdata


def wrap(llm: PreTrainedModel, config: LoraConfig, **settings) -> PeftModel:
    """PEFT's ``get_peft_model``.

    Raises:
        ValueError: the LoRA cannot sit on this model.
    """
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
    """Write a weights folder."""
    folder = Path(folder)
    check_finite(weights.parts(), f"{folder} was not written")
    folder.mkdir(parents=True, exist_ok=True)
    for name, tensors in (("adapter", weights.adapter), ("head", weights.head)):
        if tensors:
            _save(tensors, folder / f"{name}.safetensors")
    merged = {f"lora-{number}": lora for number, lora in enumerate(weights.loras, 1)}
    for name, lora in (merged | weights.experts).items():
        lora.config.save_pretrained(folder / name)
        _save(lora.tensors, folder / name / "adapter_model.safetensors")
    (folder / "manifest.json").write_text(json.dumps(weights.manifest, indent=2) + "\n")


def _save(tensors: dict[str, Tensor], path: Path) -> None:
    save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, path)
    readable(path)


def readable(path: Path) -> None:
    """Give a file the mode that any new file gets here; safetensors writes for its owner alone (0600)."""
    new = path.with_name(f".{path.name}.mode")
    new.touch()
    path.chmod(new.stat().st_mode & 0o777)
    new.unlink()


def read_weights(folder: Path) -> Weights:
    """Read the weights of a run folder, of a weights folder, of a checkpoint, or of the released VTimeLLM folders.

    Raises:
        ValueError: it is none of these (the message says what was looked for), or holds NaN.
    """
    weights = _read(Path(folder))
    check_finite(weights.parts(), str(folder))
    return weights


def _read(folder: Path) -> Weights:
    if folder.suffix == ".ckpt":
        from models.training_checkpoints import read_checkpoint  # which needs this module

        return read_checkpoint(folder)
    inner = folder / "model" if (folder / "model" / "manifest.json").is_file() else folder
    if (inner / "manifest.json").is_file():
        return Weights(
            adapter=load_file(inner / "adapter.safetensors"),
            head=load_file(inner / "head.safetensors") if (inner / "head.safetensors").is_file() else {},
            loras=[_read_lora(path) for path in sorted(inner.glob("lora-*"), key=lambda p: int(p.name[5:]))],
            experts={name: _read_lora(inner / name) for name in EXPERTS if (inner / name).is_dir()},
            manifest=json.loads((inner / "manifest.json").read_text()),
        )
    if stages := _released_stages(folder):
        return _read_released(stages)
    raise ValueError(
        f"{folder} holds no trained weights: neither model/manifest.json (a finished run of train.py) "
        "nor *stage1/mm_projector.bin (the released VTimeLLM weights)"
    )


def _read_lora(folder: Path) -> Lora:
    config = lora_from(json.loads((folder / "adapter_config.json").read_text()))
    safe = folder / "adapter_model.safetensors"
    tensors = load_file(safe) if safe.is_file() else _load_bin(folder / "adapter_model.bin")
    return Lora(config, tensors)


def lora_from(settings: dict) -> LoraConfig:
    """A LoRA's configuration from settings that a file holds."""
    return LoraConfig(**{key: settings.get(key) for key in LORA_KEYS})


def _load_bin(path: Path) -> dict[str, Tensor]:
    return torch.load(path, map_location="cpu", weights_only=True)


def _released_stages(folder: Path) -> dict[int, Path]:
    """Folders ``NAME-stage1`` to ``NAME-stage3`` of one model, as VTimeLLM's authors publish them, if there are any.

    Args:
        folder: that holds them, or, where it holds several models, ``folder/NAME`` of one of them.

    Raises:
        ValueError: it holds several models, or one that is no Llama.
    """
    inside = folder.glob("*stage[123]")
    beside = (path for path in folder.parent.glob("*stage[123]") if path.name.startswith(folder.name))
    models: dict[str, dict[int, Path]] = {}
    for path in sorted(path for path in [*inside, *beside] if path.is_dir()):
        models.setdefault(path.name[: -len("stage1")].rstrip("-_"), {})[int(path.name[-1])] = path
    models = {name: found for name, found in models.items() if (found.get(1, folder) / "mm_projector.bin").is_file()}
    if len(models) > 1:
        choices = ", ".join(str(next(iter(found.values())).parent / name) for name, found in models.items())
        raise ValueError(f"{folder} holds the released weights of {len(models)} models; name one of them: {choices}")
    if any("chatglm" in name.lower() for name in models):
        raise ValueError(f"{folder}: VTimeLLM's ChatGLM3 weights are not read here, only those of Vicuna")
    return next(iter(models.values()), {})


def _read_released(stages: dict[int, Path]) -> Weights:
    """The adapter, and the LoRA of each later stage."""
    adapter = _projector(_load_bin(stages[1] / "mm_projector.bin"))
    loras = []
    for stage in (stages[number] for number in (2, 3) if number in stages):
        tuned = stage / "non_lora_trainables.bin"
        adapter.update(_projector(_load_bin(tuned)) if tuned.is_file() else {})
        loras.append(_read_lora(stage))
    manifest = {
        "stage": f"released stage {len(loras) + 1}",
        "localizer": {"class_path": "localizers.text_timestamps.TextTimestamps", "init_args": {}},
        "chat": "vicuna_v1" if loras else "plain",
    }
    return Weights(adapter, loras, manifest)


def _projector(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """``weight`` and ``bias`` under any prefix of ``mm_projector.``.

    Raises:
        ValueError: there is a tensor that is not the projector's.
    """
    names = {key: re.fullmatch(r"(?:.*\.)?mm_projector\.(weight|bias)", key) for key in tensors}
    unknown = sorted(key for key, match in names.items() if match is None)
    if unknown:
        raise ValueError(f"released weights hold tensors that VTimeLLM does not have: {', '.join(unknown[:3])}")
    return {match[1]: tensors[key].float() for key, match in names.items()}
