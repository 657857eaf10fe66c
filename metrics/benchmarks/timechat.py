"""Dense captioning in the style of Vid2Seq and TimeChat: everything per video, then the mean over videos."""

import re
from collections.abc import Mapping, Sequence

from metrics.benchmarks.event_captions import THRESHOLDS, group_scores, matched_pairs
from metrics.captions import ascii_only, meteor
from metrics.dense_captioning import video_localization
from metrics.means import column_means, harmonic, mean
from metrics.ngrams import cider
from metrics.policies import check_policy
from metrics.soda import Story, caption_gains, compare, soda_by_video

NO_LETTER = re.compile(r"[^a-zA-Z]")


def timechat_scores(
    predictions: Mapping[str, Story | None], references: Mapping[str, Story], policy: str = "sound"
) -> dict[str, float]:
    """The means over videos of ``timechat_video_scores``, and ``paragraph_scores``.

    Args:
        predictions: video -> events.
        references: video -> events.
        policy: ``sound`` says the scope of CIDEr's idf in its name: ``CIDER(video idf)``, ``Para_CIDER(corpus idf)``.
    """
    means = column_means(timechat_video_scores(predictions, references, policy).values())
    return means | paragraph_scores(predictions, references, policy)


def paragraph_scores(
    predictions: Mapping[str, Story | None], references: Mapping[str, Story], policy: str = "sound"
) -> dict[str, float]:
    """All captions of a video as one text, its words only, against all of its reference captions.

    Args:
        predictions: video -> events.
        references: video -> events.
        policy: ``sound``: a missing video has an empty text; ``official``: it is left out of the predicted texts only,
            so that the n-th of them meets the n-th reference, whatever its video.

    Returns:
        ``Para_CIDER`` with the references of all videos as documents, and ``Para_METEOR`` of the summed statistics.
    """
    official = check_policy(policy) == "official"
    listed = [predictions.get(video) or [] for video in references if not official or video in predictions]
    texts = [[words(story) for story in stories] for stories in (listed, references.values())]
    pairs = list(zip(*texts, strict=not official))
    scores = mean(cider([a for a, _ in pairs], [[b] for _, b in pairs]))
    name = "Para_CIDER" if official else "Para_CIDER(corpus idf)"
    return {name: scores, "Para_METEOR": meteor().score([pairs])[0][-1]}


def words(story: Story) -> str:
    """The words of all captions of a story in small letters, with a blank for all that is no letter."""
    return " ".join(NO_LETTER.sub(" ", " ".join(event[2] for event in story)).lower().split())


def timechat_video_scores(
    predictions: Mapping[str, Story | None],
    references: Mapping[str, Story],
    policy: str = "sound",
    thresholds: Sequence[float] = THRESHOLDS,
) -> dict[str, dict[str, float]]:
    """Scores of each video in the style of Vid2Seq and TimeChat, as fractions (CIDEr 0 to 10).

    Missing videos count 0. ``F1_Score`` is the harmonic mean of this video's precision and recall, each averaged over
    the thresholds; the mean over videos is taken of it, not the F1 of means.

    Args:
        predictions: video -> events.
        references: video -> events.
        policy: ``official`` sorts the end points of each window, adds 1e-8 to the union and takes events as listed;
            its SODA_c gives the k-th window of a video the k-th caption in the order of the numbers' text (0, 1, 10,
            2, ..), which is another one from 11 predictions on. ``sound`` is exact.
        thresholds: IoU thresholds.

    Returns:
        video -> ``CIDER`` (``CIDER(video idf)`` under ``sound``), ``METEOR``, ``Precision@t``, ``Recall@t``,
        ``Precision_Mean``, ``Recall_Mean``, ``F1_Score``, ``n_preds``, ``SODA_c``.

    Source: Yang et al., Vid2Seq (2023); Ren et al., TimeChat (2024).
    """
    official = check_policy(policy) == "official"
    videos = sorted(references)
    stories = {video: list(predictions.get(video) or []) for video in videos}
    if official:
        stories = {v: [(min(s, e), max(s, e), text) for s, e, text in story] for v, story in stories.items()}
    clean = str if official else ascii_only
    groups = [
        matched_pairs(stories[video], [references[video]], t, policy, "eps_sorted", clean)
        for video in videos
        for t in thresholds
    ]
    captions = iter(group_scores(groups))
    results = {}
    for video in videos:
        rows = [next(captions) for _ in thresholds]
        windows = [event[:2] for event in stories[video]]
        found = video_localization(
            windows, [[event[:2] for event in references[video]]], thresholds, policy, "eps_sorted"
        )
        name = "CIDER" if official else "CIDER(video idf)"
        row = {name: mean(row["CIDEr"] for row in rows), "METEOR": mean(row["METEOR"] for row in rows)}
        for t, (precision, recall) in zip(thresholds, found, strict=True):
            row |= {f"Precision@{t:g}": precision, f"Recall@{t:g}": recall}
        row["Precision_Mean"], row["Recall_Mean"] = (mean(column) for column in zip(*found, strict=True))
        row["F1_Score"] = harmonic(row["Precision_Mean"], row["Recall_Mean"])
        row["n_preds"] = len(windows)
        results[video] = row
    for video, score in stories_soda(stories, references, official).items():
        results[video]["SODA_c"] = score
    return results


def stories_soda(stories: Mapping[str, Story], references: Mapping[str, Story], official: bool) -> dict[str, float]:
    """SODA_c of each video."""
    if not official:
        return {video: row[2] for video, row in soda_by_video(stories, [references], "c").items()}
    items = {}
    for video, reference in references.items():
        item = compare(stories[video], reference, "official", sort_references=False, sort_predictions=False)
        texts = [event[2] for event in stories[video]]
        item.references = [event[2] for event in reference]
        item.predictions = [texts[i] for i in sorted(range(len(texts)), key=str)]
        items[video] = item
    gains = caption_gains(list(items.values()), "c", "METEOR")
    return {v: item.ratios("c", matrix)[0][2] for (v, item), matrix in zip(items.items(), gains, strict=True)}
