"""D2VLM's factorised preference optimisation: an answer is preferred to another by what it says and by where it points.

The two answers differ in one event: its time or its words are wrong, or it is missing or told twice. These are the loss
and its parts; ``lightning_modules.preference_tuning`` learns by it.

Shape suffixes: B dialogues, K blocks of a sequence, N tokens, T frames.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

LEAST = 1e-10
"""Added to a probability before its logarithm is taken."""


def pointing_log_likelihood(logits: Tensor, right: Tensor, mask: Tensor | None = None) -> Tensor:
    """How likely evidence tokens point where they should: of each token the sum over frames.

    Args:
        logits: (N, T) of each frame being inside.
        right: (N, T) how right each frame is, between 0 and 1.
        mask: (N, T), true where a frame is real; None: all are.

    Returns:
        (N,), the more negative the more frames there are.

    Source: D2VLM (Zeng et al., 2025), released ``d2vlm_fpo_arch.py``.
    """
    inside = logits.sigmoid()
    each = torch.log(right * inside + (1 - right) * (1 - inside) + LEAST)
    return (each if mask is None else each.masked_fill(~mask, 0)).sum(-1)


def sums_of_blocks(values: Tensor, rows: Tensor, blocks: Tensor, shape: tuple[int, int]) -> Tensor:
    """(B, K) sums, of ``shape``, of values (N,) that belong to rows and blocks (N,)."""
    return values.new_zeros(shape).index_put((rows, blocks), values, accumulate=True)


def preference_loss(chosen: Tensor, rejected: Tensor, beta: float = 0.1) -> Tensor:
    """``-log sigmoid(beta (chosen - rejected))``, of the log-likelihoods of two answers; there is no reference model.

    As released the likelihoods are sums, so an answer with fewer events and words is more likely by that alone.
    """
    return -F.logsigmoid(beta * (chosen - rejected))
