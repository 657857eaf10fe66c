"""Highlight detection: is the saliency of the clips that people liked higher than that of the others?

Shapes: Q queries, C clips of a video (2 seconds each in QVHighlights), A annotators, K columns of labels.
"""

import math
from collections.abc import Sequence

import numpy as np

from metrics.means import Row, column_means, mean
from metrics.policies import check_policy
from metrics.spans import is_number

LEVELS = {"Fair": 2, "Good": 3, "VeryGood": 4}
"""An annotator's score from which a clip is positive."""


def tie_aware_precision(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Interpolated average precision where equal scores count as one step.

    Clips of equal score form a group. Each group that holds a positive gives one value, the highest precision at
    this score or any lower one; the mean of these values is the result. So a group of k positives counts once.

    Args:
        scores: (C,) higher is better.
        labels: (C, K) 0 or 1.

    Returns:
        (K,); 0 for a column without positives.
    """
    if not len(scores):
        return np.zeros(labels.shape[1])
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    ends = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
    positives = labels[order].cumsum(axis=0)[ends]
    precision = positives / (ends + 1)[:, None]
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    counted = np.diff(positives, axis=0, prepend=0) > 0
    groups = counted.sum(axis=0)
    return np.divide((envelope * counted).sum(axis=0), groups, out=np.zeros(labels.shape[1]), where=groups > 0)


def clip_matrix(clip_ids: Sequence[int], scores: Sequence[Sequence[float]], duration_s: float) -> np.ndarray:
    """The annotators' scores of every clip of a QVHighlights video.

    Args:
        clip_ids: indices of the 2-second clips that were rated.
        scores: one list of A ratings (0 to 4) for each of them.
        duration_s: length of the video.

    Returns:
        (C, A) with C = floor(duration / 2), 0 for clips that were not rated.

    Raises:
        ValueError: a clip is not in the video, or the ratings are no table with one row a clip.
    """
    if not is_number(duration_s):
        raise ValueError("the duration is missing")
    if len(clip_ids) != len(scores) or not is_matrix(scores):
        raise ValueError("saliency_scores must hold equally many ratings for each of the relevant_clip_ids")
    if not all(isinstance(clip, int) for clip in clip_ids):
        raise ValueError("relevant_clip_ids must be whole numbers")
    clips = int(duration_s / 2)
    matrix = np.zeros((clips, len(scores[0]) if scores else 3))
    if clip_ids:
        if max(clip_ids) >= clips or min(clip_ids) < 0:
            raise ValueError(f"relevant_clip_ids go beyond the {clips} clips of a video of {duration_s} s")
        matrix[list(clip_ids)] = scores
    return matrix


def is_matrix(value: Sequence) -> bool:
    """True for lists of numbers, all of the same length, which is not 0."""
    if not all(isinstance(row, Sequence) and len(row) and all(map(is_number, row)) for row in value):
        return False
    return len({len(row) for row in value}) <= 1


def fit_length(saliency: np.ndarray, clips: int, fill: float) -> np.ndarray:
    """The first ``clips`` scores; missing ones become ``fill``."""
    return np.concatenate([saliency[:clips], np.full(max(clips - len(saliency), 0), fill)])


def highlight_rows(
    saliency: Sequence[Sequence[float] | None], ratings: Sequence[np.ndarray], policy: str = "sound"
) -> list[Row]:
    """``HL-min-Fair-mAP``, ``HL-min-Fair-Hit1`` and so on of each query, in percent, as in ``highlight_scores``."""
    official = check_policy(policy) == "official"
    rows = []
    for scores, rating in zip(saliency, ratings, strict=True):
        rating = np.asarray(rating, dtype=float).reshape(len(rating), -1)
        labels = np.concatenate([rating >= level for level in LEVELS.values()], axis=1)
        values = np.asarray(scores if scores is not None else [], dtype=float)
        if official and (not len(values) or np.isnan(values).any()):
            raise ValueError("a saliency list is empty or holds NaN and the official evaluator stops there")
        precisions, liked = np.zeros(labels.shape[1]), np.zeros(rating.shape[1])
        if len(values) and (official or np.isfinite(values).all()):
            filled = fit_length(values, len(rating), 0.0 if official else -math.inf)
            precisions = tie_aware_precision(filled, labels)
            first = int(values.argmax())
            liked = rating[first] if first < len(rating) else liked
        row = {}
        for name, level, per_annotator in zip(LEVELS, LEVELS.values(), np.split(precisions, len(LEVELS)), strict=True):
            row[f"HL-min-{name}-mAP"] = 100 * mean(per_annotator)
            row[f"HL-min-{name}-Hit1"] = 100.0 * bool((liked >= level).any())
        rows.append(row)
    return rows


def highlight_scores(
    saliency: Sequence[Sequence[float] | None], ratings: Sequence[np.ndarray], policy: str = "sound"
) -> dict[str, float]:
    """mAP and HIT@1 of QVHighlights at the levels Fair, Good and VeryGood.

    mAP is the mean over queries and annotators of the average precision; an annotator who liked no clip counts 0.
    HIT@1: any annotator liked the first clip of highest saliency; one outside the video is a miss. A list that is
    longer than the video is cut. A shorter one is filled: clips without a score rank last under ``sound`` and get
    saliency 0.0 under ``official``. A list that is missing, empty or holds a non-finite score counts 0 under
    ``sound``.

    Args:
        saliency: Q lists of scores, one a clip; None where there is no answer.
        ratings: Q matrices (C, A) of ratings 0 to 4.
        policy: ``sound`` or ``official``.

    Returns:
        ``HL-min-Fair-mAP``, ``HL-min-Fair-Hit1`` and so on in percent; counts ``n``, ``missing``, ``invalid`` (a
        non-finite score) and ``short``.

    Raises:
        ValueError: under ``official``, a list that is missing, empty or holds a NaN.

    Source: Lei et al., QVHighlights (2021), section 5; Liu et al., hit ratio (2015).
    """
    rows = highlight_rows(saliency, ratings, policy)
    lists = [np.asarray(scores if scores is not None else [], dtype=float) for scores in saliency]
    lengths = zip(lists, ratings, strict=True)
    return {
        **column_means(rows),
        "n": len(rows),
        "missing": sum(not len(values) for values in lists),
        "invalid": sum(not np.isfinite(values).all() for values in lists),
        "short": sum(0 < len(values) < len(rating) for values, rating in lengths),
    }
