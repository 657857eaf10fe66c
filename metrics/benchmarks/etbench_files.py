"""The E.T. Bench benchmark: its annotation records and the answers to them."""

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

from metrics.benchmarks.answers import Parsed, parse_report
from metrics.benchmarks.etbench import (
    TASK_ROWS,
    TASKS,
    caption_scale,
    grouped,
    overview,
    task_summary,
    windows_of,
)
from metrics.benchmarks.etbench_captions import events_of
from metrics.benchmarks.formats.answers import as_windows
from metrics.benchmarks.formats.events import own_events
from metrics.benchmarks.formats.files import FileError, by_id, describe, each, need
from metrics.benchmarks.formats.windows import duration, window, windows_at
from metrics.benchmarks.result import Job, Result
from metrics.means import Row, column_means
from metrics.spans import is_valid

WINDOW_TASKS = ("tvg", "epm", "tal", "evs", "tem", "gvq")
CAPTION_TASKS = ("dvc", "slc")
OPTION_TASKS = ("rar", "eca", "rvq", "gvq")


def etbench(job: Job) -> Result:
    """E.T. Bench: the mean of each task and of each domain, fractions; the table by source is in the protocol."""
    pairs = [
        pair
        for path in job.annotated
        for i, row in each(path, job.collector)
        for pair in job.collector.add(partial(sample, row, f"{path}, record {i}"))
    ]
    truth = by_id(pairs, job.annotated[0])
    given = (answer(row, f"{job.predicted}, record {i}", truth) for i, row in each(job.predicted))
    answers = by_id(given, job.predicted)
    used = [name for name in truth if answers.get(name) is not None]
    if not used:
        raise FileError(f"{job.predicted}: no annotated sample has an answer in it")
    none = {"a": ""}
    names = used if job.official else list(truth)
    scored = {name: {**truth[name], **(answers.get(name) or none)} for name in names}
    rows, totals, scales = sample_rows(scored, job.policy)
    table = by_task(column_means(rows.values()), scales)
    counts = {
        "n": len(scored),
        "missing": len(truth) - len(used),
        "unparsed": sum(total["Failed"] for total in totals.values()),
        "unknown": sum(name not in truth for name in answers),
        "parsing": parsing(list(scored.values()), job.policy),
        "per_task_source": {
            task: {source: {**totals[task, source], **row} for source, row in sources.items()}
            for task, sources in table.items()
        },
    }
    return Result(
        rows,
        counts,
        summary=partial(headlines, scales=scales),
        strata={name: f"{row['task']}/{row['source']}" for name, row in scored.items()},
        answered=set(used),
        evaluator="etbench" if job.official else None,
    )


def sample_rows(scored: Mapping[str, Mapping], policy: str) -> tuple[dict[str, Row], dict, dict]:
    """The values of each sample as ``task/source/name``; and (task, source) -> counts, and -> scale of captions."""
    rows: dict[str, Row] = {}
    totals, scales = {}, {}
    for task, sources in grouped(list(scored.values())).items():
        for source, samples in sources.items():
            found = TASK_ROWS[task](samples, policy)
            scales[task, source] = caption_scale(found, samples, policy)
            totals[task, source] = {"Total": len(samples), "Failed": found.failed}
            members = [name for name, row in scored.items() if (row["task"], row["source"]) == (task, source)]
            for name, row in zip(members, found.rows, strict=True):
                rows[name] = {f"{task}/{source}/{key}": value for key, value in row.items()}
    return rows, totals, scales


def headlines(means: Mapping[str, float], scales: Mapping[tuple[str, str], float]) -> dict[str, float]:
    """The task means and domain means from the means of each task and source."""
    table = by_task(means, scales)
    tasks, domains = overview(table)
    return {**tasks, **domains}


def by_task(means: Mapping[str, float], scales: Mapping[tuple[str, str], float]) -> dict[str, dict[str, dict]]:
    """Task -> source -> scores."""
    table: dict[str, dict[str, dict]] = {}
    for (task, source), scale in scales.items():
        prefix = f"{task}/{source}/"
        own = {name.removeprefix(prefix): value for name, value in means.items() if name.startswith(prefix)}
        table.setdefault(task, {})[source] = task_summary(task, own, scale)
    return table


