"""Highlights that an answer names in words: times, and how salient each is.

``There are 2 highlight moments in the 3.0, 9.0 second. Their saliency scores are 3.5, 2.0.``
"""

import re
from collections.abc import Sequence
from dataclasses import replace

from datamodules.clip import Clip
from datamodules.prediction import Prediction
from datamodules.schema import Query

SCORES = re.compile(r"\bscores?\b[^\d\n]*((?:\d+(?:\.\d+)?(?:\s*(?:,|and)\s*)*)+)", re.IGNORECASE)
"""Pattern of the scores that stand behind the word."""
NUMBER = re.compile(r"\d+(?:\.\d+)?")
POINT_S = 2.0
"""Length of a highlight where the query does not say."""


def told_scores(places: Sequence[int], text: str) -> list[float | None]:
    """How salient an answer says that each of its moments is.

    Args:
        places: where in the text the moments are named.
        text: of the answer.

    Returns:
        one score a moment: of as many as there are moments its own, else the first behind it and before the next one.
        None: it has no score, and others have. Where there are no scores at all, each has 1.
    """
    told = [(found.start(), float(number)) for found in SCORES.finditer(text) for number in NUMBER.findall(found[1])]
    if not told:
        return [1.0] * len(places)
    if len(told) == len(places):
        return [score for _, score in told]
    until = [*places[1:], len(text)]
    return [
        next((score for at, score in told if place <= at < end), None) for place, end in zip(places, until, strict=True)
    ]


def with_highlights(
    found: Prediction, times_s: Sequence[float], scores: Sequence[float | None], query: Query, clip: Clip
) -> Prediction:
    """An answer with its highlights as saliency: one score a clip of the query, or a frame; 0 where none is named.

    A time behind the end of the video means its end; of several in one clip the most salient counts.
    """
    size = query.clip_s or 1 / clip.frames_per_s
    clips = query.clips(clip.duration_s) if query.clip_s else clip.frames
    saliency, spans = [0.0] * clips, []
    for time_s, score in zip(times_s, scores, strict=True):
        if score is not None:
            time_s = min(max(time_s, 0.0), clip.duration_s)
            place = min(int((time_s if query.clip_s else clip.even_s(time_s)) / size), clips - 1)
            saliency[place] = max(saliency[place], score)
            start_s = place * size if query.clip_s else time_s
            spans.append((start_s, min(start_s + (query.clip_s or POINT_S), clip.duration_s), score))
    return replace(found, saliency=tuple(saliency), spans=tuple(sorted(spans, key=lambda span: -span[2])))
