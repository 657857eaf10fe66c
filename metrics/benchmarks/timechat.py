"""Dense captioning in the style of Vid2Seq and TimeChat: everything per video, then the mean over videos."""

import re
from collections.abc import Mapping, Sequence

from torch import Tensor

from metrics.benchmarks.event_captions import THRESHOLDS, group_scores, matched_pairs
from metrics.captions import meteor, tokenizer
from metrics.dense_captioning import video_localization
from metrics.ngrams import cider
from metrics.records import AnswerMetric, check_policy, harmonic, mean
from metrics.soda import Story, soda_by_video

NO_LETTER = re.compile(r"[^a-zA-Z\s]")


def timechat_scores(
    predictions: Mapping[str, Story | None], references: Mapping[str, Story], policy: str = "sound"
) -> dict[str, float]:
    """The means over videos of ``timechat_video_scores``, and ``paragraph_scores``.

    Args:
        predictions: video -> events.
        references: video -> events.
        policy: ``sound`` says the scope of CIDEr's idf in its name: ``CIDER(video idf)``, ``Para_CIDER(corpus idf)``.
    """
    check_policy(policy)
    table = timechat_video_scores(predictions, references, policy)
    scores = {key: mean(row[key] for row in table.values()) for key in next(iter(table.values()))}
    scores |= paragraph_scores(predictions, references, policy)
    if policy == "sound":
        scores["CIDER(video idf)"] = scores.pop("CIDER")
        scores["Para_CIDER(corpus idf)"] = scores.pop("Para_CIDER")
    return scores


def paragraph_scores(
    predictions: Mapping[str, Story | None], references: Mapping[str, Story], policy: str = "sound"
) -> dict[str, float]:
    """All captions of a video as one text, letters only, against all of its reference captions.

    Args:
        predictions: video -> events.
        references: video -> events.
        policy: ``sound``: a missing video has an empty text; ``official``: it is left out of the predicted texts only,
            so that the n-th of them meets the n-th reference, whatever its video.

    Returns:
        ``Para_CIDER`` with the references of all videos as documents, and ``Para_METEOR`` of the summed statistics.
    """
    official = policy == "official"
    listed = [predictions.get(video) or [] for video in references if not official or video in predictions]
    texts = [[paragraph(story) for story in stories] for stories in (listed, references.values())]
    tokens = tokenizer()([*texts[0], *texts[1]])
    pairs = [(tokens[a], tokens[b]) for a, b in zip(*texts, strict=not official)]
    scores = cider([a for a, _ in pairs], [[b] for _, b in pairs])
    return {"Para_CIDER": mean(scores), "Para_METEOR": meteor().score([pairs])[0][-1]}


def paragraph(story: Story) -> str:
    """The captions of a story as one text."""
    return NO_LETTER.sub("", " ".join(event[2] for event in story))


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


class TimeChatCaptions(AnswerMetric):
    """``timechat_scores`` over a data set, as fractions; each video counts once. Needs Java."""

    def compute(self) -> dict[str, Tensor]:
        """``METEOR``, ``F1_Score``, ``SODA_c``, ``Para_METEOR`` and so on, and the count ``n``."""
        stories, references = self.by_query()
        if not stories:
            return self.tensors({"n": 0})
        return self.tensors(timechat_scores(stories, references, self.policy) | {"n": len(stories)})
