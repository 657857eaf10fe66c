"""SODA: how well a predicted story follows a reference story, event by event and in order.

Shapes: G reference events, N predicted events. An event is (start, end, caption), times in seconds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from metrics.alignment import best_order_preserving_score, order_preserving_pairs
from metrics.captions import Meteor, ascii_only, meteor, tokenizer
from metrics.means import harmonic, mean
from metrics.ngrams import cider
from metrics.policies import check_policy
from metrics.spans import as_array, iou, is_valid

Event = tuple[float, float, str]
Story = Sequence[Event]
THRESHOLDS = (0.3, 0.5, 0.7, 0.9)
KINDS = ("a", "b", "c", "d")
MODES = ("merged", "best", "average")


def soda_ratio(score: float, predictions: int, references: int) -> tuple[float, float, float]:
    """Precision, recall and F1 of a matching score.

    Args:
        score: the sum of the gains of the matched pairs.
        predictions: N.
        references: G.

    Returns:
        score / N, score / G and their harmonic mean; 0 where there is nothing to divide by.
    """
    precision = score / predictions if predictions else 0.0
    recall = score / references if references else 0.0
    return precision, recall, harmonic(precision, recall)


def by_start(windows: Sequence[Sequence]) -> list[int]:
    """The order of the windows by start; equal starts keep their order."""
    return sorted(range(len(windows)), key=lambda i: windows[i][0])


@dataclass
class Comparison:
    """One predicted story against one reference story."""

    overlaps: np.ndarray
    """(G, N) IoU."""
    references: list[str]
    predictions: list[str]
    counted: int
    """Predicted events, the invalid ones included."""
    policy: str

    def wanted(self, kind: str) -> np.ndarray:
        """(G, N) bool: the pairs whose captions have to be compared."""
        if kind == "c":
            return self.overlaps > 0
        wanted = np.zeros(self.overlaps.shape, dtype=bool)
        for t in kind_thresholds(kind):
            for pair in order_preserving_pairs(above(self.overlaps, t), self.policy):
                wanted[pair] = True
        return wanted

    def ratios(self, kind: str, gains: np.ndarray | None) -> list[tuple[float, float, float]]:
        """Precision, recall and F1 of this story, at each IoU threshold under which events are matched.

        Args:
            kind: a, b, c or d.
            gains: (G, N) caption scores; not needed for d.
        """
        if kind == "d":
            scores = [best_order_preserving_score(self.overlaps)]
        elif kind == "c":
            scores = [best_order_preserving_score(self.overlaps * gains)]
        else:
            matchings = (order_preserving_pairs(above(self.overlaps, t), self.policy) for t in kind_thresholds(kind))
            scores = [sum(gains[pair] for pair in pairs) for pairs in matchings]
        return [soda_ratio(score, self.counted, len(self.references)) for score in scores]


def kind_thresholds(kind: str) -> tuple[float, ...]:
    """The IoU thresholds under which SODA a and b match events."""
    return THRESHOLDS if kind == "a" else (0.0,)


def above(overlaps: np.ndarray, threshold: float) -> np.ndarray:
    """The overlaps with 0 for those below the threshold."""
    return np.where(overlaps < threshold, 0.0, overlaps)


def compare(
    predicted: Story, reference: Story, policy: str, sort_references: bool = True, sort_predictions: bool = True
) -> Comparison:
    """Prepares one story; predictions and references are sorted by start, unless told otherwise."""
    official = policy == "official"
    usable = list(predicted) if official else [event for event in predicted if is_valid(event[:2])]
    if sort_predictions:
        usable = [usable[i] for i in by_start(usable)]
    story = [reference[i] for i in by_start(reference)] if sort_references else list(reference)
    windows = [[event[:2] for event in events] for events in (story, usable)]
    overlaps = iou(*windows, "eps") if official else iou(*map(as_array, windows), "exact")
    captions = [[ascii_only(event[2]) for event in events] for events in (story, usable)]
    return Comparison(overlaps, *captions, len(predicted), policy)


def meteor_gains(comparisons: Sequence[Comparison], kind: str, tokens: Mapping[str, str], scorer: Meteor) -> list:
    """(G, N) METEOR of the pairs that matter. As in the official code the prediction is METEOR's *reference*."""
    wanted = [np.argwhere(item.wanted(kind)) for item in comparisons]
    pairs = [
        (tokens[item.references[i]], tokens[item.predictions[j]])
        for item, rows in zip(comparisons, wanted, strict=True)
        for i, j in rows
    ]
    values = iter(scorer.pairs(pairs))
    gains = []
    for item, rows in zip(comparisons, wanted, strict=True):
        matrix = np.zeros(item.overlaps.shape)
        for i, j in rows:
            matrix[i, j] = next(values)
        gains.append(matrix)
    return gains


