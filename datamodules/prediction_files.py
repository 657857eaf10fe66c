"""Prediction files of this project: one Prediction a line, as JSON."""

from collections.abc import Iterator
from pathlib import Path

from datamodules.prediction import Prediction
from datamodules.strict_json import lines


def read_predictions(path: Path) -> Iterator[Prediction]:
    """Read ``predictions.jsonl`` or ``answers.jsonl``; keys that a prediction does not have are left aside.

    Raises:
        ValueError: naming file and line of what is no prediction, and of a query that was answered before.
        OSError: there is no such file.
    """
    seen: dict[str, int] = {}
    for number, line in lines(path):
        try:
            prediction = Prediction.from_json(line)
        except ValueError as error:
            what = error if str(error).startswith("not JSON") else f"no prediction of this project ({error})"
            raise ValueError(f"{path}, line {number}: {what}") from None
        if prediction.query_id in seen:
            where = seen[prediction.query_id]
            raise ValueError(f"{path}, line {number}: query {prediction.query_id!r} has an answer in line {where}")
        seen[prediction.query_id] = number
        yield prediction
