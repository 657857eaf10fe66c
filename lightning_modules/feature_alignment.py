"""Stage 1: the language model learns to read frames. Only the visual adapter learns, on captioned images."""

from transformers import PreTrainedModel

from lightning_modules.video_language import VideoLanguageModule
from models.checkpoints import Weights
from models.decoders import width
from models.video_llm import VideoLLM


class FeatureAlignment(VideoLanguageModule):
    """Feature alignment (VTimeLLM, section 3.2, stage 1). Its conversation format is usually ``plain``."""

    def build(self, llm: PreTrainedModel, weights: Weights) -> VideoLLM:
        """Frozen language model, trainable adapter.

        Raises:
            ValueError: the previous stage has trained the language model already.
        """
        if weights.loras:
            raise ValueError(f"feature alignment comes first, but {self.previous} already holds a LoRA")
        adapter = self.adapter(width(llm), weights)
        self.adapter_settings.tune(adapter, aligning=True)
        return VideoLLM(llm, adapter, bidirectional=self.localizer.bidirectional)  # nothing is localized yet

    def weights(self) -> Weights:
        """The adapter."""
        return Weights(adapter=self.model.adapter.state_dict())