def parsing(samples: Sequence[Mapping], policy: str) -> dict[str, dict]:
    """Which rules matched the answers that were read as windows, and as captions with windows."""
    readers = {"windows": (WINDOW_TASKS, windows_of), "captions": (CAPTION_TASKS, events_of)}
    reports = {}
    for name, (tasks, reader) in readers.items():
        parsed = [reader(row, policy) for row in samples if row["task"] in tasks]
        if parsed:
            reports[name] = parse_report(parsed)
    return reports


def answer(row: Mapping, where: str, truth: Mapping[str, Mapping]) -> tuple[str, dict | None]:
    """Sample id and what is scored of its answer; null is no answer."""
    text = need(row, ["a", "answer"], where)
    if text is not None and not isinstance(text, str):
        raise FileError(f"{where}: the answer must be text, got {describe(text)}")
    name = str(need(row, ["idx", "query_id"], where))
    if text is None:
        return name, None
    sample = truth.get(name)
    return name, {"a": text, **(own(row, sample, where) if "query_id" in row and sample else {})}


def own(row: Mapping, sample: Mapping, where: str) -> dict:
    """What is scored of one of our predictions beside or in place of its text, whose times are not seconds.

    Raises:
        FileError: the prediction's option is none of the sample's.
    """
    task, found = sample["task"], {}
    if task in OPTION_TASKS and (option := row.get("option")) is not None:
        if type(option) is not int or not 0 <= option < len(sample["o"]):
            raise FileError(
                f"{where}: 'option' must be the index of one of the {len(sample['o'])} options, got {option}"
            )
        found = {"option": option}
    if task in CAPTION_TASKS:
        events = [event for event in own_events(row, where) or [] if is_valid(event[:2])]
        windows, captions = tuple(event[:2] for event in events), tuple(event[2] for event in events)
    elif task in (*WINDOW_TASKS, "vhd"):
        spans = [tuple(span[:2]) for span in as_windows(need(row, ["spans"], where), where)]
        windows, captions = tuple(filter(is_valid, spans)), ()
    else:
        return found
    if task == "vhd":
        return {"a": f"{peak(windows[0], row, duration(sample, where)):.6f}" if windows else ""}
    return {**found, "parsed": Parsed(windows, captions, row.get("rule"))}


def peak(window: Sequence[float], row: Mapping, duration_s: float) -> float:
    """The second of highest saliency in a window; its middle, where there is no saliency."""
    scores = np.asarray(row.get("saliency") or (), dtype=float)
    times = (np.arange(len(scores)) + 0.5) * duration_s / max(len(scores), 1)
    inside = (window[0] <= times) & (times <= window[1])
    return float(times[inside][scores[inside].argmax()]) if inside.any() else sum(window) / 2


def sample(row: Mapping, where: str) -> tuple[str, Mapping]:
    """Sample id and record; what its task needs is there.

    Raises:
        FileError: an unknown task, or something is missing or of another kind.
    """
    task = need(row, ["task"], where, str)
    if task not in TASKS:
        raise FileError(f"{where}: unknown task {task!r}; known: {', '.join(TASKS)}")
    need(row, ["source"], where, str)
    if task in ("tvg", "epm", "gvq"):
        window(need(row, ["tgt"], where), where)
    elif task == "vhd":
        targets = need(row, ["tgt"], where, list)
        nested = bool(targets) and isinstance(targets[0], list) and bool(targets[0]) and isinstance(targets[0][0], list)
        for annotator in targets if nested else [targets]:
            windows_at({"tgt": annotator}, ["tgt"], where)
    elif task not in OPTION_TASKS and not windows_at(row, ["tgt"], where):
        raise FileError(f"{where}: no target window")
    if task in CAPTION_TASKS:
        need(row, ["video"], where, str)
        captions = need(row, ["g"], where, list)
        if len(captions) != len(row["tgt"]) or not all(isinstance(text, str) for text in captions):
            raise FileError(f"{where}: 'g' must hold one text for each of the {len(row['tgt'])} windows of 'tgt'")
    if task in OPTION_TASKS and not 0 <= need(row, ["p"], where, int) < len(need(row, ["o"], where, list)):
        raise FileError(f"{where}: 'p' must be the index of one of the {len(row['o'])} options, got {row['p']}")
    return str(need(row, ["idx"], where)), row
