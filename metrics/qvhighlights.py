"""The QVHighlights benchmark: submissions of Moment-DETR's form against the published annotations."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from metrics import annotations, predictions
from metrics.files import FileError, by_id, each, need
from metrics.highlights import clip_matrix, highlight_scores
from metrics.moment_retrieval import brief, count_invalid, retrieval_scores
from metrics.windows import check_windows

Result = tuple[dict[str, float], dict]


def qvhighlights(predicted: Path, annotated: Sequence[Path], policy: str) -> Result:
    """QVHighlights: moment retrieval, highlight detection, or both, in percent, by what the submission holds."""
    truth = by_id(
        ((str(need(row, ["qid"], f"{path}, record {i}")), row) for path in annotated for i, row in each(path)),
        ", ".join(map(str, annotated)),
    )
    answers = predictions.submission(predicted)
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
    first = next(iter(answers.values()))
    metrics: dict[str, float] = {}
    protocol = {"n": len(truth), "missing": len(missing), "unknown": len(unknown)}
    for key, task in (("pred_relevant_windows", retrieval), ("pred_saliency_scores", saliency)):
        if not (key in first if policy == "official" else any(key in row for row in answers.values())):
            continue
        values = {name: answers[name].get(key) for name in used}
        if policy == "official" and (lost := [name for name, value in values.items() if value is None]):
            raise FileError(f"{predicted}: query {lost[0]!r} has no {key!r}, where the official evaluator stops")
        scores, counts = task(values, truth, policy)
        metrics |= scores
        protocol |= counts
    return metrics, protocol


def retrieval(values: Mapping[str, Sequence | None], truth: Mapping[str, Mapping], policy: str) -> Result:
    """The moment retrieval half of QVHighlights."""
    counts = check_windows(values, policy)
    counts["invalid"] = count_invalid(list(values.values()))
    targets = {
        name: [
            annotations.window(item, f"query {name!r}") for item in need(row, ["relevant_windows"], f"query {name!r}")
        ]
        for name, row in truth.items()
    }
    results = retrieval_scores([values.get(name) for name in truth], [targets[name] for name in truth], policy)
    return brief(results), counts


def saliency(values: Mapping[str, Sequence | None], truth: Mapping[str, Mapping], policy: str) -> Result:
    """The highlight detection half of QVHighlights."""
    ratings = []
    for name, row in truth.items():
        where = f"query {name!r}"
        clips, scores = need(row, ["relevant_clip_ids"], where), need(row, ["saliency_scores"], where)
        ratings.append(clip_matrix(clips, scores, need(row, ["duration"], where)))
    lists = [predictions.saliency_list(values.get(name)) for name in truth]
    scores = highlight_scores(lists, ratings, policy)
    counts = {f"saliency_{name}": int(scores.pop(name)) for name in ("missing", "invalid", "short")}
    return {name: score for name, score in scores.items() if name != "n"}, counts
