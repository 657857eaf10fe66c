"""Prediction files of this project: one Prediction a line, as JSON."""

import json
import math
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

from datamodules.prediction import Prediction, Strip

KEYS = {field.name for field in fields(Prediction)}


def read_predictions(path: Path) -> Iterator[Prediction]:
    """Read ``predictions.jsonl`` or ``answers.jsonl``; keys that a prediction does not have are left aside.

    Raises:
        ValueError: naming file and line of what is no prediction, and of a query that was answered before.
        OSError: there is no such file.
    """
    seen: dict[str, int] = {}
    with open(path, encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                prediction = _prediction(json.loads(line))
            except json.JSONDecodeError as error:
                raise ValueError(f"{path}, line {number}: not JSON ({error.msg} at column {error.colno})") from None
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
                raise ValueError(f"{path}, line {number}: no prediction of this project ({error})") from None
            if prediction.query_id in seen:
                where = seen[prediction.query_id]
                raise ValueError(f"{path}, line {number}: query {prediction.query_id!r} has an answer in line {where}")
            seen[prediction.query_id] = number
            yield prediction


def _prediction(record: dict) -> Prediction:
    known = {key: value for key, value in record.items() if key in KEYS}
    known["spans"] = tuple(_span(span) for span in record.get("spans", ()))
    for key in ("captions", "answers"):
        known[key] = tuple(map(str, record.get(key, ())))
    known["saliency"] = tuple(map(_number, record.get("saliency", ())))
    known["strips"] = tuple(Strip(s["label"], tuple(map(_number, s["scores"]))) for s in record.get("strips", ()))
    if known["captions"] and len(known["captions"]) != len(known["spans"]):
        raise ValueError(f"{len(known['captions'])} captions for {len(known['spans'])} spans")
    for key in ("query_id", "video", "task", "answer"):
        if not isinstance(record[key], str):
            raise ValueError(f"{key} must be text, got {record[key]!r}")
    return Prediction(**known)


def _span(values: list) -> tuple[float, float, float]:
    start, end, *score = values
    (score,) = score or [1.0]
    return _number(start), _number(end), _number(score)


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{value!r} is no finite number")
    return float(value)
