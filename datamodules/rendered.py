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
    moments: tuple[tuple[float, float], ...] = ()
    """What the time tokens of question and answer stand for, in the order in which they stand there; in the localizer's
    own units (``Localizer.read_back``)."""

    def __post_init__(self):
        object.__setattr__(self, "question", Text(self.question))
        object.__setattr__(self, "answer", None if self.answer is None else Text(self.answer))


@dataclass(frozen=True)
class FrameTexts:
    """What stands between the frames of a video."""

    before: tuple[str, ...]
    """(T,) the text before each frame, often empty; the tokens of a ``Text`` are meant, if there are such."""
    behind: str = ""
    """Behind the last frame."""
    moments: tuple[tuple[float, float], ...] = ()
    """What the time tokens in these texts stand for, see ``Rendered``."""


class Unsayable(ValueError):
    """A localizer has no way to write this answer. Its turn is left out of the dialogue, and counted by the message."""


class Renderer(Protocol):
    """What a dialogue needs of a localizer; see ``localizers.base.Localizer``, which is one."""

    special_tokens: tuple[str, ...]
    """Tokens that the vocabulary needs."""
    time_tokens: tuple[str, ...]
    """Those of them whose input vector depends on the time that they stand for."""
    no_moment: str
    """The answer that a moment does not happen; empty: it has none."""

    def frame_texts(self, clip: Clip) -> FrameTexts | None:
        """What stands between the frames of a video; None: nothing."""

    def render(self, turn: Turn, clip: Clip, random: Random) -> Rendered:
        """Write the times of a turn; ``random`` is the source of every choice between paraphrases.

        Raises:
            Unsayable: the localizer has no way to write this answer.
        """
