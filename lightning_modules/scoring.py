"""Predictions and annotations to numbers, the same during training, after it and from files."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from inspect import signature

import numpy as np
from torch import nn

from datamodules.schema import Prediction, Query
from metrics.dense_captioning import EventLocalization
from metrics.dialogue import DialogueOverlap
from metrics.grounded_qa import GroundedQA, QuestionAccuracy
from metrics.grounding import TemporalGrounding
from metrics.highlights import HighlightDetection
from metrics.moment_retrieval import MomentRetrieval, Protocol
from metrics.records import RecordMetric
from metrics.video_highlights import VideoHighlights

FULL = Protocol({"full": None}, ranks=())
"""mAP over all moments, whatever their length; R@k is already among the numbers of grounding."""


@dataclass(frozen=True)
class Task:
    """Which queries a metric is about, and what it compares."""

    metric: Callable[..., RecordMetric]
    asked: Callable[[Query], bool]
    compared: Callable[[Query, Prediction | None], tuple]
    """The arguments of the metric's ``update`` behind the id, for one query."""


def new_metrics(**settings) -> nn.ModuleDict:
    """The metrics of each task, with settings of torchmetrics."""
    return nn.ModuleDict({name: task.metric(**settings) for name, task in TASKS.items()})


def update_metrics(metrics: nn.ModuleDict, answered: Iterable[tuple[Query, Prediction | None]]) -> None:
    """Add answers to the metrics of their tasks.

    Args:
        metrics: from ``new_metrics``.
        answered: queries with their predictions. An answer that could not be read counts as unparsed, a query without
            a prediction (None) as one without spans; both stay in the denominator.
    """
    answered = list(answered)
    for name, task in TASKS.items():
        rows = [(query.id, *task.compared(query, answer)) for query, answer in answered if task.asked(query)]
        columns = list(zip(*rows, strict=True)) or [()] * len(signature(metrics[name].update).parameters)
        metrics[name].update(*columns)  # also without a row: torchmetrics warns of metrics that nobody updated


def compute_metrics(metrics: nn.ModuleDict, prefix: str = "") -> dict[str, float]:
    """``grounding/R1@0.5`` and so on, of the tasks that had a query; call it on every rank. Resets the metrics."""
    scores = {}
    for task, metric in metrics.items():
        values = metric.compute()
        if values["n"] > 0:
            scores |= {f"{prefix}{task}/{name}": float(value) for name, value in values.items()}
        metric.reset()
    return scores


def _windows(query: Query, prediction: Prediction | None, width: int = 2) -> tuple[list | None, list]:
    """The first ``width`` numbers of each span, None where the answer could not be read; and the targets."""
    targets = [event.span for event in query.events]
    if prediction is None:
        return [], targets
    return None if prediction.rule is None else [span[:width] for span in prediction.spans], targets


def _evidence(query: Query, prediction: Prediction | None) -> tuple[tuple | None, list, tuple | None]:
    windows, targets = _windows(query, prediction)
    answer = None if query.answer is None else _choice(query, prediction)[0]
    return windows[0] if windows else None, targets, answer


def _choice(query: Query, prediction: Prediction | None) -> tuple[tuple[int, int | None]]:
    return ((query.answer, prediction.option if prediction else None),)


def _labelled(query: Query, prediction: Prediction | None) -> tuple[tuple | None, np.ndarray, str]:
    return *_saliency(query, prediction), "all"


def _dialogue(query: Query, prediction: Prediction | None) -> tuple[list[str], list[str]]:
    return said(prediction), [turn.answer for turn in query.turns]


def said(prediction: Prediction | None) -> list[str]:
    """The answers to the questions of a dialogue, in order."""
    return [] if prediction is None else list(prediction.answers or [prediction.answer])


def _saliency(query: Query, prediction: Prediction | None) -> tuple[tuple | None, np.ndarray]:
    return (prediction.saliency or None) if prediction else None, np.array(query.saliency)


def _is_dialogue(query: Query) -> bool:
    return query.task == "dialogue" and all(turn.answer is not None for turn in query.turns)


def _is_moment(query: Query) -> bool:
    return query.task == "grounding" and bool(query.events)


TASKS = {
    "grounding": Task(TemporalGrounding, _is_moment, _windows),
    "moments": Task(partial(MomentRetrieval, protocol=FULL), _is_moment, partial(_windows, width=3)),
    "highlights": Task(HighlightDetection, lambda query: query.task == "grounding" and bool(query.saliency), _saliency),
    **{
        name: Task(
            partial(VideoHighlights, name), lambda q, name=name: (q.task, q.source) == ("highlights", name), _labelled
        )
        for name in ("tvsum", "youtube_highlights")
    },
    "dense_captioning": Task(EventLocalization, lambda query: query.task == "dense_captioning", _windows),
    "dialogue": Task(DialogueOverlap, _is_dialogue, _dialogue),
    "qa": Task(QuestionAccuracy, lambda query: query.task == "qa" and query.answer is not None, _choice),
    "grounded_qa": Task(GroundedQA, lambda query: query.task == "grounded_qa", _evidence),
}
"""What is scored without other files. Texts, and each benchmark's own numbers, are left to ``evaluate.py score``."""
