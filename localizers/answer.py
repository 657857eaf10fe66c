"""What a model said about one query."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Answer:
    """What a model said about one query, and the hidden states it had meanwhile, by ``StatePoint``."""

    text: str
    """With the localizer's special tokens, without all others."""
    tokens: tuple[str, ...] = ()
    """L tokens."""
    frames: Mapping[str, Tensor] = field(default_factory=dict)
    """(T, D) at the video's frames."""
    predicting: Mapping[str, Tensor] = field(default_factory=dict)
    """(L, D) that predicted each token."""
    reading: Mapping[str, Tensor] = field(default_factory=dict)
    """(L, D) when each token was read."""
    first: Mapping[str, Tensor] = field(default_factory=dict)
    """(D,) at the first token of the prompt."""
    question: Mapping[str, Tensor] = field(default_factory=dict)
    """(L, D) at the words behind the video, where no language model reads them."""
    confidence: float | None = None
    """Geometric mean of the probabilities of the tokens; None where nobody asked for it."""
    length: int = 0
    """How many tokens were generated; behind these others of the batch were still being written."""
