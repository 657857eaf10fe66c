"""The measures as torchmetrics: they take batches from any number of processes and give the number of the whole set.

Q queries; C clips of a video, A annotators.
"""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from metrics.dense_captioning import localization_scores, soda_d
from metrics.grounded_qa import grounded_qa_scores, question_accuracy
from metrics.grounding import grounding_scores
from metrics.highlights import highlight_scores
from metrics.moment_retrieval import QVHIGHLIGHTS, Protocol, brief, retrieval_scores
from metrics.records import AnswerMetric, RecordMetric
from metrics.soda import soda_scores
from metrics.spans import Windows, count_invalid
from metrics.video_highlights import VIDEO_PRECISION, video_scores


class TemporalGrounding(AnswerMetric):
    """``grounding_scores`` over a data set; each query counts once. ``official``: TimeLens."""

    def compute(self) -> dict[str, Tensor]:
        """``R1@0.3``, ``R1@0.5``, ``R1@0.7``, ``mIoU`` in percent and ``n``, ``unparsed``, ``invalid``."""
        evaluator = "timelens" if self.policy == "official" else None
        return self.tensors(grounding_scores(*self.columns(), evaluator=evaluator))


class MomentRetrieval(AnswerMetric):
    """``retrieval_scores`` over a data set, as the flat headline numbers; each query counts once."""

    def __init__(self, policy: str = "sound", protocol: Protocol = QVHIGHLIGHTS, **kwargs):
        super().__init__(policy, **kwargs)
        self.protocol = protocol

    def compute(self) -> dict[str, Tensor]:
        """``MR-full-mAP``, ``MR-full-R1@0.5`` and so on in percent, with ``n``, ``unparsed`` and ``invalid``."""
        predictions, targets = self.columns()
        scores = brief(retrieval_scores(predictions, targets, self.policy, self.protocol), self.protocol)
        counts = {
            "n": len(predictions),
            "unparsed": sum(windows is None for windows in predictions),
            "invalid": count_invalid(predictions),
        }
        return self.tensors({**scores, **counts})


class HighlightDetection(RecordMetric):
    """``highlight_scores`` over a data set; each query counts once."""

    def update(
        self, query_ids: Sequence[str], saliency: Sequence[Sequence[float] | None], ratings: Sequence[np.ndarray]
    ) -> None:
        """Keep the saliency of Q queries.

        Args:
            query_ids: Q ids; a query that was seen before is not counted again.
            saliency: Q lists of scores, one a clip; None: missing.
            ratings: Q matrices (C, A) of ratings 0 to 4.
        """
        self.add(query_ids, saliency, ratings)

    def compute(self) -> dict[str, Tensor]:
        """``HL-min-Fair-mAP``, ``HL-min-Fair-Hit1`` and so on in percent, and counts."""
        records = self.records().values()
        return self.tensors(highlight_scores([s for s, _ in records], [r for _, r in records], self.policy))


class VideoHighlights(RecordMetric):
    """mAP over the videos of TVSum or YouTube Highlights, a fraction, also per domain; each video counts once."""

    def __init__(self, benchmark: str = "tvsum", policy: str = "sound", **kwargs):
        super().__init__(policy, **kwargs)
        self.precision = VIDEO_PRECISION[benchmark]

    def update(
        self,
        query_ids: Sequence[str],
        saliency: Sequence[Sequence[float] | None],
        labels: Sequence[Sequence],
        domains: Sequence[str],
    ) -> None:
        """Keep the saliency of Q videos.

        Args:
            query_ids: Q video ids.
            saliency: Q lists of scores, one a clip; None: missing.
            labels: Q matrices (C, A).
            domains: Q names, such as the kind of video.
        """
        self.add(query_ids, saliency, labels, domains)

    def compute(self) -> dict[str, Tensor]:
        """``mAP``, ``mAP-<domain>`` and ``n``, the videos in the mean."""
        videos = [(scores or [], labels, domain) for scores, labels, domain in self.records().values()]
        return self.tensors(video_scores(videos, self.precision, self.policy))


