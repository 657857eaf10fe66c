"""What a localizer is: the only code that knows how a model writes and reads times.

Shape suffixes: B dialogues, T frames, L tokens, D width.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from random import Random
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from datamodules.schema import Event, Prediction, Query, Turn, Video

StatePoint = Literal["embedded", "before_last_layer", "before_norm", "after_norm"]
"""Where hidden states are taken: the input of the first decoder layer, that of the last, its output, and that behind
the final norm."""
MARKED_SPAN = r"<s(?P<span>\d+)>\s*(?:to|and|-)\s*<e(?P=span)>"
"""Pattern of a literal text that names the two times of a span by their markers; its number is the group ``span``."""


def marked_event(match: re.Match, times: Mapping[str, float]) -> Event:
    """What lies between the two markers of a ``MARKED_SPAN``."""
    return Event(times[f"<s{match['span']}>"], times[f"<e{match['span']}>"])


@dataclass(frozen=True)
class Clip:
    """The time axis of a video as the model sees it: frame ``k`` shows second ``k / frames_per_s``."""

    duration_s: float
    """Length of the clip that times refer to."""
    frames: int
    frames_per_s: float

    @classmethod
    def of(cls, video: Video, duration_s: float) -> "Clip":
        """The axis of a video with its frames.

        Decoders give times such as 4.98 s for the frame of second 5. A rate that is a multiple of 0.1 but for such
        jitter (below 0.05 s over the whole video) is taken as that multiple, so that times at 1 fps are frame numbers.
        """
        times_s, frames = video.frame_times_s, len(video.features)
        length_s = float(times_s[-1] - times_s[0])
        rate = (frames - 1) / length_s if length_s > 0 else frames / (duration_s or 1.0)
        nominal = round(rate, 1)
        if nominal and abs((frames - 1) / nominal - length_s) < 0.05:
            rate = nominal
        return cls(duration_s, frames, rate)


@dataclass(frozen=True)
class Rendered:
    """A turn as the language model will see it."""

    question: str
    answer: str | None
    """None: to be generated."""
    targets: Any = None
    """Frame-level targets of the answer's events, for ``Localizer.loss``."""
    references: tuple[int, ...] = ()
    """Frame number of each reference token in the question; the frame's input vector is added to the token's."""


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
        self, head: nn.Module | None, states: Mapping[str, Tensor], batch, ids: Mapping[str, int]
    ) -> dict[str, Tensor]:
        """Named loss terms beside the language-model loss: none for times that are plain text.

        Args:
            head: what ``head`` made.
            states: (B, L, D) by ``StatePoint``.
            batch: the ``Batch`` they belong to.
            ids: of the special tokens.
        """
        return {}

    @abstractmethod
    def decode(self, query: Query, answer: Answer, clip: Clip, head: nn.Module | None = None) -> Prediction:
        """Read spans, in seconds, from a generated answer.

        Nothing readable gives a Prediction without spans and with ``rule`` None; it is counted, not dropped.
        """
