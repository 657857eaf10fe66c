"""Stage 3: the model learns to talk about time. The stage-2 LoRA is merged and a new one learns, on dialogues."""

from typing import Literal

from transformers import PreTrainedModel

from lightning_modules.boundary_perception import BoundaryPerception
from models.checkpoints import Weights, add_lora, merge_loras
from models.video_llm import VideoLLM


class InstructionTuning(BoundaryPerception):
    """Instruction tuning (VTimeLLM, section 3.2, stage 3).

    Args:
        previous_lora: ``merge_then_new`` adds the previous LoRA to the weights and trains a new one;
            ``continue`` trains the previous one further (Table 2, "Reuse").
        **settings: of ``BoundaryPerception``.
    """

    def __init__(self, *args, previous_lora: Literal["merge_then_new", "continue"] = "merge_then_new", **settings):
        super().__init__(*args, **settings)
        self.previous_lora = previous_lora

    def build(self, llm: PreTrainedModel, weights: Weights) -> VideoLLM:
        """Merge what came before, or keep its last LoRA.

        Raises:
            ValueError: ``continue`` is asked for and the previous stage has no LoRA.
        """
        if self.previous_lora == "merge_then_new":
            self.merged = weights.loras
            llm = merge_loras(llm, self.merged)
            return self.assemble(add_lora(llm, self.new_lora(llm)), weights)
        if not weights.loras:
            raise ValueError(f"previous_lora: continue needs a LoRA, and {self.previous} has none")
        *self.merged, last = weights.loras
        return self.assemble(add_lora(merge_loras(llm, self.merged), last.config, last.tensors), weights)
