"""The words that a language model is taught, without a logit of each for the whole vocabulary at once.

With 256,000 words, the logits of 1,000 tokens are a gigabyte in float32, and so are their gradients. They are computed
a part at a time, and once more in the backward pass.

Shape suffixes: B rows, L tokens, N supervised tokens, D width, V vocabulary.
"""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

LOGITS = 2**25
"""Logits that are computed at once: 128 MB of them in float32."""


class Words:
    """What a language model says of its supervised tokens.

    Args:
        llm: the causal language model.
        read: what its decoder gave, with ``last_hidden_state`` (B, L, D).
        supervised: (B, L) where the next token is learned, N times.
    """

    def __init__(self, llm: PreTrainedModel, read: ModelOutput, supervised: Tensor):
        self.llm, self.states = llm, read.last_hidden_state[supervised]
        self._read = replace(read, last_hidden_state=self.states[None])

    def logits(self, which: Tensor | None = None) -> Tensor:
        """Logits (N, V) of all tokens, or of those (N,) that are marked."""
        return self._logits(self.states if which is None else self.states[which])

    def losses(self, labels: Tensor) -> Tensor:
        """Cross-entropy (N,) with labels (N,), in float32."""
        step = max(1, LOGITS // self.llm.config.get_text_config().vocab_size)
        if len(labels) <= step:
            return self._losses(self.states, labels)
        parts = zip(self.states.split(step), labels.split(step), strict=True)
        return torch.cat([checkpoint(self._losses, *part, use_reentrant=False) for part in parts])

    def _losses(self, states: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(self._logits(states).float(), labels, reduction="none")

    def _logits(self, states: Tensor) -> Tensor:
        """Logits (N, V) of states (N, D), by the model's own ``forward``, in which some families scale or cap them.

        Its decoder does not run again: it gives these states.
        """
        decoder = self.llm.get_decoder()
        own = vars(decoder).get("forward")
        decoder.forward = lambda *_, **__: replace(self._read, last_hidden_state=states[None])
        try:
            return self.llm(inputs_embeds=states[None], use_cache=False).logits[0]
        finally:
            if own is None:
                del decoder.forward
            else:
                decoder.forward = own
