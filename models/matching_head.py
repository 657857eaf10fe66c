"""The head of the baseline without a language model: frames and words meet in a small transformer, then VideoExpert's
convolutions read every frame.

Shape suffixes: N sentences, T frames, L words, D width of what is given, H width inside.
"""

import torch
from torch import Tensor, nn

from models.temporal_head import HeadOutput, TemporalHead


class MatchingHead(nn.Module):
    """Frames and the words of one sentence to a HeadOutput.

    Args:
        width: D.
        head_dim: H.
        layers: of the transformer, in which frames and words attend to each other.
        attention_heads: of each layer; must divide H.
        dropout: in the transformer.
        interaction: how the mean of the words meets the frames, see TemporalHead.
        pools: also learn a weighted mean of the words (UniVTG), for ``alike``.

    Raises:
        ValueError: the attention heads do not divide H, or H is odd.
    """

    def __init__(
        self,
        width: int,
        head_dim: int,
        layers: int,
        attention_heads: int,
        dropout: float,
        interaction: str = "add",
        pools: bool = False,
    ):
        super().__init__()
        if head_dim % attention_heads or head_dim % 2:
            raise ValueError(f"head_dim must be even and divide by {attention_heads} attention heads, got {head_dim}")
        self.frames, self.words = (nn.Sequential(nn.LayerNorm(width), nn.Linear(width, head_dim)) for _ in range(2))
        self.kinds = nn.Parameter(0.02 * torch.randn(2, head_dim))
        sizes = (head_dim, attention_heads, 4 * head_dim, dropout)
        layer = nn.TransformerEncoderLayer(*sizes, activation="gelu", batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, layers, nn.LayerNorm(head_dim), enable_nested_tensor=False)
        self.head = TemporalHead(head_dim, interaction)
        if pools:
            self.pool = nn.Parameter(0.02 * torch.randn(head_dim, 1))

    def forward(self, frames: Tensor, words: Tensor, mask: Tensor, word_mask: Tensor) -> HeadOutput:
        """Find every sentence, each in the frames that stand beside it.

        Args:
            frames: (N, T, D); N may be 0.
            words: (N, L, D), at least one word each.
            mask: (N, T), true where a frame is real.
            word_mask: (N, L), true where a word is.
        """
        dtype, count = self.kinds.dtype, frames.shape[1]
        frames = self.frames(frames.to(dtype)) + self.kinds[0] + positions(mask, self.kinds)
        words = self.words(words.to(dtype)) + self.kinds[1] + positions(word_mask, self.kinds)
        both, real = torch.cat([frames, words], dim=1), torch.cat([mask, word_mask], dim=1)
        both = self.encoder(both, src_key_padding_mask=~real if len(real) else None)  # torch fails on no rows
        frames, words = both[:, :count], both[:, count:].masked_fill(~word_mask[..., None], 0)
        return self.head(frames, words.sum(1) / word_mask.sum(1, keepdim=True), mask)

    def alike(self, frames: Tensor, words: Tensor, word_mask: Tensor) -> tuple[Tensor, Tensor]:
        """What saliency compares, before the transformer: frames (N, T, H) and sentences (N, H)."""
        frames, words = self.frames(frames.to(self.kinds.dtype)), self.words(words.to(self.kinds.dtype))
        return frames, pooled(words, word_mask, self.pool)


def pooled(words: Tensor, mask: Tensor, weight: Tensor) -> Tensor:
    """The mean (N, H) of words (N, L, H), weighted by a softmax of their products with ``weight`` (H, 1)."""
    scores = (words @ weight).squeeze(-1).masked_fill(~mask, -torch.inf)
    return (scores.softmax(-1)[..., None] * words).sum(1)


def positions(mask: Tensor, like: Tensor) -> Tensor:
    """(N, L, H) sines and cosines of the number of each true element of a mask (N, L); ``like`` (.., H) gives H."""
    half = like.shape[-1] // 2
    rates = 10_000.0 ** (-torch.arange(half, device=mask.device) / half)
    angles = (mask.cumsum(-1) - 1)[..., None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=-1).to(like.dtype)
