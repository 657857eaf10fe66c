"""The text tower that belongs to projected frame features: sentences in the space of the frames.

Shape suffixes: N sentences, D width.
"""

import torch
from torch import Tensor
from torch.nn import functional
from transformers import AutoConfig, AutoTokenizer, CLIPTextModelWithProjection, SiglipTextModel

from preparation.features.decoding import first_line
from preparation.features.vision_encoder import PROJECTED


class TextEncoder:
    """Sentences to unit vectors, as the contrastive training of a CLIP or SigLIP had them.

    Args:
        name: folder or hub name of the checkpoint whose vision tower made the frame features.
        device: to compute on.

    Raises:
        ValueError: there is no such checkpoint, or it has no text tower.
    """

    def __init__(self, name: str, device: str = "cpu"):
        try:
            family = AutoConfig.from_pretrained(name).model_type
            kinds = {"clip": CLIPTextModelWithProjection, "siglip": SiglipTextModel}
            if family not in kinds:
                raise ValueError(f"a {family} has no text tower that is known here")
            model, loaded = kinds[family].from_pretrained(name, output_loading_info=True)
            self.tokenizer = AutoTokenizer.from_pretrained(name)
        except (OSError, ValueError) as error:
            raise ValueError(f"no text tower in the folder or on the hub at {name!r}: {first_line(error)}") from None
        if missing := sorted(loaded["missing_keys"]):
            raise ValueError(f"{name} has no text tower: no weights for {missing[:3]}")
        self.name, self.family, self.model = name, family, model.to(device).eval().requires_grad_(False)

    @property
    def frame_output(self) -> str:
        """Which frame features are in its space, in the words of ``FeatureHeader.output``."""
        return PROJECTED if self.family == "clip" else "pooler_output (attention pooling, unnormalised)"

    @torch.inference_mode()
    def __call__(self, sentences: list[str]) -> Tensor:
        """(N, D) float32 unit vectors on the CPU; longer sentences are cut at the tower's length."""
        length = self.model.config.max_position_embeddings
        padding = "max_length" if self.family == "siglip" else True  # as SigLIP was trained
        text = self.tokenizer(sentences, padding=padding, truncation=True, max_length=length, return_tensors="pt")
        output = self.model(input_ids=text.input_ids.to(self.model.device), **self._mask(text))
        vectors = output.text_embeds if self.family == "clip" else output.pooler_output
        return functional.normalize(vectors.float().cpu(), dim=-1)

    def _mask(self, text) -> dict[str, Tensor]:
        """A CLIP does not look at padding; a SigLIP does."""
        return {"attention_mask": text.attention_mask.to(self.model.device)} if self.family == "clip" else {}