def cider_gains(comparison: Comparison, tokens: Mapping[str, str]) -> np.ndarray:
    """(G, N) CIDEr; for each reference event the N predictions are the documents of the idf."""
    predictions = [[tokens[text]] for text in comparison.predictions]
    rows = [cider([tokens[text]] * len(predictions), predictions) for text in comparison.references]
    return np.array(rows).reshape(comparison.overlaps.shape)


def soda_scores(
    predictions: Mapping[str, Story | None],
    references: Sequence[Mapping[str, Story]],
    kind: str = "c",
    mode: str = "average",
    policy: str = "sound",
    scorer: str = "METEOR",
) -> dict[str, float]:
    """SODA over a data set, as fractions.

    Type a: match by IoU at 0.3, 0.5, 0.7 and 0.9, score by captions; b: match by IoU, score by captions; c: match and
    score by IoU x captions; d: match and score by IoU.

    Several reference files: ``merged`` puts the events of all files into one story a video (SODA's default), ``best``
    takes the file with the best F1 for each video (its ``--multi_reference``), ``average`` scores each file alone and
    averages (ActivityNet Captions evaluation). They are three different numbers.

    Args:
        predictions: video -> events; None or [] counts 0.
        references: video -> events, one mapping a reference file.
        kind: a, b, c or d.
        mode: merged, best or average.
        policy: ``sound``: exact IoU, a video without prediction counts 0, an invalid window matches nothing;
            ``official``: IoU with 1e-8 in its denominator, videos without prediction are left out.
        scorer: METEOR or CIDEr. d needs neither, nor Java.

    Returns:
        ``precision``, ``recall``, ``f1``: means over the videos.

    Raises:
        ValueError: unknown kind, mode or scorer, or no video in common.

    Source: Fujita et al., SODA: Story Oriented Dense Video Captioning Evaluation Framework (2020).
    """
    check_policy(policy)
    for value, known in ((kind, KINDS), (mode, MODES), (scorer, ("METEOR", "CIDEr"))):
        if value not in known:
            raise ValueError(f"unknown SODA option {value!r}; known: {', '.join(known)}")
    if mode == "average" and len(references) > 1:
        alone = [soda_scores(predictions, [file], kind, mode, policy, scorer) for file in references]
        return {key: mean(row[key] for row in alone) for key in ("precision", "recall", "f1")}
    rows = soda_by_video(predictions, references, kind, mode, policy, scorer).values()
    return {key: mean(row[i] for row in rows) for i, key in enumerate(("precision", "recall", "f1"))}


def soda_by_video(
    predictions: Mapping[str, Story | None],
    references: Sequence[Mapping[str, Story]],
    kind: str = "c",
    mode: str = "merged",
    policy: str = "sound",
    scorer: str = "METEOR",
) -> dict[str, tuple[float, float, float]]:
    """Precision, recall and F1 of each video; the arguments are those of ``soda_scores``, mode merged or best."""
    videos = sorted({video for file in references for video in file})
    if policy == "official":
        videos = [video for video in videos if video in predictions]
    if not videos:
        raise ValueError("no video of the references has a prediction")
    comparisons, owners = [], []
    for video in videos:
        stories = [file[video] for file in references if video in file]
        if mode != "best":
            stories = [[event for story in stories for event in story]]
        for story in stories:
            comparisons.append(compare(predictions.get(video) or [], story, policy, sort_references=mode != "best"))
            owners.append(video)
    gains = caption_gains(comparisons, kind, scorer) if kind != "d" else [None] * len(comparisons)
    best: dict[str, list[tuple[float, float, float]]] = {}
    for video, item, matrix in zip(owners, comparisons, gains, strict=True):
        rows = item.ratios(kind, matrix)  # at each threshold the reference that fits best counts, the first of equals
        known = best.setdefault(video, rows)
        best[video] = [row if row[2] > old[2] else old for row, old in zip(rows, known, strict=True)]
    return {video: tuple(mean(column) for column in zip(*rows, strict=True)) for video, rows in best.items()}


def caption_gains(comparisons: Sequence[Comparison], kind: str, scorer: str) -> list:
    """The (G, N) caption scores of every story."""
    scorer_process = meteor() if scorer == "METEOR" else None  # starts while the sentences are tokenised
    tokens = tokenizer()(text for item in comparisons for text in (*item.references, *item.predictions))
    if scorer_process is None:
        return [cider_gains(item, tokens) for item in comparisons]
    return meteor_gains(comparisons, kind, tokens, scorer_process)
