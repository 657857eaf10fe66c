"""What a localizer is: the only code that knows how a model writes and reads times.

Shape suffixes: B dialogues, T frames, L tokens, D width.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict
from random import Random
from typing import ClassVar, Literal

from torch import Tensor, nn

from datamodules.batch import Batch
from datamodules.clip import Clip
from datamodules.rendered import Rendered
from datamodules.schema import Event, Prediction, Query, Turn
from localizers.answer import Answer

StatePoint = Literal["embedded", "before_last_layer", "before_norm", "after_norm"]
"""Where hidden states are taken: the input of the first decoder layer, that of the last, its output, and that behind
the final norm."""
MARKED_SPAN = r"<s(?P<span>\d+)>\s*(?:to|and|-)\s*<e(?P=span)>"
"""Pattern of a literal text that names the two times of a span by their markers; its number is the group ``span``."""


def marked_event(match: re.Match, times: Mapping[str, float]) -> Event:
    """What lies between the two markers of a ``MARKED_SPAN``."""
    return Event(times[f"<s{match['span']}>"], times[f"<e{match['span']}>"])


class Localizer(ABC):
    """How a model says *when*.

    It holds settings and no weights, so that it can be sent to data workers; what it learns is in ``head``. A new
    paradigm is one subclass in a file of its own and one config.
    """

    special_tokens: ClassVar[tuple[str, ...]] = ()
    """Tokens that the vocabulary needs for this localizer."""
    reference_token: ClassVar[str | None] = None
    """The one of them that stands for a frame in a question."""
    states: ClassVar[tuple[StatePoint, ...]] = ()
    """Hidden states that ``loss`` and ``decode`` want."""
    generates: ClassVar[bool] = True
    """Whether a language model writes the answer. False: it is the ``special_tokens``, and no language model is run."""
    bidirectional: bool = False
    """Whether a video's frames attend to all of its frames, and not only to earlier ones."""
    token_init: Literal["mean", "released"] = "mean"
    """First values of the special tokens, see ``models.vocabulary``."""
    lm_weight: float = 1.0
    """Factor of the language-model loss beside the terms of ``loss``."""

    def head(self, width: int) -> nn.Module | None:
        """What is learned beside the language model, on hidden states of ``width``; None: nothing."""
        return None

    @abstractmethod
    def render(self, turn: Turn, clip: Clip, random: Random) -> Rendered:
        """Write the times of a turn the way the model reads and writes them.

        Args:
            turn: question and answer with time markers, or events that the localizer puts into words.
            clip: time axis of the video.
            random: source of every choice between paraphrases.
        """

    def config(self) -> dict:
        """Class and settings, as configs write them. Localizers are dataclasses of plain settings."""
        kind = type(self)
        return {"class_path": f"{kind.__module__}.{kind.__qualname__}", "init_args": asdict(self)}

    def loss(
        self, head: nn.Module | None, states: Mapping[str, Tensor], batch: Batch, ids: Mapping[str, int]
    ) -> dict[str, Tensor]:
        """Named loss terms beside the language-model loss: none for times that are plain text.

        Args:
            head: what ``head`` made.
            states: (B, L, D) by ``StatePoint``.
            batch: they belong to it.
            ids: of the special tokens.
        """
        return {}

    def gauges(self, head: nn.Module | None) -> dict[str, Tensor]:
        """What of the head is worth watching while it learns, for logs."""
        return {}

    @abstractmethod
    def decode(self, query: Query, answer: Answer, clip: Clip, head: nn.Module | None = None) -> Prediction:
        """Read spans, in seconds, from a generated answer.

        Nothing readable gives a Prediction without spans and with ``rule`` None; it is counted, not dropped.
        """
