"""Stage 3: the model learns to talk about time. The stage-2 LoRA is merged and a new one learns, on dialogues."""

from typing import ClassVar, Literal

from transformers import PreTrainedModel

from lightning_modules.boundary_perception import BoundaryPerception
from models.checkpoints import Weights, add_lora
from models.video_llm import VideoLLM


class InstructionTuning(BoundaryPerception):
    """Instruction tuning (VTimeLLM, section 3.2, stage 3).

    Args:
        previous_lora: ``merge_then_new`` adds the previous LoRA to the weights and trains a new one;
            ``continue`` trains the previous one further (Table 2, "Reuse").
        **settings: of ``BoundaryPerception``.
    """

    takes_loras: ClassVar[bool] = True

    def __init__(self, *args, previous_lora: Literal["merge_then_new", "continue"] = "merge_then_new", **settings):
        super().__init__(*args, **settings)
        self.previous_lora = previous_lora

    def check_previous(self, weights: Weights) -> None:
        """Refuse to continue a LoRA that is not there, or that has other settings than those that are given."""
        super().check_previous(weights)
        if self.previous_lora == "merge_then_new":
            return
        if not weights.loras:
            raise ValueError(f"previous_lora: continue needs a LoRA, and {self.previous} has none")
        config = weights.loras[-1].config
        found = {"r": config.r, "alpha": config.lora_alpha, "dropout": config.lora_dropout}
        other = {key: value for key, value in found.items() if value != getattr(self.lora, key)}
        if other:
            theirs = ", ".join(f"lora.{key} {value:g}" for key, value in other.items())
            mine = ", ".join(f"{getattr(self.lora, key):g}" for key in other)
            raise ValueError(
                f"previous_lora: continue goes on with the LoRA of {self.previous}, which has {theirs}, not {mine}: "
                "give the same, or merge it and train a new one (merge_then_new)"
            )

    def build(self, llm: PreTrainedModel, weights: Weights) -> VideoLLM:
        """Merge what came before, or keep its last LoRA."""
        if self.previous_lora == "merge_then_new":
            self.merged = weights.loras
            llm = self.base_with(llm, self.merged)
            return self.assemble(add_lora(llm, self.new_lora(llm)), weights)
        *self.merged, last = weights.loras
        return self.assemble(add_lora(self.base_with(llm, self.merged), last.config, last.tensors), weights)
