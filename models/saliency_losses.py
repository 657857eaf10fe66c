"""UniVTG's two saliency losses: how like its sentence a clip is, against other sentences and against other clips.

Shape suffixes: B sentences, T clips, D width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

TEMPERATURE = 0.07
LEAST = 1e-45
"""The weight of what does not count, of which the logarithm is taken."""


def cosines(clips: Tensor, sentences: Tensor) -> Tensor:
    """(B, T) of clips (B, T, D) and the sentence (B, D) of each row."""
    return F.cosine_similarity(clips, sentences[:, None], dim=-1)


def inter_video_loss(clips: Tensor, sentences: Tensor, positive: Tensor) -> Tensor:
    """Each row's clip finds its sentence among those of the batch, and each sentence its clip.

    Args:
        clips: (B, T, D).
        sentences: (B, D).
        positive: (B,) number of the clip that shows the sentence best.
    """
    if not len(clips):
        return clips.sum()
    best = F.normalize(clips[torch.arange(len(clips)), positive], dim=-1)
    alike = best @ F.normalize(sentences, dim=-1).T / TEMPERATURE
    right = torch.arange(len(alike), device=alike.device)
    return F.cross_entropy(alike, right) + F.cross_entropy(alike.T, right)


def intra_video_loss(
    clips: Tensor, sentences: Tensor, positive: Tensor, saliency: Tensor, mask: Tensor, batch_term: bool = False
) -> Tensor:
    """Each row's sentence finds its clip among those of the video that show it less.

    Args:
        clips: (B, T, D).
        sentences: (B, D).
        positive: (B,).
        saliency: (B, T) how well each clip shows the sentence.
        mask: (B, T), true where a clip is real.
        batch_term: also choose among the clips of that number of all rows, as released; these belong to other
            sentences.
    """
    if not len(clips):
        return clips.sum()
    rows = torch.arange(len(clips), device=clips.device)
    counts = saliency < saliency[rows, positive][:, None]
    counts[rows, positive] = True
    alike = cosines(clips, sentences) + (counts & mask.bool()).float().add(LEAST).log()
    loss = F.cross_entropy(alike / TEMPERATURE, positive)
    return loss + F.cross_entropy(alike.T[positive] / TEMPERATURE, rows) if batch_term else loss
