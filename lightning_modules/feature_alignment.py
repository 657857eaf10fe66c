"""Stage 1: the language model learns to read frames. Only the visual adapter learns, on captioned images."""

from transformers import PreTrainedModel

from lightning_modules.video_language import VideoLanguageModule
from models.checkpoints import Weights
from models.video_llm import VideoLLM


class FeatureAlignment(VideoLanguageModule):
    """Feature alignment (VTimeLLM, section 3.2, stage 1). Its conversation format is usually ``plain``."""

    def check_previous(self, weights: Weights) -> None:
        """Refuse a previous stage that has trained the language model already."""
        super().check_previous(weights)
        if weights.loras:
            raise ValueError(f"feature alignment comes first, but {self.previous} already holds a LoRA")

    def build(self, llm: PreTrainedModel, weights: Weights) -> VideoLLM:
        """Frozen language model, trainable adapter."""
        adapter = self.adapter(llm.config.hidden_size, weights)
        self.adapter_settings.tune(adapter, aligning=True)
        return VideoLLM(
            self.base_with(llm), adapter, bidirectional=self.localizer.bidirectional
        )  # nothing is localized yet
