"""Grounded question answering from files: NExT-GQA, ReXTime, VideoMind's outputs and CG-Bench."""

from functools import partial

from metrics.benchmarks.answers import parse_report
from metrics.benchmarks.formats.files import FileError, each, need
from metrics.benchmarks.formats.questions import question_answers, questions
from metrics.benchmarks.result import Job, Result
from metrics.benchmarks.videomind import option_letter, videomind_rows
from metrics.grounded_qa import grounded_qa_rows, same_answer
from metrics.grounding import grounding_rows
from metrics.means import Row
from metrics.windows import check_windows


def nextgqa(job: Job) -> Result:
    """NExT-GQA: Acc@GQA, IoP and IoU in percent. ``official`` leaves questions without a window out."""
    asked = {name: q for path in job.annotated for name, q in questions(path, job.collector).items()}
    found = question_answers(job.predictions, asked)
    used = {name: window for name, window in found.windows.items() if name in asked}
    if not used and (found.windows or not (found.options or {}).keys() & asked.keys()):
        raise FileError(f"{job.predicted}: none of the {len(asked)} annotated questions is in it")
    counts = check_windows({name: None if window is None else [window] for name, window in used.items()}, job.policy)
    targets = {name: question.windows for name, question in asked.items()}
    rows = {name: dict(row) for name, row in grounded_qa_rows(used, targets, found.options, job.policy).items()}
    right = found.options or {}
    if right and (not job.official or targets.keys() <= right.keys()):
        for name in targets:
            correct = name in right and same_answer(*right[name], job.policy)
            rows.setdefault(name, {})["Acc@QA"] = 100.0 * correct
    counts = {
        "n": sum("mIoU" in row for row in rows.values()),
        "missing": sum(name not in used for name in asked),
        **counts,
        "unknown": len(found.windows) - len(used),
        "answered": sum(name in asked for name in right),
    }
    if found.fractions:
        counts["fractions"] = found.fractions
    if found.parsed:
        counts["parsing"] = parse_report(found.parsed)
    answered = used.keys() | (right.keys() & asked.keys())
    return Result(rows, counts, answered=set(answered), evaluator="nextgqa" if job.official else None)


def rextime(job: Job) -> Result:
    """ReXTime: accuracy, mIoU and R@1 of the first window, right answers with IoU of 0.5 (``Acc@IoU0.5``); percent."""
    asked = {name: q for path in job.annotated for name, q in questions(path, job.collector).items()}
    found = question_answers(job.predictions, asked)
    used = [name for name in asked if name in found.windows]
    if not used:
        raise FileError(f"{job.predicted}: none of the {len(asked)} annotated questions is in it")
    if job.official and (len(used) < len(asked) or len(used) < len(found.windows)):
        raise FileError(f"{job.predicted}: the official evaluator needs exactly the annotated questions; use sound")
    given = {name: None if window is None else [window] for name, window in found.windows.items() if name in asked}
    counts = check_windows(given, job.policy)
    evaluator = "timelens" if job.official else None
    listed = grounding_rows([given.get(n, []) for n in asked], [q.windows for q in asked.values()], evaluator=evaluator)
    rows: dict[str, Row] = {}
    for name, row in zip(asked, listed, strict=True):
        rows[name] = {"mIoU": row["mIoU"], "R1@0.3": row["R1@0.3"], "R1@0.5": row["R1@0.5"]}
        if found.options is not None:
            right = name in found.options and same_answer(*found.options[name], job.policy)
            rows[name] = {"Acc": 100.0 * right, **rows[name], "Acc@IoU0.5": 100.0 * (right and row["R1@0.5"] == 100)}
    counts = {"n": len(rows), "missing": len(asked) - len(used), **counts, "unknown": len(found.windows) - len(used)}
    return Result(rows, counts, answered=set(used), evaluator="rextime" if job.official else None)


def videomind(job: Job, cgbench: bool = False) -> Result:
    """Outputs of VideoMind, which hold their annotations: ranked windows by IoU and IoP, answers by letter; percent."""
    samples = {}
    for path in job.predictions:
        for i, row in each(path):
            where = f"{path}, record {i}"
            if "response" not in row:
                need(row, ["pred"], where, list)
            if "pred" in row:
                need(row, ["span"], where, list), need(row, ["pred"], where, list)
            name = f"{row.get('vid', row.get('video', ''))}/{i}"
            samples[f"{path.name}/{name}" if len(job.predictions) > 1 else name] = row
    if job.official:
        samples = {name: row for name, row in samples.items() if row.get("pred") or "response" in row}
    listed = videomind_rows(list(samples.values()), job.policy, cgbench)
    rows = {
        name: {f"{table}/{key}": value for table, values in row.items() for key, value in values.items()}
        for name, row in zip(samples, listed, strict=True)
    }
    asked = [sample for sample in samples.values() if sample.get("response") is not None and sample.get("options")]
    letters = [option_letter(sample["response"], len(sample["options"]), job.policy) for sample in asked]
    counts = {
        "n": len(rows),
        "unparsed": letters.count(None),
        "grounder_failed": sum(not sample.get("grounder_success", True) for sample in samples.values()),
    }
    return Result(rows, counts, evaluator="videomind" if job.official else None)


cgbench = partial(videomind, cgbench=True)
