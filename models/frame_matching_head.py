"""What E.T. Chat learns beside the language model: which frame a time token means.

Shape suffixes: N time tokens, T frames, D width.
"""

import math

import torch
from torch import Tensor, nn

from models.structural_head import projection


class FrameMatchingHead(nn.Module):
    """Projections of frames and of time tokens. Parameters have the released names; all computes in single precision.

    Args:
        width: D, of the language model.
    """

    def __init__(self, width: int):
        super().__init__()
        self.frm_head = projection(width)
        self.vid_head = projection(width)

    def forward(self, tokens: Tensor, frames: Tensor) -> Tensor:
        """Scores (N, T): scaled dot products of projected tokens and frames.

        Args:
            tokens: (N, D) states that predict time tokens.
            frames: (N, T, D), or (T, D) for all tokens: states of the frames.
        """
        with torch.autocast(tokens.device.type, enabled=False):
            tokens, frames = self.vid_head(tokens.float()), self.frm_head(frames.float())
            return (frames @ tokens[..., None]).squeeze(-1) / math.sqrt(tokens.shape[-1])
