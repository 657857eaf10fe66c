"""A baseline without a language model: one sentence and a video's frames, and VideoExpert's head to say when.

Shape suffixes: B dialogues, T frames, L tokens, N ``<LOC>`` tokens, D width.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from random import Random
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from datamodules.batch import frame_states
from datamodules.chat import IGNORE
from datamodules.clip import Clip
from datamodules.rendered import Rendered
from datamodules.schema import Turn
from localizers.answer import Answer
from localizers.base import StatePoint
from localizers.temporal_expert import TemporalExpert
from models.matching_head import MatchingHead
from models.temporal_head import HeadOutput

MOMENTS = ("grounding", "grounded_qa", "highlights")
"""Tasks that ask for a moment alone."""


@dataclass(frozen=True)
class SentenceMatching(TemporalExpert):
    """Each question is one sentence, and its answer is one ``<LOC>``: nothing is generated.

    What a moment is to the head, its losses and how spans are read are VideoExpert's. A small transformer over frames
    and words stands in for the language model, of which only the input vectors are left. Source: the layout is that of
    UniVTG (Lin et al., 2023); here words are lower-case, and the sentence is the mean of its words.
    """

    states: ClassVar[tuple[StatePoint, ...]] = ("embedded",)
    generates: ClassVar[bool] = False

    head_dim: int = 512
    """Width of the transformer and of the convolutions."""
    word: str = ""
    layers: int = 4
    """Of the transformer."""
    attention_heads: int = 8
    dropout: float = 0.1

    def __post_init__(self):
        if self.captions != "none" or self.bidirectional:
            raise ValueError("without a language model there are no captions and no attention: leave both settings out")

    def head(self, width: int) -> MatchingHead:
        """The transformer, the interaction and the two branches."""
        return MatchingHead(width, self.head_dim, self.layers, self.attention_heads, self.dropout, self.interaction)

    def render(self, turn: Turn, clip: Clip, random: Random) -> Rendered:
        """See TemporalExpert.

        Raises:
            ValueError: the turn asks for words.
        """
        if turn.task not in MOMENTS:
            raise ValueError(f"without a language model there are moments alone, and no answer to a {turn.task!r} turn")
        rendered = super().render(turn, clip, random)
        return replace(rendered, question=rendered.question.change(words=str.lower))

    def _read(self, head: MatchingHead, states: Mapping[str, Tensor], batch, is_loc: Tensor) -> HeadOutput:
        embedded, rows = states["embedded"], is_loc.nonzero()[:, 0]
        words, word_mask = first_true(*sentences(batch, is_loc, embedded))
        return head(frame_states(embedded, batch)[rows], words, batch.feature_mask[rows], word_mask)

    def _ask(self, head: MatchingHead, answer: Answer, places: list[int]) -> HeadOutput:
        frames, words = answer.frames["embedded"][None], answer.question["embedded"][None]
        masks = (part.new_ones(part.shape[:2], dtype=torch.bool) for part in (frames, words))
        return head(frames, words, *masks)


def sentences(batch, is_loc: Tensor, embedded: Tensor) -> tuple[Tensor, Tensor]:
    """The row (N, L, D) of each ``<LOC>``, and (N, L) where the words of its question stand in it.

    They are what stands behind the video without being supervised, since the answer before.
    """
    behind = batch.frame_mask.cumsum(-1).bool() & ~batch.frame_mask
    words = behind & batch.attention_mask.bool() & (batch.labels == IGNORE)
    questions = (words & ~F.pad(words[:, :-1], (1, 0), value=False)).cumsum(-1)  # numbers them in each row
    rows, places = is_loc.nonzero(as_tuple=True)
    return embedded[rows], words[rows] & (questions[rows] == questions[rows, places][:, None])


def first_true(values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Values (N, L, D) and mask (N, L) with what the mask selects moved to the front, as long as the longest row."""
    longest = int(mask.sum(-1).max()) if len(mask) else 1
    order = mask.int().argsort(dim=-1, descending=True, stable=True)[:, :longest]
    return values.take_along_dim(order[..., None], 1), mask.take_along_dim(order, 1)
