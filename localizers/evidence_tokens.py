"""D2VLM: evidence first, then the answer. Each ``<evi>`` is matched to the frames of an event, and is read with them.

Shape suffixes: B dialogues, T frames, L tokens, N ``<evi>`` tokens, D width.
"""

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from datamodules.batch import frame_states
from datamodules.chat import IGNORE
from datamodules.clip import Clip
from datamodules.markup import Text, Token
from datamodules.prediction import Prediction
from datamodules.rendered import Rendered
from datamodules.schema import Query, Turn
from localizers.absence import NO_MOMENT, NONE
from localizers.answer import Answer
from localizers.frame_matching import POINT_S, span
from localizers.written_spans import Found, Moments, WrittenSpans
from models.evidence_head import EvidenceHead, best_run
from models.factorised_preferences import pointing_log_likelihood, sums_of_blocks

EVI, END = "<evi>", "</evi>"


@dataclass(frozen=True)
class EvidenceTokens(WrittenSpans):
    """An answer begins with an ``<evi>`` for each of its events, and names each again where it speaks of it.

    In an answer the token is read with the mean of its frames' states behind an inner block added, in a question with
    that of their input vectors. Source: D2VLM (Zeng et al., 2025) and its released code.
    """

    special_tokens: ClassVar[tuple[str, ...]] = (EVI, END)
    time_tokens: ClassVar[tuple[str, ...]] = (EVI,)
    decoding: ClassVar[tuple[str, ...]] = ("share", "none_below")
    rule: ClassVar[str] = "matched evidence"
    one_piece: ClassVar[bool] = True

    block: int = 6
    """Behind which frames are read for an ``<evi>``; of a language model with fewer layers, choose an earlier one."""
    alpha: float = 2.0
    """A frame at a distance of k frames from the event is right by alpha^-k."""
    match_weight: float = 10.0
    consistency_weight: float = 0.0
    """Of the distance between what an event's two tokens are matched by (10 in the released code, where it is on)."""
    share: float = 0.6
    """Frames with this share of the highest probability are inside."""
    none_below: float = 0.0
    """There is no moment where no span has this mean probability (chosen on validation data); 0: there always is."""
    legacy: bool = False
    """As released: two runs of frames with the same mean are joined over the gap."""
    token_init: Literal["mean", "released"] = "mean"

    @property
    def inner(self) -> str:
        """The place of the states that tokens are read with."""
        return f"after_block_{self.block}"

    @property
    def states(self) -> tuple[str, ...]:
        """For both heads, and for what tokens are read with."""
        return "before_last_layer", self.inner

    def head(self, width: int) -> EvidenceHead:
        """The two projections."""
        return EvidenceHead(width)

    def time(self, time_s: float, clip: Clip) -> Text:
        """A span of one frame."""
        return Text(Token(EVI))

    def span(self, start_s: float, end_s: float, clip: Clip) -> Text:
        """One token."""
        return Text(Token(EVI))

    def moments(self, start_s: float, end_s: float, clip: Clip) -> Moments:
        """The first and the last frame."""
        places = (round(clip.even_s(time_s) * clip.frames_per_s) for time_s in sorted((start_s, end_s)))
        first, last = (float(min(max(place, 0), clip.frames - 1)) for place in places)
        return [(first, last)]

    def render(self, turn: Turn, clip: Clip, random: Random) -> Rendered:
        """Puts the evidence before the answer. Spans of a question are kept as their complement, to know them apart."""
        rendered = super().render(turn, clip, random)
        asked = rendered.question.tokens.count(EVI)
        spoken, said = rendered.moments[:asked], rendered.moments[asked:]
        question = tuple((-1.0 - first, -1.0 - last) for first, last in spoken)
        if not said:
            return replace(rendered, moments=question)
        evidence = [Token(EVI)] * len(said)
        return replace(
            rendered, answer=Text(*evidence, Token(END), " ", rendered.answer), moments=(*question, *said, *said)
        )

    def read_back(self, head, inputs: Tensor, moments: Tensor, frames: Tensor, rows: Tensor) -> Tensor:
        """The token's vector, and the mean of its frames: (B, T, 2, D) input vectors and inner states."""
        asked = moments[:, 0] < 0
        ends = torch.where(asked[:, None], -1.0 - moments, moments)
        steps = torch.arange(frames.shape[1], device=frames.device)
        inside = (steps >= ends[:, :1]) & (steps <= ends[:, 1:])
        kind = (~asked).long()  # of an answer: inner states
        seen = frames[rows, :, kind].to(inputs.dtype)
        return inputs + (inside[..., None] * seen).sum(1) / inside.sum(-1, keepdim=True).clamp(min=1).to(seen.dtype)

    def just_written(
        self, head: EvidenceHead, states: Mapping[str, Tensor], frames: Mapping[str, Tensor], mask: Tensor
    ) -> Tensor:
        """The frames of each token."""
        logits, _ = head(states["before_last_layer"], frames["before_last_layer"])
        runs = [self._run(row[real]) for row, real in zip(logits.sigmoid(), mask, strict=True)]
        return torch.tensor(runs, dtype=torch.float32, device=logits.device)

    def _run(self, chances: Tensor) -> tuple[int, int]:
        return best_run(chances, self.share, self.legacy) if chances.isfinite().all() else (0, 0)

    def loss(
        self, head: EvidenceHead | None, states: Mapping[str, Tensor], batch, ids: Mapping[str, int]
    ) -> dict[str, Tensor]:
        """Binary cross-entropy of tokens and frames: the mean over both, and then over dialogues with events."""
        if head is None:
            return {}
        rows, places, logits, vectors = self._pointing(head, states, batch, ids)
        if not len(rows):  # attached to the graph, so that all processes reduce the same gradients
            nothing = 0.0 * sum(parameter.sum() for parameter in head.parameters())
            return {"evidence": nothing} | ({"consistency": nothing} if self.consistency_weight else {})
        mask, right = batch.feature_mask[rows], self.soft_labels(batch.moments[rows, places + 1], logits.shape[1])
        each = F.binary_cross_entropy_with_logits(logits, right, reduction="none").masked_fill(~mask, 0)
        blocks = torch.zeros_like(batch.labels) if batch.blocks is None else batch.blocks
        _, dialogue = torch.unique(rows * (1 + blocks.max()) + blocks[rows, places], return_inverse=True)
        means = [each[dialogue == k].sum() / mask[dialogue == k].sum() for k in range(int(dialogue.max()) + 1)]
        terms = {"evidence": self.match_weight * torch.stack(means).mean()}
        if self.consistency_weight:
            apart = [halves_apart(vectors[dialogue == k]) for k in range(len(means))]
            terms["consistency"] = self.consistency_weight * torch.stack(apart).mean()
        return terms

    def _pointing(self, head: EvidenceHead, states: Mapping[str, Tensor], batch, ids: Mapping[str, int]) -> tuple:
        """Of the N tokens of answers: rows and places (N,) of the states that predict them, and what the head gives."""
        is_evi = F.pad(batch.labels[:, 1:], (0, 1), value=IGNORE) == ids[EVI]
        rows, places = is_evi.nonzero(as_tuple=True)
        seen = states["before_last_layer"]
        return rows, places, *head(seen[is_evi], frame_states(seen, batch)[rows])

    def log_likelihood(self, head: EvidenceHead, states: Mapping[str, Tensor], batch, ids: Mapping[str, int]) -> Tensor:
        """Sums over tokens and frames, see ``factorised_preferences``."""
        rows, places, logits, _ = self._pointing(head, states, batch, ids)
        right, mask = self.soft_labels(batch.moments[rows, places + 1], logits.shape[1]), batch.feature_mask[rows]
        each = pointing_log_likelihood(logits, right, mask)
        shape = len(batch.labels), 1 + int(batch.blocks.max())
        return sums_of_blocks(each, rows, batch.blocks[rows, places], shape)

    def soft_labels(self, spans: Tensor, frames: int) -> Tensor:
        """(N, T) how right each frame is for spans (N, 2) of frames."""
        steps = torch.arange(frames, device=spans.device)
        outside = torch.maximum(spans[:, :1] - steps, steps - spans[:, 1:]).clamp(min=0)
        return self.alpha**-outside

    def find(self, query: Query, answer: Answer, clip: Clip, head: EvidenceHead | None) -> list[Found]:
        """The spans that the answer speaks of; of an answer without words, its evidence."""
        places = [place for place, token in enumerate(answer.tokens) if token == EVI]
        written = [*re.finditer(EVI, answer.text)]
        if head is None or not places or len(places) != len(written):
            return []
        frames = answer.frames["before_last_layer"]
        chances = head(answer.predicting["before_last_layer"][places], frames)[0].sigmoid().cpu()
        if not chances.isfinite().all():
            warnings.warn(f"query {query.id}: a score is not finite; counted as unparsed", stacklevel=3)
            return []
        behind = answer.text.find(END)
        spoken = [number for number, match in enumerate(written) if match.start() > behind >= 0]
        found = []
        for number in spoken or range(len(written)):
            first, last = self._run(chances[number])
            score = chances[number, first : last + 1].mean().item()
            ends = span([first, last], clip, POINT_S)
            found.append(Found(*written[number].span(), *ends, score))
        return found

    def decode(self, query: Query, answer: Answer, clip: Clip, head: EvidenceHead | None = None) -> Prediction:
        """See WrittenSpans; and without a moment where all scores are below ``none_below``."""
        found = super().decode(query, answer, clip, head)
        if found.spans and max(score for *_, score in found.spans) < self.none_below:
            return replace(found, answer=NO_MOMENT, spans=(), captions=(), rule=NONE)
        return found

    def shown(self, text: str, found: Sequence[Found]) -> str:
        """With the spans in place of the tokens, and without the evidence where words follow it."""
        for each in reversed(found):
            text = f"{text[: each.begin]}{each.start_s:.1f} - {each.end_s:.1f} s{text[each.end :]}"
        return text.partition(END)[2].strip() or text.replace(END, "")


def halves_apart(vectors: Tensor) -> Tensor:
    """Mean distance of what the tokens of the evidence are matched by, and those of the words, in the same order."""
    half = len(vectors) // 2
    return (vectors[:half] - vectors[half : 2 * half]).abs().mean()
