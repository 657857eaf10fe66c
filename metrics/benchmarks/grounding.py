"""Single-window grounding: Charades-STA, ActivityNet Captions, TimeLens-Bench, TACoS, Ego4D NLQ and harness logs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from metrics.benchmarks.answers import Parsed, parse_report, read_moments
from metrics.benchmarks.formats.answers import Answer, answers
from metrics.benchmarks.formats.files import FileError, read
from metrics.benchmarks.formats.harness import evaluator_of, is_log
from metrics.benchmarks.formats.moments import Moment, moments, targets
from metrics.benchmarks.matching import Matched, match
from metrics.benchmarks.official_windows import PARSERS, timelens_windows
from metrics.benchmarks.registry import benchmark
from metrics.benchmarks.result import Job, Result
from metrics.benchmarks.retrieval_protocols import protocol
from metrics.grounding import grounding_rows
from metrics.means import Row
from metrics.moment_retrieval import Protocol, retrieval_rows
from metrics.spans import is_number
from metrics.windows import check_windows

LENGTHS_S = {
    "0-1min": (0, 60),
    "1-5min": (60, 300),
    "5-20min": (300, 1200),
    "20-60min": (1200, 3600),
    "1h+": (3600, 1e9),
}
"""Buckets of video length, for hour-long videos: more than, at most."""
FULL = Protocol({"full": None}, recall_from=0.5, ranks=(), brief_recalls=())


@dataclass(frozen=True)
class Official:
    """How one evaluator of single-window grounding reads, counts and compares."""

    arithmetic: str = "timelens"
    """A name in ``metrics.grounding.EVALUATORS``."""
    parser: Callable[[str], Parsed] = timelens_windows
    collapse: bool = False
    """Annotations with the same video, sentence and window count once, and the last answer wins."""
    answered_only: bool = False
    """Queries without an answer are not in the mean."""
    empty_cells: bool = False
    """An empty cell of a table (also "None", "N/A", ..) is not in the mean IoU, but a miss of R@1."""
    thresholds: Sequence[float] = (0.3, 0.5, 0.7)
    ranks: Sequence[int] = (1,)
    names: Mapping[str, str] = field(default_factory=dict)
    """Our name of a metric -> that of the evaluator."""
    percent: bool = True
    failures: str = ""
    """Name of the share of answers that could not be read, where it is reported."""


HARNESS = {"R1@0.3": "IOU@3", "R1@0.5": "IOU@5", "R1@0.7": "IOU@7", "mIoU": "mIOU"}
EXTREME = {"mIoU": "ewb_mIoU", **{f"R1@{t}": f"ewb_R@{t}" for t in ("0.3", "0.5", "0.7")}}
TABLES = {"mIoU": "miou", "R1@0.3": "r1_03", "R1@0.5": "r1_05", "R1@0.7": "r1_07"}
OFFICIALS: dict[str, Official] = {
    "timelens": Official(collapse=True),
    "timechat": Official("timechat"),
    "etchat": Official("etchat"),
    "ego4d": Official("ego4d", answered_only=True, thresholds=(0.3, 0.5), ranks=(1, 5)),
    "timelens2": Official(empty_cells=True, names=TABLES, percent=False),
    "lmms_eval_charades": Official("lmms_eval", PARSERS["lmms_eval_charades"], collapse=True, names=HARNESS),
    "lmms_eval_timelens": Official("lmms_eval", collapse=True, names=HARNESS),
    "lmms_eval_extremewhenbench": Official(
        "lmms_eval",
        PARSERS["lmms_eval_extremewhenbench"],
        names=EXTREME,
        percent=False,
        failures="ewb_parse_fail",
    ),
}
RANKED = ("lighthouse", "univtg", "vidchapters")
"""Evaluators of ranked windows."""
EMPTY_CELLS = frozenset(
    ["", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA",
     "NULL", "NaN", "None", "n/a", "nan", "null"]
)  # fmt: skip
"""What pandas reads as no value."""


def grounding(job: Job) -> Result:
    """R@1 and mIoU in percent; under ``sound`` also R@5 and mAP where answers are ranked, and R@1 by video length."""
    evaluator = chosen(job)
    rules = OFFICIALS.get(evaluator or "")
    found = answers(job.predicted)
    if job.annotated:
        annotated = [moment for path in job.annotated for moment in moments(path, job.collector)]
    else:
        annotated = carried(found, job)
    matched = match(found, annotated, job.predicted, last_wins=bool(rules) and rules.collapse)
    if rules and rules.collapse:
        annotated = list({(m.video, m.text, m.windows): m for m in annotated}.values())
    wanted = [moment for moment in annotated if moment.windows]
    if rules and rules.answered_only:
        wanted = [moment for moment in wanted if moment.id in matched.answers]
    if not wanted:
        raise FileError(f"{job.predicted}: no annotated moment with an answer has a window")
    windows, counts = windows_of(matched, wanted, rules, job.official)
    missing = sum(moment.id not in matched.answers for moment in wanted)
    counts = {"n": len(wanted), "missing": missing, **counts, **matched.report()}
    if len(wanted) < len(annotated) and not (rules and rules.answered_only):
        counts["without_moment"] = len(annotated) - len(wanted)
    return Result(
        dict(zip([moment.id for moment in wanted], rows_of(windows, wanted, matched, job, evaluator), strict=True)),
        counts,
        answered={moment.id for moment in wanted if moment.id in matched.answers},
        evaluator=evaluator,
        summary=partial(renamed, rules=rules) if rules else dict,
    )


def rows_of(
    windows: Sequence[list | None], wanted: Sequence[Moment], matched: Matched, job: Job, evaluator: str | None
) -> list[Row]:
    """The values of each moment's answer."""
    if evaluator is None:
        return sound_rows(windows, wanted)
    listed = [moment.windows for moment in wanted]
    if ranking := protocol(evaluator, job.benchmark):
        return retrieval_rows(windows, listed, "official", ranking)
    rules = OFFICIALS[evaluator]
    rows = [dict(row) for row in grounding_rows(windows, listed, rules.thresholds, rules.ranks, rules.arithmetic)]
    for row, moment, found in zip(rows, wanted, windows, strict=True):
        said = matched.answers[moment.id].said if moment.id in matched.answers else None
        if rules.failures:
            row[rules.failures] = 100.0 * (found is None)
        if rules.empty_cells and (said is None or said in EMPTY_CELLS):
            del row["mIoU"]
    return rows


