"""From frame features to the language model's width."""

from torch import Tensor, nn


class LinearAdapter(nn.Linear):
    """One linear layer on pooled frame features, (..., D_feature) -> (..., D): VTimeLLM's visual adapter (eq. 1)."""

    def forward(self, features: Tensor) -> Tensor:
        """Project features of any floating type; they are stored in half precision."""
        return super().forward(features.to(self.weight.dtype))
