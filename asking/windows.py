"""Long videos: windows that overlap, and one answer made of those to each window."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from datamodules.prediction import Prediction
from datamodules.schema import Query

SHARED = 0.5
"""Spans of two windows that share this much of the shorter one are the same moment."""
Span = tuple[float, float, float]
"""Start and end in seconds of the whole video, and score."""


@dataclass(frozen=True)
class Windows:
    """How a long video is cut.

    Raises:
        ValueError: a length or an overlap that leaves no way forward.
    """

    length_s: float = 240.0
    """Videos up to this long are seen whole; 0: all of them are."""
    overlap: float = 0.5
    """Share of a window that the next one sees too: a moment of up to that length lies whole in one of them."""

    def __post_init__(self):
        if not (0 <= self.length_s < math.inf and 0 <= self.overlap < 0.95):
            raise ValueError(
                f"a window needs a length of 0 s or more and an overlap of 0 to 0.95, got {self.length_s} and "
                f"{self.overlap}"
            )

    def cut(self, duration_s: float) -> list[tuple[float, float]]:
        """The windows of a video, evenly spread: start and end of each in seconds."""
        if not self.length_s or duration_s <= self.length_s:
            return [(0.0, duration_s)]
        steps = math.ceil((duration_s - self.length_s) / (self.length_s * (1 - self.overlap)) - 1e-9)
        step_s = (duration_s - self.length_s) / steps
        return [(number * step_s, number * step_s + self.length_s) for number in range(steps + 1)]


def together(query: Query, parts: Sequence[tuple[tuple[float, float], Prediction]], duration_s: float) -> Prediction:
    """One answer about the whole video.

    Events of a description are those whose centre is nearer to the middle of their window than to that of another, so
    that none is told twice. Other spans are merged where windows overlap, and ranked. An option is that of the window
    whose answer was the most certain. Saliency and strips, which are about frames of a window, are left out.

    Args:
        query: that was asked of every window.
        parts: (start, end) of each window in order, and the answer to it, in seconds of the window.
        duration_s: of the whole video.
    """
    if len(parts) == 1:
        return parts[0][1]
    told = query.task == "dense_captioning"
    spans, captions = _events(parts) if told else (_moments(parts, duration_s), ())
    said = "\n".join(f"[{start:.0f}-{end:.0f} s] {answer.answer}" for (start, end), answer in parts)
    surest = max((answer for _, answer in parts), key=lambda answer: answer.confidence or 0.0)
    found = [answer for _, answer in parts if answer.rule is not None]
    return replace(
        surest,
        answer=surest.answer if query.options else said,
        spans=tuple(spans),
        captions=tuple(captions),
        saliency=(),
        strips=(),
        rule=found[0].rule if found else None,
    )


def _events(parts: Sequence) -> tuple[list[Span], list[str]]:
    middles = [(start + end) / 2 for (start, end), _ in parts]
    events = []
    for number, ((start, _), answer) in enumerate(parts):
        captions = answer.captions or ("",) * len(answer.spans)
        for (begin, end, score), caption in zip(answer.spans, captions, strict=True):
            centre = start + (begin + end) / 2
            if number == min(range(len(parts)), key=lambda other: (abs(middles[other] - centre), other)):
                events.append(((start + begin, start + end, score), caption))
    events.sort(key=lambda event: event[0][:2])
    return [span for span, _ in events], [caption for _, caption in events]


def _moments(parts: Sequence, duration_s: float) -> list[Span]:
    """Best first. A span that its window cut off is joined with what the next window sees of it."""
    found = []
    for (start, end), answer in parts:
        unscored = all(score == 1.0 for *_, score in answer.spans)
        factor = answer.confidence if unscored and answer.confidence is not None else 1.0
        edge_s = 0.02 * (end - start)
        for begin, stop, score in answer.spans:
            cut_off = (begin <= edge_s and start > 0) or (start + stop >= end - edge_s and end < duration_s - 1e-6)
            found.append((start + begin, start + stop, score * factor, cut_off))
    kept: list[list] = []
    for span in sorted(found, key=lambda span: -span[2]):
        same = next((one for one in kept if _shared(one, span) >= SHARED), None)
        if same is None:
            kept.append(list(span))
        elif same[3] or span[3]:
            same[0], same[1] = min(same[0], span[0]), max(same[1], span[1])
    return [(start, end, score) for start, end, score, _ in kept]


def _shared(one: Sequence[float], other: Sequence[float]) -> float:
    shorter = min(one[1] - one[0], other[1] - other[0])
    common = min(one[1], other[1]) - max(one[0], other[0])
    return common / shorter if shorter > 0 else 0.0
