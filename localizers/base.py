"""What a localizer is: the only code that knows how a model writes and reads times."""

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from random import Random
from typing import Any

from torch import Tensor

from datamodules.schema import Prediction, Query, Turn


@dataclass(frozen=True)
class Rendered:
    """A turn as the language model will see it."""

    question: str
    answer: str | None
    """None: to be generated."""
    targets: Any = None
    """Frame-level targets of the answer's events, for ``Localizer.loss``."""


class Localizer(ABC):
    """How a model says *when*.

    It holds settings and no weights, so that it can be sent to data workers. A new paradigm is one subclass in
    a file of its own and one config.
    """

    special_tokens: tuple[str, ...] = ()
    """Tokens that the vocabulary needs for this localizer."""

    @abstractmethod
    def render(self, turn: Turn, duration_s: float, random: Random) -> Rendered:
        """Write the times of a turn the way the model reads and writes them.

        Args:
            turn: question and answer with time markers, or events that the localizer puts into words.
            duration_s: length of the clip that the turn's times refer to.
            random: source of every choice between paraphrases.
        """

    def config(self) -> dict:
        """Class and settings, as configs write them. Localizers are dataclasses of plain settings."""
        kind = type(self)
        return {"class_path": f"{kind.__module__}.{kind.__qualname__}", "init_args": asdict(self)}

    def loss(self, output, batch) -> dict[str, Tensor]:
        """Named loss terms beside the language-model loss: none for times that are plain text."""
        return {}

    @abstractmethod
    def decode(self, query: Query, answer: str, duration_s: float) -> Prediction:
        """Read spans, in seconds, from a generated answer.

        Nothing readable gives a Prediction without spans and with ``rule`` None; it is counted, not dropped.
        """
