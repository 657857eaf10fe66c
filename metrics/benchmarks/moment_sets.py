"""Queries with several moments, or none: OMTG-Bench, VUE-TR, MomentSeeker."""

import math
from collections.abc import Mapping, Sequence
from functools import partial

from metrics.benchmarks.answers import Parsed, parse_report, read_moments
from metrics.benchmarks.formats.answers import Answer, answers
from metrics.benchmarks.formats.files import need, read, rows
from metrics.benchmarks.formats.moments import Moment, moments
from metrics.benchmarks.grounding import carried
from metrics.benchmarks.matching import match
from metrics.benchmarks.official_windows import omtg_windows, vue_windows
from metrics.benchmarks.result import Job, Result
from metrics.benchmarks.vue_tr import official_row, overlap_ratio
from metrics.means import Row
from metrics.moment_sets import retrieval_row, set_row
from metrics.no_moments import no_moment_row
from metrics.spans import Windows, is_number
from metrics.windows import check_windows

GROUPS = ("duration_category", "query_format", "query_modality", "task")
THRESHOLDS = (0.3, 0.5, 0.7)


def omtg(job: Job) -> Result:
    """OMTG-Bench: tIoU of unions, C-Acc (as many windows as moments), tF1 and EtF1; percent.

    ``official``: VLMEvalKit, which reads the annotations by the rules by which it reads answers.
    """
    found = answers(job.predicted)
    official = job.official
    if job.annotated:
        truth = [moment for path in job.annotated for moment in annotated_texts(path, job)]
    else:
        truth = read_targets(found, job) if official else carried(found, job)
    windows, counts, answered = read_all(found, truth, job, omtg_windows)
    rows = {}
    for moment in truth:
        predicted = windows.get(moment.id)
        if official:
            rows[moment.id] = omtg_row(predicted or [], moment.windows)
        else:
            rows[moment.id] = {
                **set_row(predicted, moment.windows, THRESHOLDS),
                **no_moment_row(predicted, moment.windows),
            }
    return Result(rows, counts, answered=answered, evaluator="vlmevalkit_omtg" if official else None)


def omtg_row(predicted: Windows, targets: Windows) -> Row:
    """``set_row`` as VLMEvalKit computes it.

    Merging the windows for tIoU changes the first one for the assignment, too: it reaches to the end of all that
    overlap it. Two empty sets have tIoU 0.
    """
    row = set_row(grown(predicted), grown(targets), THRESHOLDS)
    return {**row, "tIoU": 0.0} if not len(predicted) and not len(targets) else row


def grown(windows: Windows) -> list[tuple[float, float]]:
    """Windows by start, the first one with the end of the group that it overlaps."""
    found = sorted(((start, end) for start, end in windows), key=lambda window: window[0])
    for window in found[1:]:
        if window[0] > found[0][1]:
            break
        found[0] = (found[0][0], max(found[0][1], window[1]))
    return found


def annotated_texts(path, job: Job) -> list[Moment]:
    """The moments of an annotation file; one of a table has its windows in text.

    Raises:
        FileError: a bad record.
    """
    content = read(path, job.collector)
    first = content[0] if isinstance(content, list) and content else None
    if not (isinstance(first, Mapping) and isinstance(first.get("answer"), str)):
        return moments(path, job.collector)
    reader = omtg_windows if job.official else read_moments
    made = []
    for i, row in enumerate(rows(content, path, job.collector)):
        for text in job.collector.add(partial(need, row, ["answer"], f"{path}, record {i + 1}", str)):
            length = row.get("duration") if is_number(row.get("duration")) else math.nan
            name = str(row.get("index", i))
            windows = tuple(reader(text).windows)
            made.append(Moment(name, str(row.get("video", name)), str(row.get("question", "")), windows, length, True))
    return made


def read_targets(found: Sequence[Answer], job: Job) -> list[Moment]:
    """The annotations that a table carries, by the rules of VLMEvalKit."""
    made = []
    for i, answer in enumerate(found, 1):
        answer.id = answer.id or str(i)
        windows = tuple(omtg_windows(str(answer.target)).windows)
        made.append(Moment(answer.id, answer.video or answer.id, answer.text or "", windows, named=True))
    return made


