"""What a localizer is: the only code that knows how a model writes and reads times.

Shape suffixes: B dialogues, T frames, L tokens, D width.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from random import Random
from typing import ClassVar, Literal

from torch import Tensor, nn

from datamodules.batch import Batch
from datamodules.clip import Clip
from datamodules.prediction import Prediction
from datamodules.rendered import FrameTexts, Rendered
from datamodules.schema import Event, Query, Turn
from localizers.answer import Answer
from localizers.telling import Captions

StatePoint = str
"""Where hidden states are taken: ``embedded``, the input of the first decoder layer; ``before_last_layer``;
``before_norm``, the output of the last; ``after_norm``, behind the final norm; ``after_block_K``, behind layer K."""
MARKED_SPAN = r"<s(?P<span>\d+)>\s*(?:to|and|-)\s*<e(?P=span)>"
"""Pattern of a literal text that names the two times of a span by their markers; its number is the group ``span``."""


def marked_event(match: re.Match, times: Mapping[str, float]) -> Event:
    """What lies between the two markers of a ``MARKED_SPAN``."""
    return Event(times[f"<s{match['span']}>"], times[f"<e{match['span']}>"])


@dataclass(frozen=True)
class Localizer(ABC):
    """How a model says *when*.

    It holds settings and no weights, so that it can be sent to data workers; what it learns is in ``head``. A new
    paradigm is one subclass, a dataclass of plain settings, in a file of its own and one config.
    """

    special_tokens: ClassVar[tuple[str, ...]] = ()
    """Tokens that the vocabulary needs for this localizer."""
    time_tokens: ClassVar[tuple[str, ...]] = ()
    """Those of them that are read with the time they stand for, see ``read_back``."""
    no_moment: ClassVar[str] = ""
    """The answer that a moment does not happen; empty: it has none, and cannot learn from queries without events."""
    says_none: ClassVar[bool] = True
    """Whether ``decode`` reads ``no_moment`` off the words; else off a score."""
    states: ClassVar[tuple[StatePoint, ...]] = ()
    """Hidden states that ``loss`` and ``decode`` want."""
    generates: ClassVar[bool] = True
    """Whether a language model writes the answer. False: it is the ``special_tokens``, and no language model is run."""
    decoding: ClassVar[tuple[str, ...]] = ()
    """Settings that only ``decode`` looks at, so that a trained model can be read with others."""
    token_init: ClassVar[Literal["mean", "released"]] = "mean"
    """First values of the special tokens, see ``models.vocabulary``."""
    normalise_rows: ClassVar[bool] = False
    """Whether the rows of the special tokens are scaled after every step, see ``models.vocabulary.normalise_rows``."""
    inner: ClassVar[StatePoint | None] = None
    """Of the frames, states that ``read_back`` wants beside their input vectors: ``after_block_K``, of its ``states``.
    In training the frames are read up to there once more, before all else."""
    copied_rows: ClassVar[Mapping[str, str]] = {}
    """Special tokens whose first values are those of a word, and the words; of others ``token_init`` says."""
    lm_weight: ClassVar[float] = 1.0
    """Factor of the language-model loss beside the terms of ``loss``."""

    captions: Captions = "none"
    """What an answer says of an event beside its time."""
    bidirectional: bool = False
    """Whether a video's frames attend to all of its frames, and not only to earlier ones."""

    @property
    def first_rows(self) -> tuple[Literal["mean", "released"], Mapping[str, str]]:
        """First values of the special tokens' rows, as ``models.vocabulary.add_tokens`` takes them."""
        return self.token_init, self.copied_rows

    @property
    def word_loss_tokens(self) -> tuple[str, ...]:
        """Special tokens whose logits ``word_loss`` wants where they are due; none: it is not asked."""
        return ()

    def head(self, width: int) -> nn.Module | None:
        """What is learned beside the language model, on hidden states of ``width``; None: nothing."""
        return None

    @abstractmethod
    def render(self, turn: Turn, clip: Clip, random: Random) -> Rendered:
        """Write the times of a turn the way the model reads and writes them.

        Special tokens are written as ``Token``, see ``datamodules.markup``; in a plain string they are words.

        Args:
            turn: question and answer with time markers, or events that the localizer puts into words.
            clip: time axis of the video.
            random: source of every choice between paraphrases.
        """

    def frame_texts(self, clip: Clip) -> FrameTexts | None:
        """What a model reads between the frames of a video, for example when each was taken; None: nothing.

        Frames need not be neighbours: attention among frames, their states and sharing a video go by what is a frame.
        """
        return None

    def config(self) -> dict:
        """Class and settings, as configs write them."""
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

    def log_likelihood(
        self, head: nn.Module | None, states: Mapping[str, Tensor], batch: Batch, ids: Mapping[str, int]
    ) -> Tensor:
        """How likely the time tokens of answers mean what they should, to learn which of two answers is better.

        Args:
            head: what ``head`` made.
            states: (B, L, D) by ``StatePoint``.
            batch: they belong to it; its ``blocks`` tell the answers of a row apart.
            ids: of the special tokens.

        Returns:
            (B, K) log-likelihoods, summed over the tokens of each of K blocks.
        """
        raise NotImplementedError(f"{type(self).__name__} does not know how likely a time is")

    def word_loss(self, logits: Tensor, labels: Tensor, ids: Mapping[str, int]) -> dict[str, Tensor]:
        """Named loss terms on the words themselves.

        Args:
            logits: (N, V) of those supervised tokens of a batch that are ``word_loss_tokens``.
            labels: (N,) what they should be.
            ids: of the special tokens.
        """
        return {}

    def gauges(self, head: nn.Module | None) -> dict[str, Tensor]:
        """What of the head is worth watching while it learns, for logs."""
        return {}

    def read_back(
        self, head: nn.Module | None, inputs: Tensor, moments: Tensor, frames: Tensor, rows: Tensor
    ) -> Tensor:
        """What the ``time_tokens`` are read as: their times become part of their input vectors, or replace them.

        It is asked for every time token of a question, of an answer that is learned, and of an answer while it is
        written, always with the same arguments, so that a model reads in use what it read in training.

        Args:
            head: what ``head`` made.
            inputs: (N, D) the tokens' own input vectors.
            moments: (N, 2) what each stands for, from ``Rendered.moments`` or ``just_written``.
            frames: (B, T, D) input vectors of the videos' frames, zero behind the last one; with ``inner``
                (B, T, 2, D), those and the inner states.
            rows: (N,) the video of each token.

        Returns:
            (N, D) input vectors, with gradients to head and frames where these are to learn from it.
        """
        return inputs

    def just_written(
        self, head: nn.Module | None, states: Mapping[str, Tensor], frames: Mapping[str, Tensor], mask: Tensor
    ) -> Tensor | None:
        """What the time tokens stand for that a model has just written.

        Args:
            head: what ``head`` made.
            states: (N, D) by ``StatePoint``, those that predicted the tokens.
            frames: (N, T, D) by ``StatePoint``, those at the frames of each token's video.
            mask: (N, T), true where a frame is real.

        Returns:
            (N, 2) moments for ``read_back``; None: such tokens are read as they are.
        """
        return None

    @abstractmethod
    def decode(self, query: Query, answer: Answer, clip: Clip, head: nn.Module | None = None) -> Prediction:
        """Read spans, in seconds, from a generated answer.

        Nothing readable gives a Prediction without spans and with ``rule`` None; it is counted, not dropped.
        """
