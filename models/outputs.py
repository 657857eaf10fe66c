"""What a video language model gives: a loss with states, or an answer with states.

Shape suffixes: B dialogues, T frames, L tokens, N supervised tokens, V vocabulary, D width.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from models.words import Words


@dataclass(frozen=True, eq=False)
class Output:
    """What one training forward pass gives."""

    lm_loss: Tensor
    """Mean cross-entropy over the supervised tokens of the batch; 0 without any."""
    words: Words | None = None
    """Of the supervised tokens, in row order; None: no language model is run."""
    states: dict[str, Tensor] = field(default_factory=dict)
    """(B, L, D) hidden states by the place where they were taken."""
    positions: int = 0
    """Of the decoder's rows, padding included."""
    token_loss: Tensor | None = None
    """(N,) cross-entropy of each supervised token, with gradients; None: no language model is run."""
    row_loss: Tensor | None = None
    """(B,) summed cross-entropy of each row, for logs; None: no language model is run."""
    row_tokens: Tensor | None = None
    """(B,) supervised tokens of each row."""

    @property
    def logits(self) -> Tensor:
        """(N, V) of the supervised tokens, computed when they are asked for."""
        return self.words.logits()

    def padding_of(self, real: Tensor) -> dict[str, tuple[Tensor, int]]:
        """Positions that stood for no token, of real ones (B, L), and all; nothing where no language model is run."""
        return {"padding": (self.positions - real.sum(), self.positions)} if self.positions else {}

    def losses_of(self, sources: Sequence[str]) -> dict[str, tuple[Tensor, Tensor]]:
        """Sum and tokens of each source's loss, where rows have sources and a language model is run."""
        if self.row_loss is None or not any(sources):
            return {}
        rows = {name: [row for row, source in enumerate(sources) if source == name] for name in set(sources)}
        return {f"source/{name}": (self.row_loss[at].sum(), self.row_tokens[at].sum()) for name, at in rows.items()}


@dataclass(frozen=True, eq=False)
class Generated:
    """One answer and the hidden states around it, by the place where they were taken."""

    ids: Tensor
    """(L,) the new tokens."""
    frames: dict[str, Tensor]
    """(T, D) at the video's frames."""
    predicting: dict[str, Tensor]
    """(L, D) that predicted each token."""
    reading: dict[str, Tensor]
    """(L, D) when each token was read."""
    first: dict[str, Tensor]
    """(D,) at the first token of the prompt."""
    question: dict[str, Tensor] = field(default_factory=dict)
    """(L, D) at the words behind the video; only where no language model reads them."""
    moments: Tensor | None = None
    """(L, 2) what each token was read as; NaN: as the plain token. None: all were."""
    log_likely: Tensor | None = None
    """(L,) log-probability of each token, where somebody asked for it."""

    def confidence(self, tokens: int) -> float | None:
        """Geometric mean of the probabilities of the first ``tokens``, where somebody asked for them."""
        return None if self.log_likely is None else self.log_likely[:tokens].mean().exp().item()
