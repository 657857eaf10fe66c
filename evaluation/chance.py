"""Beside the scores of a model: what no look at a video is needed for, and where its answers lie."""

from collections.abc import Iterable, Mapping

import numpy as np

from datamodules.prediction import Prediction
from datamodules.schema import Query
from datamodules.shards import ShardReader
from metrics.chance import collapse, constant_window, random_window

MOMENTS = ("grounding", "grounded_qa")
"""Tasks whose answer is one window."""
Answered = Iterable[tuple[Query, Prediction | None]]


def lengths_s(answered: Answered, reader: ShardReader) -> dict[str, float]:
    """Query id -> seconds of its video, of the queries about moments; without those whose length nobody knows."""
    asked = [query for query, _ in answered if query.task in MOMENTS and query.events]
    known = [query for query in asked if query.duration_s is not None or query.video in reader]
    return {query.id: query.duration_s or reader.duration_s(query.video) for query in known}


def baselines(answered: Answered, lengths: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """Scores of the best constant window and of random windows, under the names that the model's scores have."""
    found: dict[str, dict[str, float]] = {"constant window": {}, "random window": {}}
    for task in MOMENTS:
        asked = [query for query, _ in answered if query.task == task and query.id in lengths]
        targets = [np.array([event.span for event in query.events]) / lengths[query.id] for query in asked]
        if targets:
            for name, of in (("constant window", constant_window), ("random window", random_window)):
                found[name] |= {f"{task}/{key}": value for key, value in of(targets, task == "grounded_qa").items()}
    return found


def spans(answered: Answered, lengths: Mapping[str, float]) -> dict[str, list[tuple[float, float]]]:
    """The true windows of all queries about moments, and the first one of each answer, as shares of the video."""
    found: dict[str, list[tuple[float, float]]] = {"true": [], "predicted": []}
    for query, answer in answered:
        if length_s := lengths.get(query.id):
            found["true"] += [(event.start_s / length_s, event.end_s / length_s) for event in query.events]
            found["predicted"] += [(a / length_s, b / length_s) for a, b, _ in (answer.spans[:1] if answer else ())]
    return found


def collapse_scores(found: Mapping[str, list[tuple[float, float]]]) -> dict[str, float]:
    """``collapse`` of ``metrics.chance``, of the answers and of the true windows; nothing without any."""
    if not found["true"]:
        return {}
    return {"collapse/predicted": collapse(found["predicted"]), "collapse/true": collapse(found["true"])}