class EventLocalization(AnswerMetric):
    """``localization_scores`` and ``soda_d`` over a data set, in percent. Needs neither Java nor captions."""

    def compute(self) -> dict[str, Tensor]:
        """``Precision``, ``Recall``, ``F1``, each also ``@0.3`` .. ``@0.9``, and ``SODA_d``, all in percent.

        Beside them the counts ``n`` (videos), ``unparsed`` (videos) and ``invalid`` (windows).
        """
        predictions, targets = self.columns()
        scores = localization_scores(predictions, [[windows] for windows in targets], policy=self.policy)
        scores["SODA_d"] = soda_d(predictions, targets, self.policy)
        counts = {
            "n": len(predictions),
            "unparsed": sum(windows is None for windows in predictions),
            "invalid": count_invalid(predictions),
        }
        return self.tensors({name: 100 * score for name, score in scores.items()} | counts)


class Soda(AnswerMetric):
    """``soda_scores`` over a data set; each video counts once. A target is a list of stories, one a reference file.

    Args:
        kind: a, b, c or d.
        mode: merged, best or average.
        policy: ``sound`` or ``official``.
        scorer: METEOR or CIDEr.
    """

    def __init__(self, kind: str = "c", mode: str = "average", policy: str = "sound", scorer: str = "METEOR", **kwargs):
        super().__init__(policy, **kwargs)
        self.options = {"kind": kind, "mode": mode, "policy": policy, "scorer": scorer}

    def compute(self) -> dict[str, Tensor]:
        """``precision``, ``recall`` and ``f1``, fractions, and the count ``n``."""
        stories, targets = self.by_query()
        if not stories:
            return self.tensors({"n": 0})
        count = max(map(len, targets.values()))
        files = [{video: target[i] for video, target in targets.items() if i < len(target)} for i in range(count)]
        return self.tensors(soda_scores(stories, files, **self.options) | {"n": len(stories)})


class GroundedQA(RecordMetric):
    """``grounded_qa_scores`` of NExT-GQA over a data set; each question counts once."""

    def update(
        self,
        query_ids: Sequence[str],
        predictions: Sequence[Sequence[float] | None],
        targets: Sequence[Windows],
        answers: Sequence[tuple[object, object] | None],
    ) -> None:
        """Keep the answers of Q questions.

        Args:
            query_ids: Q ids.
            predictions: Q windows (start, end); None: no window.
            targets: Q lists of (start, end).
            answers: Q pairs (right answer, predicted answer), or None.
        """
        self.add(query_ids, predictions, targets, answers)

    def compute(self) -> dict[str, Tensor]:
        """``Acc@GQA``, ``mIoP``, ``IoP@0.5`` and so on in percent, and counts."""
        records = self.records()
        answers = {key: tuple(row[2]) for key, row in records.items() if row[2] is not None}
        windows, targets = ({key: row[i] for key, row in records.items()} for i in (0, 1))
        if not records:
            return self.tensors({"n": 0})
        return self.tensors(grounded_qa_scores(windows, targets, answers, self.policy))


class QuestionAccuracy(RecordMetric):
    """Acc@QA over a data set; each question counts once, one without an answer is wrong."""

    def update(self, query_ids: Sequence[str], answers: Sequence[tuple[object, object]]) -> None:
        """Keep the answers of Q questions.

        Args:
            query_ids: Q ids.
            answers: Q pairs (right answer, predicted answer or None).
        """
        self.add(query_ids, answers)

    def compute(self) -> dict[str, Tensor]:
        """``Acc`` in percent; counts ``n`` and ``unparsed`` (nothing chosen)."""
        answers = {name: tuple(row[0]) for name, row in self.records().items()}
        if not answers:
            return self.tensors({"n": 0})
        scores = question_accuracy(answers, dict.fromkeys(answers, "all"), self.policy)
        unparsed = sum(chosen is None for _, chosen in answers.values())
        return self.tensors({"Acc": scores["Acc"], "n": len(answers), "unparsed": unparsed})
