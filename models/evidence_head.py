"""What D2VLM learns beside the language model: which frames an evidence token means.

Shape suffixes: N evidence tokens, T frames, D width.
"""

import math

import torch
from torch import Tensor, nn

from models.structural_head import projection


class EvidenceHead(nn.Module):
    """Projections of frames and of evidence tokens. Parameters have the released names.

    Args:
        width: D, of the language model.
    """

    def __init__(self, width: int):
        super().__init__()
        self.frm_head = projection(width)
        self.evi_head = projection(width)

    def forward(self, tokens: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (N, T) of frames being inside, and the projected tokens (N, D).

        Args:
            tokens: (N, D) states that predict evidence tokens.
            frames: (N, T, D), or (T, D) for all tokens: states of the frames.
        """
        with torch.autocast(tokens.device.type, enabled=False):
            tokens, frames = self.evi_head(tokens.float()), self.frm_head(frames.float())
            return (frames @ tokens[..., None]).squeeze(-1) / math.sqrt(tokens.shape[-1]), tokens


def best_run(scores: Tensor, share: float = 0.6, joined: bool = False) -> tuple[int, int]:
    """First and last frame of the run with the highest mean, of frames with at least a share of the highest score.

    Args:
        scores: (T,), none negative.
        share: of the highest.
        joined: of several runs with that mean, from the first to the end of the last, as released; else the first.
    """
    inside = (scores >= share * scores.max()).tolist()
    ends = [k for k in range(len(inside)) if inside[k] and (k + 1 == len(inside) or not inside[k + 1])]
    starts = [k for k in range(len(inside)) if inside[k] and (k == 0 or not inside[k - 1])]
    means = [scores[start : end + 1].mean().item() for start, end in zip(starts, ends, strict=True)]
    best = [number for number, mean in enumerate(means) if mean == max(means)]
    return starts[best[0]], ends[best[-1] if joined else best[0]]
