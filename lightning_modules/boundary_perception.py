"""Stage 2: the language model learns events and their boundaries. A LoRA learns, on template dialogues."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from transformers import PreTrainedModel

from lightning_modules.video_language import VideoLanguageModule
from models.checkpoints import Weights, add_lora, lora_config
from models.decoders import width
from models.video_llm import VideoLLM
from models.vocabulary import word_matrices

if TYPE_CHECKING:
    from peft import LoraConfig


@dataclass(frozen=True)
class LoraSettings:
    """A LoRA, and how the rows of new tokens learn beside it."""

    r: int = 64
    alpha: float = 128
    """Its output is scaled by alpha / r."""
    dropout: float = 0.05
    target_modules: str | list[str] = "all-linear"
    """Names of the layers it sits on; ``all-linear``: all of the language model but the output layer."""
    new_tokens: Literal["rows", "full"] = "rows"
    """What learns where the localizer has tokens of its own: their rows, or (as MeCo released) the whole matrices."""

    def __post_init__(self):
        if self.r < 1 or not 0 < self.alpha < math.inf or not 0 <= self.dropout < 1:
            raise ValueError(
                f"lora needs r of 1 or more, a positive alpha and dropout in [0, 1), got r {self.r}, alpha "
                f"{self.alpha}, dropout {self.dropout}"
            )


class BoundaryPerception(VideoLanguageModule):
    """Boundary perception (VTimeLLM, section 3.2, stage 2).

    Args:
        lora: size of the LoRA that learns.
        tune_adapter: also train the visual adapter (Table 2, "Tune"); needed without a stage 1.
        **settings: of ``VideoLanguageModule``.
    """

    takes_loras: ClassVar[bool] = False
    """Whether the stage can go on from a run that has LoRAs."""

    def __init__(self, *args, lora: LoraSettings = LoraSettings(), tune_adapter: bool = False, **settings):  # noqa: B008
        super().__init__(*args, **settings)
        self.lora, self.tune_adapter = lora, tune_adapter

    def check_previous(self, weights: Weights) -> None:
        """Refuse a previous stage without an adapter, where it would stay untrained, or with a language model that
        was trained before.
        """
        super().check_previous(weights)
        if weights.loras and not self.takes_loras:
            raise ValueError(f"{self.previous} already holds a LoRA; go on from it with InstructionTuning")
        if not weights.adapter and not self.tune_adapter:
            raise ValueError("the visual adapter would stay random: give `previous`, or set tune_adapter: true")

    def build(self, llm: PreTrainedModel, weights: Weights) -> VideoLLM:
        """A new LoRA on the base; the adapter comes from stage 1."""
        return self.assemble(add_lora(self.base_with(llm), self.new_lora(llm)), weights)

    def new_lora(self, llm: PreTrainedModel) -> "LoraConfig":
        """Configuration of this stage's LoRA; the rows of the localizer's tokens learn with it."""
        more, settings = {}, self.lora
        tokens = list(self.dialogue.special)
        if tokens:
            matrices, tied = word_matrices(llm)
            rows = {"trainable_token_indices": dict.fromkeys(matrices, tokens)}  # PEFT keeps them tied by itself
            full = {"modules_to_save": matrices, "ensure_weight_tying": tied}
            more = rows if settings.new_tokens == "rows" else full
        return lora_config(settings.r, settings.alpha, settings.dropout, settings.target_modules, **more)

    def assemble(self, llm, weights: Weights) -> VideoLLM:
        """The model around a language model that has its LoRA."""
        adapter = self.adapter(width(llm), weights)
        if self.tune_adapter:
            self.adapter_settings.tune(adapter, aligning=False)
        return self.video_llm(llm, adapter, weights)
