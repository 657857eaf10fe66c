"""The weights that VTimeLLM's authors publish: a projector, and a LoRA for each later stage."""

import re
from pathlib import Path

from torch import Tensor

from models.manifest import read_lora_config
from models.tensor_files import read_tensors
from models.weights import Lora, Weights


def released_stages(folder: Path) -> dict[int, Path]:
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


def read_released(stages: dict[int, Path]) -> Weights:
    """The adapter, and the LoRA of each later stage."""
    adapter = _projector(read_tensors(stages[1] / "mm_projector.bin"))
    loras = []
    for stage in (stages[number] for number in (2, 3) if number in stages):
        tuned = stage / "non_lora_trainables.bin"
        adapter.update(_projector(read_tensors(tuned)) if tuned.is_file() else {})
        loras.append(read_lora(stage))
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


def read_lora(folder: Path) -> Lora:
    """A PEFT folder. Raises ValueError and OSError naming the file."""
    config = read_lora_config(folder / "adapter_config.json")
    safe = folder / "adapter_model.safetensors"
    older = safe.with_suffix(".bin")
    return Lora(config, read_tensors(older if older.is_file() and not safe.is_file() else safe))
