"""What single benchmarks report, as torchmetrics. Captions need Java."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from metrics.benchmarks.etbench import Sample, etbench_scores
from metrics.benchmarks.event_captions import caption_scores
from metrics.benchmarks.timechat import timechat_scores
from metrics.benchmarks.videomind import videomind_scores
from metrics.records import AnswerMetric, RecordMetric
from metrics.soda import soda_scores


class EventCaptions(AnswerMetric):
    """``caption_scores`` and SODA_c over a data set, times 100; each video counts once. Needs Java."""

    def compute(self) -> dict[str, Tensor]:
        """``METEOR``, ``CIDEr(video idf)``, ``Rouge-L``, ``Bleu_4``, ``SODA_c`` and so on, and the count ``n``."""
        stories, references = self.by_query()
        if not stories:
            return self.tensors({"n": 0})
        scores = caption_scores(stories, [references], policy=self.policy)
        scores["SODA_c"] = soda_scores(stories, [references], "c", "average", self.policy)["f1"]
        return self.tensors({name: 100 * score for name, score in scores.items()} | {"n": len(stories)})


class TimeChatCaptions(AnswerMetric):
    """``timechat_scores`` over a data set, as fractions; each video counts once. Needs Java."""

    def compute(self) -> dict[str, Tensor]:
        """``METEOR``, ``F1_Score``, ``SODA_c``, ``Para_METEOR`` and so on, and the count ``n``."""
        stories, references = self.by_query()
        if not stories:
            return self.tensors({"n": 0})
        return self.tensors(timechat_scores(stories, references, self.policy) | {"n": len(stories)})


class ETBench(RecordMetric):
    """``etbench_scores`` over a data set, as the flat task and domain means; each sample counts once."""

    def update(self, query_ids: Sequence[str], samples: Sequence[Sample]) -> None:
        """Keep Q answered samples.

        Args:
            query_ids: Q ids.
            samples: Q records with ``a``, the answer.
        """
        self.add(query_ids, samples)

    def compute(self) -> dict[str, Tensor]:
        """The task means (``TVG``, ``DVC_F1``, ..) and the domain means (``F1(gnd)``, ..), fractions."""
        samples = [row[0] for row in self.records().values()]
        scores = etbench_scores(samples, self.policy) if samples else {"task_means": {}, "domains": {}}
        return self.tensors({**scores["task_means"], **scores["domains"], "n": len(samples)})


class VideoMind(RecordMetric):
    """``videomind_scores`` over a data set; each sample counts once.

    Args:
        policy: ``sound`` or ``official``.
        cgbench: the CG-Bench mode.
        confidence: of a window that counts beside the first one in CG-Bench mode.
    """

    def __init__(self, policy: str = "sound", cgbench: bool = False, confidence: float | None = None, **kwargs):
        super().__init__(policy, **kwargs)
        self.cgbench, self.confidence = cgbench, confidence

    def update(self, query_ids: Sequence[str], samples: Sequence[Mapping]) -> None:
        """Keep Q answered samples.

        Args:
            query_ids: Q ids.
            samples: Q records as in ``videomind_scores``.
        """
        self.add(query_ids, samples)

    def compute(self) -> dict[str, Tensor]:
        """``grounding_iou/R1@0.5``, ``grounding_iop/mean``, ``qa/Acc`` and so on in percent, and the count ``n``."""
        samples = [row[0] for row in self.records().values()]
        tables = videomind_scores(samples, self.policy, self.cgbench, self.confidence) if samples else {}
        scores = {f"{table}/{name}": value for table, row in tables.items() for name, value in row.items()}
        return self.tensors(scores | {"n": len(samples)})
