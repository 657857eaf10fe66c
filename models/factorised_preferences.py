"""D2VLM's factorised preference optimisation: an answer is preferred to another by what it says and by where it points.

The two answers differ in one event: its time or its words are wrong, or it is missing or told twice. No stage of
training makes such pairs yet; these are the loss and its parts.

Shape suffixes: N evidence tokens, T frames, L words, V vocabulary.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

LEAST = 1e-10
"""Added to a probability before its logarithm is taken."""


def pointing_log_likelihood(logits: Tensor, right: Tensor) -> Tensor:
    """How likely evidence tokens point where they should: the sum over tokens and frames.

    Args:
        logits: (N, T) of each frame being inside.
        right: (N, T) how right each frame is, between 0 and 1.

    Returns:
        a scalar, the more negative the more tokens and frames there are.

    Source: D2VLM (Zeng et al., 2025), released ``d2vlm_fpo_arch.py``.
    """
    inside = logits.sigmoid()
    return torch.log(right * inside + (1 - right) * (1 - inside) + LEAST).sum()


def words_log_likelihood(logits: Tensor, ids: Tensor, mean: bool = False) -> Tensor:
    """How likely words are.

    Args:
        logits: (L, V) at the places that predict them.
        ids: (L,) of the words.
        mean: over the words, and not their sum, so that a longer answer is no less likely for its length.
    """
    each = -F.cross_entropy(logits.float(), ids, reduction="none")
    return each.mean() if mean else each.sum()


def preference_loss(chosen: Tensor, rejected: Tensor, beta: float = 0.1) -> Tensor:
    """``-log sigmoid(beta (chosen - rejected))``, of the log-likelihoods of two answers; there is no reference model.

    As released the likelihoods are sums, so an answer with fewer events and words is more likely by that alone.
    """
    return -F.logsigmoid(beta * (chosen - rejected))
