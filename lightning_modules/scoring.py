"""Predictions and annotations to numbers, the same during training, after it and from files."""

from collections.abc import Iterable

from torch import nn

from datamodules.schema import Prediction, Query
from metrics.dense_captioning import EventLocalization
from metrics.grounding import TemporalGrounding


def new_metrics() -> nn.ModuleDict:
    """The metrics of each task."""
    return nn.ModuleDict({"grounding": TemporalGrounding(), "dense_captioning": EventLocalization()})


def update_metrics(metrics: nn.ModuleDict, answered: Iterable[tuple[Query, Prediction | None]]) -> None:
    """Add answers to the metrics of their tasks.

    Args:
        metrics: from ``new_metrics``.
        answered: queries with their predictions. An answer that could not be read counts as unparsed, a query without
            a prediction (None) as one without spans; both stay in the denominator.
    """
    answered = list(answered)
    for task, metric in metrics.items():
        rows = [(query, prediction) for query, prediction in answered if query.task == task]
        metric.update([query.id for query, _ in rows], [_spans(p) for _, p in rows], [_targets(q) for q, _ in rows])


def compute_metrics(metrics: nn.ModuleDict, prefix: str = "") -> dict[str, float]:
    """``grounding/R1@0.5`` and so on, of the tasks that had a query; call it on every rank. Resets the metrics."""
    scores = {}
    for task, metric in metrics.items():
        values = metric.compute()
        if values["n"] > 0:
            scores |= {f"{prefix}{task}/{name}": float(value) for name, value in values.items()}
        metric.reset()
    return scores


def _spans(prediction: Prediction | None) -> list | None:
    if prediction is None:
        return []
    return None if prediction.rule is None else [span[:2] for span in prediction.spans]


def _targets(query: Query) -> list:
    return [event.span for event in query.events]
