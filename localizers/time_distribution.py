"""DisTime: one token stands for a span, whose start and end are distributions over the video.

Shape suffixes: N time tokens, T frames, L tokens, D width; R + 1 bins.
"""

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from datamodules.chat import IGNORE
from datamodules.clip import Clip
from datamodules.markup import Text, Token, join
from datamodules.prediction import Prediction
from datamodules.rendered import FrameTexts
from datamodules.schema import Query
from datamodules.turns import sentence
from localizers.absence import NO_MOMENT, NONE
from localizers.answer import Answer
from localizers.base import StatePoint
from localizers.written_spans import Found, Moments, WrittenSpans, capital
from models.time_distribution_head import TimeDistributionHead, distance_iou, expected, focal

SPAN, FRAME = "<TIME_STAMP>", "<FRAME_TIME_REF>"


@dataclass(frozen=True)
class TimeDistribution(WrittenSpans):
    """The state that predicts ``<TIME_STAMP>`` gives two distributions; their means are the span.

    The token is read as an encoding of its span in place of its own vector, and so is the ``<FRAME_TIME_REF>`` before
    each frame. Source: DisTime (Zeng et al., 2025, section 3) and its released code.
    """

    special_tokens: ClassVar[tuple[str, ...]] = (SPAN, FRAME)
    time_tokens: ClassVar[tuple[str, ...]] = (SPAN, FRAME)
    states: ClassVar[tuple[StatePoint, ...]] = ("after_norm",)
    decoding: ClassVar[tuple[str, ...]] = ("none_below",)
    rule: ClassVar[str] = "means of distributions"
    one_piece: ClassVar[bool] = True

    bins: int = 32
    """Steps from the beginning of a video to its end (``reg_max``)."""
    sigma: float = 1.0
    """Width of the bell as which a time is read, in bins."""
    focal_weight: float = 1.0
    iou_weight: float = 1.0
    none_below: float = 0.0
    """There is no moment where no span has this score (chosen on validation data); 0: there always is."""
    legacy: bool = False
    """As released: ends at most a second before the end of the video, losses of all spans added up, and the IoU loss
    without bound for reversed spans."""
    token_init: Literal["mean", "released"] = "mean"

    def head(self, width: int) -> TimeDistributionHead:
        """The two perceptrons."""
        return TimeDistributionHead(width, self.bins, self.sigma)

    def frame_texts(self, clip: Clip) -> FrameTexts:
        """A token before each frame, read with the time at which it was decoded."""
        texts = (Text("\n" if number else "", Token(FRAME), ": ") for number in range(clip.frames))
        shares = (float(time_s) / (clip.duration_s or 1.0) for time_s in clip.frames_s)  # an image has no length
        return FrameTexts(tuple(texts), "\n", tuple((share, share) for share in shares))

    def time(self, time_s: float, clip: Clip) -> Text:
        """A span without length."""
        return Text(Token(SPAN))

    def span(self, start_s: float, end_s: float, clip: Clip) -> Text:
        """One token."""
        return Text(Token(SPAN))

    def moments(self, start_s: float, end_s: float, clip: Clip) -> Moments:
        """Start and end as shares of the duration, inside the video."""
        last_s = max(clip.duration_s - 1.0, 0.0) if self.legacy else clip.duration_s
        start, end = (min(max(time_s, 0.0), last_s) / (clip.duration_s or 1.0) for time_s in (start_s, end_s))
        return [(start, end)]

    def event(self, span: Text, caption: str) -> Text:
        """``During <TIME_STAMP>, he cuts.``"""
        return Text("During ", span, sentence(f", {caption}"))

    def listing(self, spans: Sequence[Text]) -> Text:
        """``During <TIME_STAMP>, and during <TIME_STAMP>.``"""
        return Text(capital(join(", and ", (Text("during ", span) for span in spans))), ".")

    def read_back(self, head, inputs: Tensor, moments: Tensor, frames: Tensor, rows: Tensor) -> Tensor:
        """The encoding of the span, in place of the token's vector."""
        return head.encode(moments)

    def just_written(
        self, head: TimeDistributionHead, states: Mapping[str, Tensor], frames: Mapping[str, Tensor], mask: Tensor
    ) -> Tensor:
        """The span that was just decoded."""
        return expected(head(states["after_norm"])) / self.bins

    def loss(
        self, head: TimeDistributionHead | None, states: Mapping[str, Tensor], batch, ids: Mapping[str, int]
    ) -> dict[str, Tensor]:
        """Focal loss of the distributions and IoU loss of their means: means over the spans of a batch."""
        if head is None:
            return {}
        is_span = F.pad(batch.labels[:, 1:], (0, 1), value=IGNORE) == ids[SPAN]
        rows, places = is_span.nonzero(as_tuple=True)
        logits = head(states["after_norm"][is_span])
        if not len(rows):  # attached to the graph, so that all processes reduce the same gradients
            nothing = 0.0 * (logits.sum() + sum(parameter.sum() for parameter in head.parameters()))
            return {"focal": nothing, "iou": nothing}
        right = batch.moments[rows, places + 1].float()
        count = 1 if self.legacy else len(rows)
        found = expected(logits) / self.bins
        return {
            "focal": self.focal_weight * focal(logits, right * self.bins).sum() / (self.bins * count),
            "iou": self.iou_weight * distance_iou(found, right, self.legacy).mean(),
        }

    def find(self, query: Query, answer: Answer, clip: Clip, head: TimeDistributionHead | None) -> list[Found]:
        """The means of both ends; the score is how much of the distributions lies within a bin of them."""
        places = [place for place, token in enumerate(answer.tokens) if token == SPAN]
        written = [*re.finditer(SPAN, answer.text)]
        if head is None or not places or len(places) != len(written):
            return []
        logits = head(answer.predicting["after_norm"][places]).float().cpu()
        if not logits.isfinite().all():
            warnings.warn(f"query {query.id}: a score is not finite; counted as unparsed", stacklevel=3)
            return []
        means, sure = expected(logits) / self.bins * clip.duration_s, concentration(logits)
        found = zip(written, means.tolist(), sure.tolist(), strict=True)
        return [Found(match.start(), match.end(), *ends, score) for match, ends, score in found]

    def decode(self, query: Query, answer: Answer, clip: Clip, head: TimeDistributionHead | None = None) -> Prediction:
        """See WrittenSpans; and without a moment where all scores are below ``none_below``."""
        found = super().decode(query, answer, clip, head)
        if found.spans and max(score for *_, score in found.spans) < self.none_below:
            return replace(found, answer=NO_MOMENT, spans=(), captions=(), rule=NONE)
        return found

    def shown(self, text: str, found: Sequence[Found]) -> str:
        """With the spans in place of the tokens."""
        for each in reversed(found):
            start_s, end_s = sorted((each.start_s, each.end_s))
            text = f"{text[: each.begin]}{start_s:.1f} - {end_s:.1f} s{text[each.end :]}"
        return text


def concentration(logits: Tensor) -> Tensor:
    """(N,) of distributions (N, 2, R + 1): the product of what lies within one bin of each mean, between 0 and 1."""
    steps = torch.arange(logits.shape[-1], dtype=logits.dtype)
    near = (steps - expected(logits)[..., None]).abs() <= 1
    return (logits.softmax(-1) * near).sum(-1).prod(-1)
