"""A baseline: adapter and head learn, and no language model is run."""

from transformers import PreTrainedModel

from lightning_modules.video_language import VideoLanguageModule
from models.checkpoints import Weights
from models.decoders import width
from models.video_llm import VideoLLM


class Baseline(VideoLanguageModule):
    """What the parts around a language model find without it. Of the base only the input vectors are kept."""

    def check_previous(self, weights: Weights) -> None:
        """Refuse a localizer that needs a language model, a tuned one, and settings that are about one."""
        if self.localizer.generates:
            raise ValueError(f"{type(self.localizer).__name__} needs a language model; Baseline takes SentenceMatching")
        if weights.loras:
            raise ValueError(f"{self.previous} holds a LoRA, and the baseline has no language model to put it on")
        for name in ("spatial", "gradient_checkpointing", "quantization"):
            if getattr(self, name):
                raise ValueError(f"the baseline has frames and words alone: leave {name} out")
        super().check_previous(weights)

    def build(self, llm: PreTrainedModel, weights: Weights) -> VideoLLM:
        """A new head and adapter, or those of ``previous``, trained further."""
        adapter = self.adapter(width(llm), weights)
        self.adapter_settings.tune(adapter, aligning=False)
        return self.video_llm(llm, adapter, weights)
