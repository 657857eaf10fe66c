"""The E.T. Bench benchmark: its annotation records and the answers to them."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from metrics.annotations import window, windows_at
from metrics.answers import etbench_events, etbench_windows, parse_report
from metrics.etbench import TASKS, etbench_scores, read_answer
from metrics.files import FileError, by_id, describe, each, need

WINDOW_TASKS = ("tvg", "epm", "tal", "evs", "tem", "gvq")
CAPTION_TASKS = ("dvc", "slc")
OPTION_TASKS = ("rar", "eca", "rvq", "gvq")


def etbench(predicted: Path, annotated: Sequence[Path], policy: str) -> tuple[dict[str, float], dict]:
    """E.T. Bench: the mean of each task and of each domain, fractions; the table by source is in the protocol."""
    truth = by_id((sample(row, f"{path}, record {i}") for path in annotated for i, row in each(path)), annotated[0])
    answers = by_id((answer(row, f"{predicted}, record {i}") for i, row in each(predicted)), predicted)
    used = [name for name in truth if answers.get(name) is not None]
    if not used:
        raise FileError(f"{predicted}: no annotated sample has an answer in it")
    scored = [{**truth[name], "a": answers.get(name) or ""} for name in (used if policy == "official" else truth)]
    results = etbench_scores(scored, policy)
    sources = results["per_task_source"]
    counts = {
        "n": len(scored),
        "missing": len(truth) - len(used),
        "unparsed": sum(row["Failed"] for task in sources.values() for row in task.values()),
        "unknown": sum(name not in truth for name in answers),
        "parsing": parsing(scored, policy),
    }
    return {**results["task_means"], **results["domains"]}, {**counts, "per_task_source": sources}


def parsing(samples: Sequence[Mapping], policy: str) -> dict[str, dict]:
    """Which rules matched the answers that were read as windows, and as captions with windows."""
    readers = {
        "windows": (WINDOW_TASKS, etbench_windows),
        "captions": (CAPTION_TASKS, partial(etbench_events, official=policy == "official")),
    }
    reports = {}
    for name, (tasks, parser) in readers.items():
        parsed = [read_answer(parser, row["a"], policy) for row in samples if row["task"] in tasks]
        if parsed:
            reports[name] = parse_report(parsed)
    return reports


def answer(row: Mapping, where: str) -> tuple[str, str | None]:
    """Sample id and answer; null is no answer."""
    text = need(row, ["a", "answer"], where)
    if text is not None and not isinstance(text, str):
        raise FileError(f"{where}: the answer must be text, got {describe(text)}")
    return str(need(row, ["idx", "query_id"], where)), text


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
