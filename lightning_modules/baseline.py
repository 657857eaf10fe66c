"""A baseline: adapter and head learn, and no language model is run."""

from transformers import PreTrainedModel

from lightning_modules.video_language import VideoLanguageModule
from models.checkpoints import Weights
from models.decoders import width
from models.video_llm import VideoLLM


class Baseline(VideoLanguageModule):
    """What the parts around a language model find without it. Of the base only the input vectors are kept."""

    def build(self, llm: PreTrainedModel, weights: Weights) -> VideoLLM:
        """A new head and adapter, or those of ``previous``, trained further.

        Raises:
            ValueError: the localizer needs a language model, ``previous`` has tuned one, or a setting is about one.
        """
        if self.localizer.generates:
            raise ValueError(f"{type(self.localizer).__name__} needs a language model; Baseline takes SentenceMatching")
        if weights.loras:
            raise ValueError(f"{self.previous} holds a LoRA, and the baseline has no language model to put it on")
        for name in ("spatial", "gradient_checkpointing"):
            if getattr(self, name):
                raise ValueError(f"the baseline has frames and words alone: leave {name} out")
        adapter = self.adapter(width(llm), weights)
        self.adapter_settings.tune(adapter, aligning=False)
        return self.video_llm(llm, adapter, weights)

    def weights(self) -> Weights:
        """The adapter and the head."""
        return Weights(self.model.adapter.state_dict(), head=self.model.head.state_dict())
