"""Stage 2: the language model learns events and their boundaries. A LoRA learns, on template dialogues."""

from dataclasses import dataclass
from typing import Literal

from peft import LoraConfig
from transformers import PreTrainedModel

from lightning_modules.video_language import VideoLanguageModule
from models.checkpoints import Lora, Weights, add_lora, lora_config, lora_tensors
from models.decoders import width
from models.video_llm import VideoLLM
from models.vocabulary import word_matrices


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


class BoundaryPerception(VideoLanguageModule):
    """Boundary perception (VTimeLLM, section 3.2, stage 2).

    Args:
        lora: size of the LoRA that learns.
        tune_adapter: also train the visual adapter (Table 2, "Tune"); needed without a stage 1.
        **settings: of ``VideoLanguageModule``.
    """

    def __init__(self, *args, lora: LoraSettings = LoraSettings(), tune_adapter: bool = False, **settings):  # noqa: B008
        super().__init__(*args, **settings)
        self.lora, self.tune_adapter = lora, tune_adapter
        self.merged: list[Lora] = []

    def build(self, llm: PreTrainedModel, weights: Weights) -> VideoLLM:
        """A new LoRA on the base; the adapter comes from stage 1.

        Raises:
            ValueError: there is no trained adapter and it would stay untrained, or the language model was trained
                before.
        """
        if weights.loras:
            raise ValueError(f"{self.previous} already holds a LoRA; go on from it with InstructionTuning")
        return self.assemble(add_lora(llm, self.new_lora(llm)), weights)

    def new_lora(self, llm: PreTrainedModel) -> LoraConfig:
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
        if not weights.adapter and not self.tune_adapter:
            raise ValueError("the visual adapter would stay random: give `previous`, or set tune_adapter: true")
        adapter = self.adapter(width(llm), weights)
        if self.tune_adapter:
            self.adapter_settings.tune(adapter, aligning=False)
        return self.video_llm(llm, adapter, weights)

    def weights(self) -> Weights:
        """The adapter, the head, the LoRAs merged before this stage, and this stage's own."""
        own = Lora(self.model.llm.peft_config["default"], lora_tensors(self.model.llm))
        head = self.model.head.state_dict() if self.model.head else {}
        return Weights(self.model.adapter.state_dict(), [*self.merged, own], head=head)
