"""Predictions and annotations to numbers, the same during training, after it and from files.

What is scored for each task stands in ``metrics/benchmarks/queries.py``.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict

from torch import Tensor

from datamodules.prediction import Prediction
from datamodules.query_files import query_to_dict
from datamodules.schema import Query
from metrics.benchmarks.queries import score_queries
from metrics.records import RecordMetric

Answered = Iterable[tuple[Query, Prediction | None]]
"""Queries with their predictions. An answer that could not be read counts as unparsed, a query without a prediction
(None) as one without spans; both stay in the denominator."""


class QueryScores(RecordMetric):
    """The numbers of all tasks over a data set; each query counts once."""

    def update(
        self, query_ids: Sequence[str], queries: Sequence[Mapping], predictions: Sequence[Mapping | None]
    ) -> None:
        """Keep Q answers.

        Args:
            query_ids: Q ids.
            queries: Q records of queries.jsonl.
            predictions: Q records of predictions.jsonl; None: no answer.
        """
        self.add(query_ids, queries, predictions)

    def compute(self) -> dict[str, Tensor]:
        """``grounding/R1@0.5`` and so on of the tasks that had a query, with their counts."""
        records = self.records().values()
        if not records:
            return {}
        result = score_queries([(query, prediction) for query, prediction in records])
        return self.tensors({**result.metrics(), **result.counts})


def new_metrics(**settings) -> QueryScores:
    """The metric, with settings of torchmetrics."""
    return QueryScores(**settings)


def all_scores(answered: Answered) -> dict[str, float]:
    """The metrics of answers that this process has all of; nothing is exchanged with others."""
    metrics = new_metrics(sync_on_compute=False)  # NCCL has no way between CPUs
    update_metrics(metrics, answered)
    return compute_metrics(metrics)


def update_metrics(metrics: QueryScores, answered: Answered) -> None:
    """Add answers."""
    rows = [(query.id, query_to_dict(query), asdict(answer) if answer else None) for query, answer in answered]
    columns = list(zip(*rows, strict=True)) or [(), (), ()]
    metrics.update(*columns)  # also without a row: torchmetrics warns of metrics that nobody updated


def compute_metrics(metrics: QueryScores, prefix: str = "") -> dict[str, float]:
    """``grounding/R1@0.5`` and so on, of the tasks that had a query; call it on every rank. Resets the metric."""
    scores = {f"{prefix}{name}": float(value) for name, value in metrics.compute().items()}
    metrics.reset()
    return scores