def chosen(job: Job) -> str | None:
    """The evaluator that ``official`` follows: the one asked for, that of a harness' log, or the benchmark's first.

    Raises:
        FileError: it scores no single windows.
    """
    if not job.official:
        return None
    content = read(job.predicted)
    name = job.evaluator or (evaluator_of(content) if is_log(content) else None)
    name = name or next(iter(benchmark(job.benchmark).evaluators))
    if name not in (*OFFICIALS, *RANKED):
        known = ", ".join((*OFFICIALS, *RANKED))
        raise FileError(f"{job.predicted}: the evaluator {name!r} scores no single windows; known: {known}")
    return name


def carried(found: Sequence[Answer], job: Job) -> list[Moment]:
    """The annotations that a prediction file carries itself.

    Raises:
        FileError: it carries none.
    """
    if any(answer.target is None for answer in found):
        raise FileError(f"{job.predicted}: its rows carry no target windows; give --annotations")
    made = []
    for i, answer in enumerate(found, 1):
        spans = targets(answer.target, answer.where)
        name = answer.id or str(i)
        length = answer.duration_s if answer.duration_s else float("nan")
        made.append(Moment(name, answer.video or name, answer.text or "", spans, length, named=answer.id is not None))
        answer.id = name
    return list({moment.id: moment for moment in made}.values())


def windows_of(
    matched: Matched, wanted: Sequence[Moment], rules: Official | None, official: bool
) -> tuple[list[list | None], dict]:
    """The windows of each moment's answer, best first ([]: no answer, None: nothing could be read), and counts."""
    found: dict[str, list | None] = {}
    parsed: list[Parsed] = []
    for moment in wanted:
        answer = matched.answers.get(moment.id)
        if answer is None:
            continue
        windows = answer.windows
        if answer.said is not None:
            length = moment.duration_s if is_number(moment.duration_s) else answer.duration_s
            parser = rules.parser if rules else timelens_windows
            reading = parser(answer.said) if official else read_moments(answer.said, length)
            parsed.append(reading)
            windows = [list(window) for window in reading.windows] or None
        elif answer.own and answer.rule != "":
            parsed.append(
                Parsed(tuple(map(tuple, windows or [])), rule=answer.rule if isinstance(answer.rule, str) else None)
            )
        found[moment.id] = windows
    counts = check_windows(found, "official" if official else "sound")
    texts = sum(answer.from_text for answer in matched.answers.values())
    if texts:
        counts["windows_as_text"] = texts
    if parsed:
        counts["parsing"] = parse_report(parsed)
    return [found.get(moment.id, []) for moment in wanted], counts


def sound_rows(windows: Sequence[list | None], wanted: Sequence[Moment]) -> list[Row]:
    """R@1 and IoU of each moment; R@5 and mAP where some answer has several windows; by length of the video."""
    listed = [moment.windows for moment in wanted]
    ranked = any(len(found or []) > 1 for found in windows)
    rows = [dict(row) for row in grounding_rows(windows, listed, ranks=(1, 5) if ranked else (1,))]
    if ranked:
        for row, more in zip(rows, retrieval_rows(windows, listed, protocol=FULL), strict=True):
            row |= {
                "mAP": more["MR-full-mAP"],
                "mAP@0.5": more["MR-full-mAP@0.5"],
                "mAP@0.75": more["MR-full-mAP@0.75"],
            }
    buckets = [bucket(moment.duration_s) for moment in wanted]
    if len(set(buckets) - {None}) > 1 and any(moment.duration_s > 1200 for moment in wanted):
        for row, name in zip(rows, buckets, strict=True):
            if name:
                row |= {f"mIoU {name}": row["mIoU"], f"R1@0.5 {name}": row["R1@0.5"]}
    return rows


def bucket(duration_s: float) -> str | None:
    """The length bucket of a video; None where its length is unknown."""
    return next((name for name, (low, high) in LENGTHS_S.items() if low < duration_s <= high), None)


def renamed(means: Mapping[str, float], rules: Official) -> dict[str, float]:
    """Means under the names, and in the unit, of an evaluator."""
    scale = 1.0 if rules.percent else 0.01
    return {rules.names.get(name, name): scale * value for name, value in means.items()}
