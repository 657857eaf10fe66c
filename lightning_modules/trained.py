"""A finished run as a model that answers."""

from pathlib import Path

import torch
from jsonargparse import ArgumentParser
from transformers import PreTrainedModel

from lightning_modules.video_language import Generation, VideoLanguageModule
from localizers.base import Localizer
from models.checkpoints import Weights, merge_loras, read_weights
from models.video_llm import VideoLLM


class TrainedModel(VideoLanguageModule):
    """Base, adapter and merged LoRAs of a run; nothing is trainable."""

    @classmethod
    def from_run(
        cls, folder: Path, llm: str | None = None, dtype: str | None = None, generation: Generation | None = None
    ) -> "TrainedModel":
        """Read a run.

        Args:
            folder: run folder of train.py, or a folder with the released VTimeLLM weights.
            llm: base model; None: the one the run names. Released weights do not name theirs.
            dtype: to compute in; None: bfloat16 on an accelerator, else float32.
            generation: how answers are decoded; None: greedily.

        Raises:
            ValueError: the folder holds no weights, or no base is named.
        """
        manifest = read_weights(folder).manifest
        llm = llm or manifest.get("base", {}).get("name")
        if llm is None:
            raise ValueError(f"{folder} does not name its base model: give one, for example --llm lmsys/vicuna-7b-v1.5")
        module = cls(
            llm,
            make_localizer(manifest["localizer"]),
            previous=folder,
            # A stage-1 model has only seen captions; to be asked anything it needs a format with questions.
            chat="vicuna_v1" if manifest["chat"] == "plain" else manifest["chat"],
            system=manifest.get("system"),
            style=manifest.get("style", "vtimellm"),
            feature_width=manifest.get("feature_width", 768),
            dtype=dtype or ("bfloat16" if torch.cuda.is_available() else "float32"),
            generation=generation or Generation(),
        )
        module.manifest = manifest
        return module

    def build(self, llm: PreTrainedModel, weights: Weights) -> VideoLLM:
        """Merge everything into the base."""
        adapter = self.adapter(llm.config.hidden_size, weights)
        return self.video_llm(merge_loras(llm, weights.loras), adapter, weights).requires_grad_(False)

    def weights(self) -> Weights:
        """The weights that were read."""
        return read_weights(self.previous)


def make_localizer(config: dict) -> Localizer:
    """A localizer from its class path and settings, as a manifest or a config writes them."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--localizer", type=Localizer)
    return parser.instantiate(parser.parse_object({"localizer": config})).localizer
