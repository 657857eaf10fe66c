"""Captions of dense captioning: METEOR, CIDEr, ROUGE-L and BLEU of the captions whose windows overlap enough.

For every prediction and every reference event that overlap by t there is one pair of captions. A prediction without
any is paired with a word that nobody says, so that it lowers the score.

An event is (start, end, caption), times in seconds. T thresholds.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import chain

import numpy as np

from metrics.captions import UNMATCHED, ascii_only, meteor, tokenizer
from metrics.dense_captioning import localization_rows, localization_summary
from metrics.means import Row, column_means, mean
from metrics.ngrams import ORDER, Idf, bleu, cider, rouge_l
from metrics.policies import check_policy
from metrics.soda import Story
from metrics.spans import as_array, iou

THRESHOLDS = (0.3, 0.5, 0.7, 0.9)
MOST_PREDICTIONS = 1000
"""Events of a video that the official evaluator reads."""
START_DISTANCES = (1, 3, 5, 10, 30, 60)
Pairs = list[tuple[str, str]]


def matched_pairs(
    predicted: Story,
    references: Sequence[Story],
    threshold: float,
    policy: str,
    variant: str = "eps",
    clean: Callable[[str], str] = ascii_only,
) -> Pairs:
    """(hypothesis, reference) captions of every overlapping pair of events; ``UNMATCHED`` where there is none.

    Args:
        predicted: events of one video.
        references: its events in each reference file.
        threshold: IoU from which a pair counts.
        policy: ``sound``: exact IoU, an invalid window matches nothing; ``official``: ``variant``.
        variant: the official IoU.
        clean: what is done to captions before they are compared.
    """
    story = list(chain.from_iterable(references))
    windows = [[event[:2] for event in events] for events in (predicted, story)]
    overlaps = iou(*windows, variant) if policy == "official" else iou(*map(as_array, windows))
    pairs = []
    for event, row in zip(predicted, overlaps, strict=True):
        found = [story[i][2] for i in np.flatnonzero(row >= threshold)]
        pairs += [(clean(event[2]), clean(text)) for text in found or [UNMATCHED]]
    return pairs


def group_scores(groups: Sequence[Pairs], corpus: Sequence[str] = ()) -> list[dict[str, float]]:
    """Caption scores of groups of pairs; each group is its own little corpus.

    Args:
        groups: (hypothesis, reference) pairs of raw captions.
        corpus: reference captions of the whole data set; with them there is also a CIDEr with their idf.

    Returns:
        For each group ``METEOR`` (of the summed statistics), ``CIDEr`` (idf from the group's own references),
        ``Rouge-L``, ``Bleu_1`` .. ``Bleu_4``; 0 for an empty group.
    """
    scorer = meteor()  # starts while the sentences are tokenised
    texts = {text for group in groups for pair in group for text in pair}
    tokens = tokenizer()(texts.union(corpus))
    whole = Idf([[tokens[text]] for text in corpus]) if corpus else None
    tokenised = [tuple((tokens[a], tokens[b]) for a, b in group) for group in groups]
    unique = list(dict.fromkeys(tokenised))
    totals = [row[-1] for row in scorer.score(unique)]
    scores = {}
    for group, total in zip(unique, totals, strict=True):
        hypotheses, references = [a for a, _ in group], [[b] for _, b in group]
        row = {"METEOR": total, "CIDEr": 0.0, "Rouge-L": 0.0, **{f"Bleu_{n + 1}": 0.0 for n in range(ORDER)}}
        if group:
            row["CIDEr"] = mean(cider(hypotheses, references))
            row["Rouge-L"] = mean(rouge_l(hypotheses, references))
            row |= {f"Bleu_{n + 1}": score for n, score in enumerate(bleu(hypotheses, references))}
        if whole:
            row["CIDEr(corpus idf)"] = mean(cider(hypotheses, references, whole)) if group else 0.0
        scores[group] = row
    return [scores[group] for group in tokenised]


def select(
    predictions: Mapping[str, Story | None], references: Sequence[Mapping[str, Story]], policy: str, keep: bool = False
) -> tuple[list[str], dict[str, Story], dict[str, list[Story]]]:
    """The videos that count, their predicted events and their reference stories.

    Under ``sound`` these are all videos of the references; under ``official`` the videos that have a prediction entry
    (or all, see ``keep``), and their first 1000 events.

    Args:
        predictions: video -> events.
        references: video -> events, one mapping a reference file.
        policy: ``sound`` or ``official``.
        keep: a video without prediction entry counts 0 under ``official``, too.

    Raises:
        ValueError: no video counts.
    """
    official = policy == "official"
    videos = sorted({video for file in references for video in file})
    if official and not keep:
        videos = [video for video in videos if video in predictions]
    if not videos:
        raise ValueError("no video of the references has a prediction")
    stories = {video: list(predictions.get(video) or []) for video in videos}
    if official:
        stories = {video: story[:MOST_PREDICTIONS] for video, story in stories.items()}
    return videos, stories, {video: [file[video] for file in references if video in file] for video in videos}


def caption_rows(
    predictions: Mapping[str, Story | None],
    references: Sequence[Mapping[str, Story]],
    thresholds: Sequence[float] = THRESHOLDS,
    policy: str = "sound",
    keep: bool = False,
) -> dict[str, Row]:
    """Video -> caption scores, each the mean over the thresholds; see ``caption_scores``."""
    check_policy(policy)
    videos, stories, files = select(predictions, references, policy, keep)
    groups = [matched_pairs(stories[video], files[video], t, policy) for video in videos for t in thresholds]
    corpus = []
    if policy == "sound":
        corpus = [ascii_only(event[2]) for video in videos for story in files[video] for event in story]
    scores = group_scores(groups, corpus)
    rows = {}
    for i, video in enumerate(videos):
        own = scores[i * len(thresholds) : (i + 1) * len(thresholds)]
        row = {name: mean(score[name] for score in own) for name in own[0]}
        if policy == "sound":
            row["CIDEr(video idf)"] = row.pop("CIDEr")
        rows[video] = row
    return rows


def caption_scores(
    predictions: Mapping[str, Story | None],
    references: Sequence[Mapping[str, Story]],
    thresholds: Sequence[float] = THRESHOLDS,
    policy: str = "sound",
) -> dict[str, float]:
    """Caption scores at tIoU: per video, then the mean over videos and thresholds. METEOR, ROUGE-L and BLEU are
    fractions, CIDEr is on its scale of 0 to 10.

    ``sound``: exact IoU; a video without prediction counts 0; CIDEr carries the scope of its idf in its name,
    ``CIDEr(video idf)`` as everyone reports it, 0 wherever a video has one pair, and ``CIDEr(corpus idf)`` with the
    reference captions of all videos as documents. ``official``: IoU with 1e-8 in its denominator, videos without
    prediction are left out.

    Args:
        predictions: video -> events.
        references: video -> events, one mapping a reference file.
        thresholds: IoU thresholds (inclusive).
        policy: ``sound`` or ``official``.

    Raises:
        ValueError: no video in common.
        CaptionsUnavailable: no Java or pycocoevalcap.

    Source: Krishna et al., Dense-Captioning Events in Videos (2017).
    """
    return column_means(caption_rows(predictions, references, thresholds, policy).values())


def event_rows(
    predictions: Mapping[str, Story | None],
    references: Sequence[Mapping[str, Story]],
    thresholds: Sequence[float] = THRESHOLDS,
    policy: str = "sound",
    captions: bool = True,
    distances: Sequence[float] = START_DISTANCES,
    keep: bool = False,
) -> dict[str, Row]:
    """Video -> ``caption_rows`` and ``localization_rows`` together; the arguments are those of ``event_scores``."""
    videos, stories, files = select(predictions, references, policy, keep)
    windows = [[event[:2] for event in stories[video]] for video in videos]
    targets = [[[event[:2] for event in story] for story in files[video]] for video in videos]
    located = localization_rows(windows, targets, thresholds, policy, distances)
    rows = dict(zip(videos, located, strict=True))
    if not captions:
        return rows
    texts = caption_rows(predictions, references, thresholds, policy, keep)
    return {video: {**texts[video], **rows[video]} for video in videos}


def event_summary(
    means: Mapping[str, float],
    thresholds: Sequence[float] = THRESHOLDS,
    distances: Sequence[float] = START_DISTANCES,
) -> dict[str, float]:
    """The means over videos, with F1 and the means over thresholds."""
    texts = {name: value for name, value in means.items() if "@" not in name}
    return texts | localization_summary(means, thresholds, distances)


def event_scores(
    predictions: Mapping[str, Story | None],
    references: Sequence[Mapping[str, Story]],
    thresholds: Sequence[float] = THRESHOLDS,
    policy: str = "sound",
    captions: bool = True,
    distances: Sequence[float] = START_DISTANCES,
    keep: bool = False,
) -> dict[str, float]:
    """``caption_scores`` and ``localization_scores`` together, as the ActivityNet Captions evaluation reports them.

    Args:
        predictions: video -> events.
        references: video -> events, one mapping a reference file.
        thresholds: IoU thresholds.
        policy: ``sound`` or ``official``.
        captions: False leaves out what needs Java.
        distances: seconds for precision and recall of starts.
        keep: a video without prediction counts 0 under ``official``, too (the ActivityNet challenge's evaluator, and
            PDVC's; that of VidChapters leaves it out).
    """
    rows = event_rows(predictions, references, thresholds, policy, captions, distances, keep)
    return event_summary(column_means(rows.values()), thresholds, distances)
