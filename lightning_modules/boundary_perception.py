"""Stage 2: the language model learns events and their boundaries. A LoRA learns, on template dialogues."""

from dataclasses import dataclass

from peft import get_peft_model_state_dict
from transformers import PreTrainedModel

from lightning_modules.video_language import VideoLanguageModule
from models.checkpoints import Lora, Weights, add_lora, lora_config
from models.video_llm import VideoLLM


@dataclass(frozen=True)
class LoraSettings:
    """Size of a LoRA; it sits on every linear layer of the language model but the output layer."""

    r: int = 64
    alpha: float = 128
    """Its output is scaled by alpha / r."""
    dropout: float = 0.05


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
        return self.assemble(add_lora(llm, self.new_lora()), weights)

    def new_lora(self):
        """Configuration of a LoRA of this stage's size."""
        return lora_config(self.lora.r, self.lora.alpha, self.lora.dropout)

    def assemble(self, llm, weights: Weights) -> VideoLLM:
        """The model around a language model that has its LoRA."""
        if not weights.adapter and not self.tune_adapter:
            raise ValueError("the visual adapter would stay random: give `previous`, or set tune_adapter: true")
        adapter = self.adapter(llm.config.hidden_size, weights)
        return VideoLLM(llm, adapter.requires_grad_(self.tune_adapter))

    def weights(self) -> Weights:
        """The adapter, the LoRAs merged before this stage, and this stage's own."""
        own = Lora(self.model.llm.peft_config["default"], get_peft_model_state_dict(self.model.llm))
        return Weights(adapter=self.model.adapter.state_dict(), loras=[*self.merged, own])