def read_all(found: Sequence[Answer], truth: Sequence[Moment], job: Job, parser) -> tuple[dict, dict, set[str]]:
    """Windows by moment (None: nothing could be read; absent: no answer), counts, and the moments with an answer."""
    matched = match(found, truth, job.predicted)
    windows: dict[str, list | None] = {}
    parsed: list[Parsed] = []
    for moment in truth:
        answer = matched.answers.get(moment.id)
        if answer is None:
            continue
        windows[moment.id] = answer.windows and [window for window in answer.windows if window]  # [[]] is none
        if answer.said is not None:
            length = moment.duration_s if is_number(moment.duration_s) else answer.duration_s
            reading = parser(answer.said) if job.official else read_moments(answer.said, length)
            parsed.append(reading)
            empty = [] if job.official or reading.rule == "none" else None
            windows[moment.id] = [list(window) for window in reading.windows] or empty
    counts = {
        "n": len(truth),
        "missing": len(truth) - len(windows),
        **check_windows(windows, "sound"),
        **matched.report(),
    }
    if parsed:
        counts["parsing"] = parse_report(parsed)
    return windows, counts, set(windows)


def vue_tr(job: Job) -> Result:
    """VUE-TR: areas under the curves of IoU, precision and recall, percent; also by length, format and modality.

    ``sound``: the exact areas, which are the means. ``official``: the published evaluator (version 1 or 2, after the
    benchmark's name) with 101 thresholds and times rounded outwards; it scores the queries that have a prediction.
    """
    found = answers(job.predicted)
    if job.annotated:
        truth = [moment for path in job.annotated for moment in moments(path, job.collector)]
    else:
        truth = carried(found, job)
    windows, counts, answered = read_all(found, truth, job, vue_windows)
    version = 1 if job.benchmark == "vue_tr" else 2
    rows: dict[str, Row] = {}
    for moment in truth:
        predicted = windows.get(moment.id)
        if job.official:
            if moment.id not in windows:
                continue
            row = official_row(predicted or [], moment.windows, version)
        else:
            row = {**retrieval_row(predicted, moment.windows), **no_moment_row(predicted, moment.windows)}
        rows[moment.id] = {**row, **by_group(row, moment)}
    counts["n"] = len(rows)
    return Result(rows, counts, answered=answered, evaluator=f"vidi_v{version}" if job.official else None)


def by_group(row: Row, moment: Moment) -> Row:
    """The values of a query again under the names of its kinds."""
    names = [moment.groups[key] for key in GROUPS[:3] if moment.groups.get(key)]
    return {
        f"{name} {group}": value
        for group in names
        for name, value in row.items()
        if name in ("IoU", "Precision", "Recall")
    }


def momentseeker(job: Job) -> Result:
    """MomentSeeker (and Ego4D NLQ in TimeLens2's tables): IoU of sets of windows and R@1 of it, percent, also by task.

    ``official``: TimeLens2's evaluator without a judge, whose times are rounded outwards; fractions.
    """
    found = answers(job.predicted)
    if job.annotated:
        truth = [moment for path in job.annotated for moment in moments(path, job.collector)]
    else:
        truth = carried(found, job)
    windows, counts, answered = read_all(found, truth, job, vue_windows)
    rows: dict[str, Row] = {}
    for moment in truth:
        predicted = windows.get(moment.id)
        if job.official:
            rounded = [[math.floor(w[0]), math.ceil(w[1])] for w in predicted or []]
            value = 100 * overlap_ratio(rounded, moment.windows)
        else:
            value = retrieval_row(predicted, moment.windows)["IoU"]
        row = {"mIoU": value, **{f"R1@{t:g}": 100.0 * (value >= 100 * t) for t in THRESHOLDS}}
        task = moment.groups.get("task")
        rows[moment.id] = {**row, **({f"mIoU {task}": value} if task else {})}
    summary = partial(scaled, factor=0.01) if job.official else dict
    return Result(rows, counts, summary, answered=answered, evaluator="timelens2_vue" if job.official else None)


def scaled(means: Row, factor: float) -> dict[str, float]:
    """All values times a factor."""
    return {name: factor * value for name, value in means.items()}
