"""The QVHighlights benchmark: submissions of Moment-DETR's form against the published annotations."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from metrics.benchmarks import annotations, predictions
from metrics.benchmarks.files import FileError, by_id, each, need
from metrics.highlights import clip_matrix, highlight_scores
from metrics.moment_retrieval import brief, retrieval_scores
from metrics.windows import check_windows

Result = tuple[dict[str, float], dict]


def qvhighlights(predicted: Path, annotated: Sequence[Path], policy: str) -> Result:
    """QVHighlights: moment retrieval, highlight detection, or both, in percent, by what the submission holds."""
    truth = by_id(
        (annotated_query(row, f"{path}, record {i}") for path in annotated for i, row in each(path)),
        ", ".join(map(str, annotated)),
    )
    listed = predictions.submission(predicted)
    answers = dict(listed) if policy == "official" else by_id(listed, predicted)
    unknown, missing = sorted(answers.keys() - truth.keys()), sorted(truth.keys() - answers.keys())
    if policy == "official" and (unknown or missing):
        name = (unknown or missing)[0]
        raise FileError(
            f"{predicted}: {len(missing)} queries are missing and {len(unknown)} unknown (first: {name!r}); "
            "the official evaluator needs exactly the annotated ones, the sound policy counts them"
        )
    used = [name for name in truth if name in answers]
    if not used:
        raise FileError(f"{predicted}: no query id of the annotations is in it (first there: {next(iter(answers))!r})")
    first = listed[0][1]
    metrics: dict[str, float] = {}
    protocol = {"n": len(truth), "missing": len(missing), "unknown": len(unknown)}
    if policy == "official":
        protocol["repeated"] = len(listed) - len(answers)
    for key, task in (("pred_relevant_windows", retrieval), ("pred_saliency_scores", saliency)):
        if not (key in first if policy == "official" else any(key in row for row in answers.values())):
            continue
        values = {name: answers[name].get(key) for name in used}
        if policy == "official" and (lost := [name for name, value in values.items() if value is None]):
            raise FileError(f"{predicted}: query {lost[0]!r} has no {key!r}, where the official evaluator stops")
        scores, counts = task(values, truth, policy)
        metrics |= scores
        protocol |= counts
        if key == "pred_relevant_windows" and protocol.get("repeated"):
            metrics |= joined_precision(listed, truth)
    return metrics, protocol


def joined_precision(listed: Sequence[tuple[str, Mapping]], truth: Mapping[str, Mapping]) -> dict[str, float]:
    """The official mAP of a submission with repeated queries: their windows are joined.

    For R@k and for highlights the last one counts.
    """
    joined: dict[str, list] = {}
    for name, row in listed:
        joined.setdefault(name, []).extend(row.get("pred_relevant_windows") or [])
    scores, _ = retrieval(joined, truth, "official")
    return {name: score for name, score in scores.items() if "mAP" in name}


def annotated_query(row: Mapping, where: str) -> tuple[str, Mapping]:
    """Query id and record."""
    return str(need(row, ["qid"], where)), row


def where_of(name: str) -> str:
    """A query of the annotations, for messages."""
    return f"annotations, query {name!r}"


def retrieval(values: Mapping[str, Sequence | None], truth: Mapping[str, Mapping], policy: str) -> Result:
    """The moment retrieval half of QVHighlights."""
    counts = check_windows(values, policy)
    targets = [annotations.windows_at(row, ["relevant_windows"], where_of(name)) for name, row in truth.items()]
    results = retrieval_scores([values.get(name) for name in truth], targets, policy)
    return brief(results), counts


def saliency(values: Mapping[str, Sequence | None], truth: Mapping[str, Mapping], policy: str) -> Result:
    """The highlight detection half of QVHighlights."""
    ratings = []
    for name, row in truth.items():
        where = where_of(name)
        clips, scores = (need(row, [key], where, list) for key in ("relevant_clip_ids", "saliency_scores"))
        try:
            ratings.append(clip_matrix(clips, scores, annotations.duration(row, where)))
        except ValueError as error:
            raise FileError(f"{where}: {error}") from None
    lists = [predictions.saliency_list(values.get(name)) for name in truth]
    scores = highlight_scores(lists, ratings, policy)
    counts = {f"saliency_{name}": int(scores.pop(name)) for name in ("missing", "invalid", "short")}
    return {name: score for name, score in scores.items() if name != "n"}, counts
