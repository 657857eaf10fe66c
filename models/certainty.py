"""How sure a language model is of what it writes."""

import torch
from torch import Tensor
from transformers import LogitsProcessor


class Certainty(LogitsProcessor):
    """Follows ``generate`` and keeps how likely each token was that came next; the scores stay as they are.

    One vocabulary of numbers a row is held at a time, not one a token, as ``output_scores`` would.
    """

    def __init__(self):
        self._likely: Tensor | None = None
        self._said: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores (B, V) of the next token behind ``input_ids`` (B, L)."""
        if self._likely is not None:
            self._keep(input_ids[:, -1])
        self._likely = scores.float().log_softmax(-1)
        return scores

    def _keep(self, ids: Tensor) -> None:
        self._said.append(self.chosen(ids))

    def chosen(self, ids: Tensor) -> Tensor:
        """Log-probabilities (B,) of tokens (B,) that were chosen by the scores of the last call, for one's own loop."""
        likely, self._likely = self._likely.gather(1, ids[:, None]).squeeze(1), None
        return likely

    def of(self, answers: Tensor) -> Tensor:
        """Log-probabilities (B, L) of the tokens of answers (B, L), which ``generate`` returned."""
        self._keep(answers[:, -1].to(self._likely.device))
        return torch.stack(self._said, dim=1)
