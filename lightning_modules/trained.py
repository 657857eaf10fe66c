"""A finished run as a model that answers."""

from argparse import ArgumentError
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal

import torch
from jsonargparse import ArgumentParser
from transformers import PreTrainedModel

from command_line.tables import console
from datamodules.chat import asking_format, chat_format
from datamodules.chat_formats import ChatFormat
from lightning_modules.answering import Generation, GenerationChange
from lightning_modules.video_language import VideoLanguageModule
from localizers.base import Localizer
from models.adapters import Adapter, Linear
from models.checkpoints import Weights, add_lora, best_device, empty_llm, load_tokenizer, read_weights
from models.decoders import width
from models.quantization import Quantization, base_bytes
from models.routed_lora import merge_experts, put_experts
from models.video_llm import VideoLLM

TRAIN_HEADS = ("BoundaryPerception", "InstructionTuning", "PreferenceTuning", "ExpertTuning", "Baseline")
"""Stages in which the head of a localizer learns."""


class TrainedModel(VideoLanguageModule):
    """Base, adapter, merged LoRAs and experts of a run; nothing is trainable."""

    takes_experts: ClassVar[bool] = True
    trains: ClassVar[bool] = False

    @classmethod
    def from_run(
        cls,
        folder: Path,
        llm: str | None = None,
        dtype: str | None = None,
        generation: Generation | GenerationChange | None = None,
        quantization: Quantization | Literal["none"] | None = None,
        localizer: Mapping | None = None,
    ) -> "TrainedModel":
        """Read a run.

        Args:
            folder: run folder or checkpoint of train.py, or a folder with the released VTimeLLM weights.
            llm: base model; None: the one the run names. Released weights do not name theirs.
            dtype: to compute in; None: bfloat16 on an accelerator, else float32.
            generation: how answers are decoded, or what is changed of the decoding that the weights name; None: that.
            quantization: of the base; None: as it was trained beside, ``none``: it stays in ``dtype``.
            localizer: settings of the run's localizer to read times with, in place of those it was trained with.

        Raises:
            ValueError: the folder holds no weights, no base is named, or a setting is not one of decoding alone.
        """
        weights = read_weights(folder)
        manifest = weights.manifest
        llm = llm or (manifest.get("base") or {}).get("name")
        if llm is None:
            raise ValueError(f"{folder} does not name its base model: give one, for example --llm lmsys/vicuna-7b-v1.5")
        recorded, localizer_settings = (needed(manifest, key, Path(folder)) for key in ("chat", "localizer"))
        if isinstance(recorded, dict):
            recorded = settings_of(ChatFormat, recorded, "chat")
        chat = chat_format(recorded, manifest.get("system"))
        if not chat.asks:  # stage 1 has only seen captions; to be asked anything the model needs questions
            chat = asking_format(load_tokenizer(llm))
        quantization = quantization or manifest.get("quantization")
        stored = settings_of(Generation, manifest.get("generation", {}), "generation")
        module = cls(
            llm,
            read_differently(localizer_settings, localizer or {}),
            previous=folder,
            chat=chat,
            style=manifest.get("style", "vtimellm"),
            adapter=from_config(Adapter, manifest["adapter"]) if "adapter" in manifest else Linear(),
            feature_width=manifest.get("feature_width", 768),
            spatial=manifest.get("spatial"),
            dtype=dtype or ("bfloat16" if torch.accelerator.is_available() else "float32"),
            quantization=quantization if quantization != "none" else None,
            generation=generation
            if isinstance(generation, Generation)
            else (generation or GenerationChange()).of(stored),
        )
        module.manifest, module._previous = manifest, weights
        return module

    def configure_model(self) -> None:
        """As for training, but without dropout."""
        if self.model is None and self.global_rank == 0:
            console.print(self.memory())
        super().configure_model()
        self.model.eval()

    def build(self, llm: PreTrainedModel, weights: Weights) -> VideoLLM:
        """Merge everything into the base; only what frames get from their own expert stays beside it.

        Beside a base in few bits the last LoRA, or both experts, stay as well, as they were trained.
        """
        adapter = self.adapter(width(llm), weights)
        learned = self.manifest.get("stage") in TRAIN_HEADS and self.localizer.head(width(llm)) is not None
        if learned and not weights.head:
            raise ValueError(f"{self.previous}: head.safetensors is missing; copy the whole folder again")
        merged = len(weights.loras) - bool(self.quantization)
        llm = self.base_with(llm, weights.loras[: max(merged, 0)])
        for lora in weights.loras[max(merged, 0) :]:
            llm = add_lora(llm, lora.config, lora.tensors)
        if weights.experts:
            llm = (put_experts if self.quantization else merge_experts)(llm, weights.experts)
        return self.video_llm(llm, adapter, weights).requires_grad_(False)

    def memory(self) -> str:
        """What the base will take, and what there is, before it is loaded."""
        with torch.device("meta"):
            llm = empty_llm(self.llm_name, self.llm_dtype).requires_grad_(False)
        needed = base_bytes(llm, self.quantization)
        device, kind = best_device(), self.quantization or str(self.llm_dtype).removeprefix("torch.")
        free = f" of {torch.cuda.mem_get_info(device)[0] / 2**30:.1f} GB free" if device.type == "cuda" else ""
        return f"{self.llm_name} in {kind}: about {needed / 2**30:.1f} GB{free} on {device.type}"

    def weights(self) -> Weights:
        """The weights that were read."""
        return read_weights(self.previous)


def needed(manifest: Mapping, key: str, where: Path):
    """An entry that a model cannot answer without. Raises ValueError where it is missing."""
    if manifest.get(key) is None:
        raise ValueError(f"{where}: key {key!r} is missing in the manifest; copy it again, or export the run anew")
    return manifest[key]


def settings_of(kind: type, settings: Mapping, what: str):
    """A dataclass of settings that a manifest holds. Raises ValueError for one that it does not have."""
    try:
        return kind(**settings)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{what} in the manifest: {error}".replace(f"{kind.__name__}.__init__() ", "")) from None


def read_differently(config: dict, changes: Mapping) -> Localizer:
    """The localizer of a run, with other settings of decoding.

    Raises:
        ValueError: the localizer has no such setting, the model was trained with it, or a value is none that it takes.
    """
    if changes:
        kind = type(from_config(Localizer, {"class_path": config["class_path"]}))
        for key in changes:
            if key not in kind.decoding:
                free = ", ".join(f"localizer.{known}" for known in kind.decoding) or "nothing"
                raise ValueError(
                    f"localizer.{key} is no setting of decoding alone; of a trained {kind.__name__}, {free} can change"
                )
    return from_config(Localizer, {**config, "init_args": {**config.get("init_args", {}), **changes}})


def from_config(kind: type, config: dict):
    """A localizer or an adapter from its class path and settings, as a manifest or a config writes them.

    Raises:
        ValueError: there is no such class, or it does not take these settings.
    """
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--made", type=kind)
    try:
        return parser.instantiate(parser.parse_object({"made": config})).made
    except ArgumentError as error:
        raise ValueError(str(error)) from None
