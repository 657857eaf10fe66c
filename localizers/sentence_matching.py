"""A baseline without a language model: one sentence and a video's frames, and VideoExpert's head to say when.

Shape suffixes: B dialogues, T frames, L tokens, N ``<LOC>`` tokens, D width.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from random import Random
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from datamodules.batch import frame_states
from datamodules.chat import IGNORE
from datamodules.clip import Clip
from datamodules.prediction import Prediction
from datamodules.rendered import Rendered
from datamodules.schema import Query, Turn
from localizers.answer import Answer
from localizers.base import StatePoint
from localizers.temporal_expert import LOC, TemporalExpert, saliency, stack_targets
from models.matching_head import MatchingHead
from models.saliency_losses import cosines, inter_video_loss, intra_video_loss
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
    inter_weight: float = 0.0
    """Of UniVTG's loss of a clip and its sentence against the other sentences of the batch."""
    intra_weight: float = 0.0
    """Of its loss of a clip against clips outside the moment."""
    saliency_score: Literal["foreground", "sum", "cosine"] = "foreground"
    """What ranks frames as highlights: the probability of being inside, the cosine of frame and sentence, or both."""

    def __post_init__(self):
        if self.captions != "none" or self.bidirectional:
            raise ValueError("without a language model there are no captions and no attention: leave both settings out")
        if self.saliency_score != "foreground" and not self.compares:
            raise ValueError(f"saliency_score {self.saliency_score} is not learned: set inter_weight or intra_weight")

    @property
    def compares(self) -> bool:
        """Whether frames and sentences are compared."""
        return self.inter_weight > 0 or self.intra_weight > 0

    def head(self, width: int) -> MatchingHead:
        """The transformer, the interaction and the two branches."""
        sizes = width, self.head_dim, self.layers, self.attention_heads, self.dropout
        return MatchingHead(*sizes, self.interaction, self.compares)

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

    def loss(
        self, head: MatchingHead | None, states: Mapping[str, Tensor], batch, ids: Mapping[str, int]
    ) -> dict[str, Tensor]:
        """VideoExpert's terms, and UniVTG's saliency losses where they have a weight.

        The frame in the middle of a moment is the one that shows its sentence best.
        """
        terms = super().loss(head, states, batch, ids)
        if head is None or not self.compares:
            return terms
        is_loc = batch.labels == ids[LOC]
        rows = is_loc.nonzero()[:, 0]
        foreground, _ = stack_targets(batch.targets, rows.tolist(), batch.feature_mask)
        there = foreground.any(-1)
        words, word_mask = first_true(*sentences(batch, is_loc, states["embedded"]))
        frames = frame_states(states["embedded"], batch)[rows]
        clips, texts = head.alike(frames[there], words[there], word_mask[there])
        foreground, mask = foreground[there], batch.feature_mask[rows][there]
        middle = (foreground.cumsum(-1) * 2 >= foreground.sum(-1, keepdim=True)).int().argmax(-1)
        nothing = 0.0 * head.pool.sum()
        inter = inter_video_loss(clips, texts, middle)
        intra = intra_video_loss(clips, texts, middle, foreground.float(), mask)
        return terms | {"inter": self.inter_weight * inter + nothing, "intra": self.intra_weight * intra + nothing}

    def decode(self, query: Query, answer: Answer, clip: Clip, head: MatchingHead | None = None) -> Prediction:
        """See TemporalExpert; frames are ranked by ``saliency_score``."""
        found = super().decode(query, answer, clip, head)
        if self.saliency_score == "foreground" or not found.strips:
            return found
        frames, words = answer.frames["embedded"][None], answer.question["embedded"][None]
        scores = cosines(*head.alike(frames, words, words.new_ones(words.shape[:2], dtype=torch.bool)))
        if self.saliency_score == "sum":
            scores = scores + self._output(query, answer, head).probability
        return replace(found, saliency=saliency(scores, query, clip))

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
