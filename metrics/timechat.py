"""Dense captioning in the style of Vid2Seq and TimeChat: everything per video, then the mean over videos."""

from collections.abc import Mapping, Sequence

from metrics.dense_captioning import video_localization
from metrics.event_captions import THRESHOLDS, group_scores, matched_pairs
from metrics.records import check_policy, harmonic, mean
from metrics.soda import Story, soda_by_video


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
        policy: ``official`` sorts the end points of each window and adds 1e-8 to the union; ``sound`` is exact.
        thresholds: IoU thresholds.

    Returns:
        video -> ``CIDER``, ``METEOR``, ``Precision@t``, ``Recall@t``, ``Precision_Mean``, ``Recall_Mean``,
        ``F1_Score``, ``SODA_c``, ``n_preds``. SODA_c pairs captions and windows in numeric order: the official code
        sorts caption ids as text and is wrong from 11 predictions on.

    Source: Yang et al., Vid2Seq (2023); Ren et al., TimeChat (2024).
    """
    check_policy(policy)
    videos = sorted(references)
    stories = {video: list(predictions.get(video) or []) for video in videos}
    if policy == "official":
        stories = {v: [(min(s, e), max(s, e), text) for s, e, text in story] for v, story in stories.items()}
    groups = [
        matched_pairs(stories[video], [references[video]], t, policy, "eps_sorted")
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
        row = {"CIDER": mean(row["CIDEr"] for row in rows), "METEOR": mean(row["METEOR"] for row in rows)}
        for t, (precision, recall) in zip(thresholds, found, strict=True):
            row |= {f"Precision@{t:g}": precision, f"Recall@{t:g}": recall}
        row["Precision_Mean"], row["Recall_Mean"] = (mean(column) for column in zip(*found, strict=True))
        row["F1_Score"] = harmonic(row["Precision_Mean"], row["Recall_Mean"])
        row["n_preds"] = len(windows)
        results[video] = row
    soda = soda_by_video(stories, [references], "c", policy=policy)
    for video in videos:
        results[video]["SODA_c"] = soda[video][2]
    return results
