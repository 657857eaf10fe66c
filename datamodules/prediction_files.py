"""Prediction files of this project: one Prediction a line, as JSON."""

import json
from collections.abc import Iterator
from pathlib import Path

from datamodules.prediction import Prediction


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
                prediction = Prediction.from_json(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"{path}, line {number}: not JSON ({error.msg} at column {error.colno})") from None
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
                raise ValueError(f"{path}, line {number}: no prediction of this project ({error})") from None
            if prediction.query_id in seen:
                where = seen[prediction.query_id]
                raise ValueError(f"{path}, line {number}: query {prediction.query_id!r} has an answer in line {where}")
            seen[prediction.query_id] = number
            yield prediction
