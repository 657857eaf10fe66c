"""Submissions of Moment-DETR's form: ranked windows and saliency of each query."""

from collections.abc import Mapping
from pathlib import Path

from metrics.benchmarks.answers import Parsed, read_moments
from metrics.benchmarks.formats.answers import as_windows
from metrics.benchmarks.formats.files import FileError, describe, each, need
from metrics.spans import is_number


def submission(path: Path | str) -> tuple[list[tuple[str, Mapping]], list[Parsed]]:
    """Query id -> record with ``pred_relevant_windows``, ``pred_saliency_scores`` or both; and what was read from text.

    Rows of Moment-DETR's submissions (whose windows may be text, as language models write them), or this project's
    predictions.

    Raises:
        FileError: another layout.
    """
    pairs: list[tuple[str, Mapping]] = []
    parsed: list[Parsed] = []
    for number, row in each(path):
        where = f"{path}, record {number}"
        if "query_id" in row:
            pairs.append((str(row["query_id"]), own_record(row, where)))
            continue
        if not {"pred_relevant_windows", "pred_saliency_scores"} & set(row):
            need(row, ["qid", "vid"], where)
            raise FileError(f"{where}: neither 'pred_relevant_windows' nor 'pred_saliency_scores'")
        windows, scores = row.get("pred_relevant_windows"), row.get("pred_saliency_scores")
        if isinstance(windows, str):
            parsed.append(read_moments(windows, row.get("duration")))
            row = {**row, "pred_relevant_windows": [list(window) for window in parsed[-1].windows] or None}
        elif windows is not None:
            as_windows(windows, where)
        if scores is not None and not isinstance(scores, list):
            raise FileError(f"{where}: pred_saliency_scores must be a list, got {describe(scores)}")
        pairs.append((str(need(row, ["qid", "vid"], where)), row))
    return pairs, parsed


def own_record(row: Mapping, where: str) -> dict:
    """One of this project's predictions as a submission."""
    spans = as_windows(need(row, ["spans"], where), where)
    record: dict = {"pred_relevant_windows": None if not spans and row.get("rule", "") is None else spans}
    if row.get("saliency"):
        record["pred_saliency_scores"] = need(row, ["saliency"], where, list)
    return record


def saliency_list(scores: object) -> list | None:
    """Scores as floats; a value that is no number becomes NaN, so that it is counted as invalid."""
    if scores is None:
        return None
    return [float(score) if is_number(score) else float("nan") for score in scores]
