"""An evaluation that was stopped goes on: which answers are there, and were they asked for in the same way?"""

import json
from collections.abc import Collection, Mapping
from pathlib import Path

from callbacks.predictions import CONDITIONS, PART
from datamodules.prediction import Prediction
from datamodules.strict_json import read_object


def answers_so_far(output: Path, conditions: Mapping, wanted: Collection[str]) -> dict[str, Prediction]:
    """The answers that a run need not ask for again.

    The parts of a run that was stopped are kept. A finished run that lacks answers (to videos that could not be read)
    is completed; one that has them all, or was made under other conditions, is begun anew, and replaced at the end.

    Args:
        output: the run's folder.
        conditions: what answers depend on, in this run.
        wanted: ids of the queries.

    Returns:
        query id -> answer.

    Raises:
        ValueError: the folder holds parts that were made under other conditions, or a line that cannot be read.
    """
    stopped = [read_answers(part) for part in sorted(output.glob(PART.format("*")))]
    finished, other = output / "predictions.jsonl", difference(output / CONDITIONS, conditions)
    if any(stopped):
        if other:
            raise ValueError(
                f"{output} holds answers of a run that was stopped, and they were asked for otherwise ({other}). "
                "Go on with the same settings, or give another output folder"
            )
        return {name: answer for part in stopped for name, answer in part.items() if name in wanted}
    if finished.is_file() and not other:
        answers = read_answers(finished)
        if not set(wanted) <= answers.keys():
            return {name: answer for name, answer in answers.items() if name in wanted}
    return {}


def difference(path: Path, conditions: Mapping) -> str:
    """The first condition that differs from those of a file, with both values; "" where they are the same."""
    if not path.is_file():
        return f"{path.name} is missing"
    there, now = read_object(path), json.loads(json.dumps(conditions))
    for key in {**there, **now}:
        if there.get(key) != now.get(key):
            return f"{key}: {there.get(key)!r:.200} there, {now.get(key)!r:.200} now"
    return ""


def read_answers(path: Path) -> dict[str, Prediction]:
    """Answers by query id; a last line that a kill left half written does not count.

    Raises:
        ValueError: another line is no prediction.
    """
    answers = {}
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], 1):
        try:
            answer = Prediction.from_json(line.decode("utf-8"))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"{path}, line {number}: not a prediction ({error}); mend or remove it") from None
        answers[answer.query_id] = answer
    return answers
