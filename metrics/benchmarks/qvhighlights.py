"""The QVHighlights benchmark: submissions of Moment-DETR's form against the published annotations."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from metrics.benchmarks.answers import parse_report
from metrics.benchmarks.formats.files import FileError, by_id, each, need
from metrics.benchmarks.formats.submissions import saliency_list, submission
from metrics.benchmarks.formats.windows import duration, windows_at
from metrics.benchmarks.result import Job, Result
from metrics.benchmarks.retrieval_protocols import protocol
from metrics.highlights import clip_matrix, highlight_rows, highlight_scores
from metrics.means import Row
from metrics.moment_retrieval import QVHIGHLIGHTS, brief, retrieval_rows, retrieval_scores
from metrics.windows import check_windows

Values = Mapping[str, Sequence | None]


def qvhighlights(job: Job) -> Result:
    """QVHighlights: moment retrieval, highlight detection, or both, in percent, by what the submission holds."""
    pairs = [
        pair
        for path in job.annotated
        for i, row in each(path, job.collector)
        for pair in job.collector.add(partial(annotated_query, row, f"{path}, record {i}"))
    ]
    truth = by_id(pairs, ", ".join(map(str, job.annotated)))
    listed, parsed = submission(job.predicted)
    answers = dict(listed) if job.official else by_id(listed, job.predicted)
    evaluator = (job.evaluator or "moment_detr") if job.official else None
    unknown, missing = sorted(answers.keys() - truth.keys()), sorted(truth.keys() - answers.keys())
    used = [name for name in truth if name in answers]
    if not used:
        raise FileError(
            f"{job.predicted}: no query id of the annotations is in it (first there: {next(iter(answers))!r})"
        )
    if evaluator == "timechat":
        truth = {name: truth[name] for name in used}
    elif job.official and (unknown or missing):
        name = (unknown or missing)[0]
        raise FileError(
            f"{job.predicted}: {len(missing)} queries are missing and {len(unknown)} unknown (first: {name!r}); the "
            "official evaluator needs exactly the annotated ones, the sound policy counts them, and --evaluator "
            "timechat scores those that both have"
        )
    counts: dict = {"n": len(truth), "missing": len(missing), "unknown": len(unknown)}
    if job.official:
        counts["repeated"] = len(listed) - len(answers)
    if parsed:
        counts["parsing"] = parse_report(parsed)
    result = Result({name: {} for name in truth}, counts, answered=set(used), evaluator=evaluator)
    first = next(row for name, row in listed if name in truth)
    for key, task in (("pred_relevant_windows", retrieval), ("pred_saliency_scores", saliency)):
        if not (key in first if job.official else any(key in row for row in answers.values())):
            continue
        values = {name: answers[name].get(key) for name in used}
        if job.official and (lost := [name for name, value in values.items() if value is None]):
            raise FileError(f"{job.predicted}: query {lost[0]!r} has no {key!r}, where the official evaluator stops")
        rows, found = task(values, truth, job)
        result.counts |= found
        result.rows = {name: {**result.rows[name], **row} for name, row in zip(truth, rows, strict=True)}
    if job.official and counts["repeated"] and "pred_relevant_windows" in first:
        result.whole = joined_precision(listed, truth, job)
    return result


def joined_precision(listed: Sequence[tuple[str, Mapping]], truth: Mapping[str, Mapping], job: Job) -> dict[str, float]:
    """The official mAP of a submission with repeated queries: their windows are joined.

    Each of the repeated answers gives its first ten. For R@k and for highlights the last answer counts.
    """
    joined: dict[str, list] = {}
    for name, row in listed:
        joined.setdefault(name, []).extend((row.get("pred_relevant_windows") or [])[: QVHIGHLIGHTS.max_windows])
    ranking = replace(QVHIGHLIGHTS, max_windows=max(map(len, joined.values())))
    targets = [windows_at(row, ["relevant_windows"], where_of(name)) for name, row in truth.items()]
    scores = brief(retrieval_scores([joined.get(name) for name in truth], targets, "official", ranking))
    return {name: score for name, score in scores.items() if "mAP" in name}


def annotated_query(row: Mapping, where: str) -> tuple[str, Mapping]:
    """Query id and record; its windows are checked."""
    windows_at({"relevant_windows": row.get("relevant_windows", [])}, ["relevant_windows"], where)
    return str(need(row, ["qid"], where)), row


def where_of(name: str) -> str:
    """A query of the annotations, for messages."""
    return f"annotations, query {name!r}"


def retrieval(values: Values, truth: Mapping[str, Mapping], job: Job) -> tuple[list[Row], dict]:
    """The moment retrieval half of QVHighlights; a query without target windows (false alarms) enters no mean."""
    counts = check_windows(values, job.policy)
    targets = {name: windows_at(row, ["relevant_windows"], where_of(name)) for name, row in truth.items()}
    asked = [name for name, windows in targets.items() if windows] if not job.official else list(targets)
    ranking = protocol(job.evaluator or "", job.benchmark) or QVHIGHLIGHTS
    rows = retrieval_rows([values.get(name) for name in asked], [targets[name] for name in asked], job.policy, ranking)
    found = dict(zip(asked, rows, strict=True))
    return [found.get(name, {}) for name in truth], counts


def saliency(values: Values, truth: Mapping[str, Mapping], job: Job) -> tuple[list[Row], dict]:
    """The highlight detection half of QVHighlights."""
    ratings = []
    for name, row in truth.items():
        where = where_of(name)
        clips, scores = (need(row, [key], where, list) for key in ("relevant_clip_ids", "saliency_scores"))
        try:
            ratings.append(clip_matrix(clips, scores, duration(row, where)))
        except ValueError as error:
            raise FileError(f"{where}: {error}") from None
    lists = [saliency_list(values.get(name)) for name in truth]
    rows = highlight_rows(lists, ratings, job.policy)
    scores = highlight_scores(lists, ratings, job.policy)
    return rows, {f"saliency_{name}": int(scores[name]) for name in ("missing", "invalid", "short")}
