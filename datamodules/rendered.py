"""A turn with its times written the way a model reads and writes them, and what writes it."""

from dataclasses import dataclass
from random import Random
from typing import Any, Protocol

from datamodules.clip import Clip
from datamodules.markup import Text
from datamodules.schema import Turn


@dataclass(frozen=True)
class Rendered:
    """A turn as the language model will see it."""

    question: str
    """The tokens of a ``Text`` are meant; a plain string has none, whatever it says."""
    answer: str | None
    """The same. None: to be generated."""
    targets: Any = None
    """Frame-level targets of the answer's events, for ``Localizer.loss``."""
    references: tuple[int, ...] = ()
    """Frame number of each reference token in the question; the frame's input vector is added to the token's."""

    def __post_init__(self):
        object.__setattr__(self, "question", Text(self.question))
        object.__setattr__(self, "answer", None if self.answer is None else Text(self.answer))


class Renderer(Protocol):
    """What a dialogue needs of a localizer; see ``localizers.base.Localizer``, which is one."""

    special_tokens: tuple[str, ...]
    """Tokens that the vocabulary needs."""
    reference_token: str | None
    """The one of them that stands for a frame in a question."""

    def render(self, turn: Turn, clip: Clip, random: Random) -> Rendered:
        """Write the times of a turn; ``random`` is the source of every choice between paraphrases."""
