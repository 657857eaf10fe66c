"""Score anyone's predictions as a benchmark of the field does it."""

import json
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from metrics.benchmarks.registry import BENCHMARKS

SHOWN = ("mIoU", "tIoU", "IoU", "METEOR")
"""Of the first of these that a benchmark has, the queries that moved are shown; of its first column, if it has none."""


def overview() -> str:
    """The benchmarks as the help shows them."""
    lines, first = ["benchmarks (docs/benchmarks.md says more of each, and which annotations they read):"], {}
    for name, kind in BENCHMARKS.items():
        evaluators = ", ".join(list(kind.evaluators)[:4]) + ", .." * (len(kind.evaluators) > 4)
        files = kind.files if first.setdefault(kind.files, name) == name else f"as {first[kind.files]}"
        said = f"{kind.about}; unit: {kind.unit}; official: {evaluators or 'none'}; predictions: {files}"
        lines += [f"  {name}", *textwrap.wrap(said, 100, initial_indent="      ", subsequent_indent="      ")]
    return "\n".join(lines)


EPILOG = overview()


def score(
    benchmark: Literal[tuple(BENCHMARKS)],
    predictions: Path | list[Path],
    annotations: Path | list[Path] | None = None,
    policy: Literal["sound", "official"] = "sound",
    evaluator: str | None = None,
    output: Path | None = None,
    against: Path | list[Path] | None = None,
    bootstrap: int = 0,
    partial: bool = False,
    on_error: Literal["fail", "skip"] = "fail",
) -> None:
    """Score a prediction file as a benchmark of the field does it.

    Args:
        benchmark: whose metrics, and whose file formats.
        predictions: predictions.jsonl of this project, or a file that the field passes around; two files where the
            benchmark has two ("[ground.json, res.json]"); the output folder of a run that is not finished.
        annotations: the published annotations, or this project's queries; a list where the benchmark has several
            reference files; not needed for files that hold their annotations, such as logs of harnesses.
        policy: ``sound``, or ``official`` to compute as an official evaluator does; the protocol names it, and what is
            known to differ from it.
        evaluator: which official evaluator, where there are several; default: the benchmark's first, or that of the
            harness that wrote the file.
        output: folder for metrics.json (numbers and protocol), rows.csv (one line a query) and, with ``against``,
            moved.csv.
        against: another prediction file, compared query by query.
        bootstrap: draws for 95 % intervals; 0: none. A comparison takes 1000 unless told otherwise.
        partial: score the queries that have an answer, such as those of a run that is not finished.
        on_error: skip: annotations that cannot be used are left out and counted.
    """
    check_output(output)
    from metrics.benchmarks import benchmarks

    if benchmark == "queries":
        check_queries([annotations] if isinstance(annotations, Path) else annotations or [])
    settings = {"policy": policy, "evaluator": evaluator, "partial": partial, "on_error": on_error}
    report = benchmarks.score(benchmark, predictions, annotations, **settings, bootstrap=bootstrap, against=against)
    write(report, output)
    show(report, benchmark, policy)


def check_output(output: Path | None) -> None:
    """Refuse a file where a folder is wanted, before anything is computed.

    Raises:
        ValueError: it is a file, or named like one.
    """
    if output and (output.is_file() or output.suffix in (".json", ".csv")):
        raise ValueError(f"--output is a folder, as in all commands; metrics.json goes into it (got {output})")


def check_queries(paths: Sequence[Path]) -> None:
    """Hold every line of this project's query files against their schema; the metrics read only what they need.

    Raises:
        ValueError, OSError: naming file, line and key.
    """
    from datamodules.query_files import read_queries

    for path in paths:
        for _ in read_queries(path):
            pass


def write(report: Mapping, output: Path | None) -> None:
    """Write what a report holds into a folder, if there is one."""
    if output is None:
        return
    from evaluation.results import write_csv, write_rows

    output.mkdir(parents=True, exist_ok=True)
    kept = {name: value for name, value in report.items() if name != "rows"}
    kept["against"] = {name: value for name, value in report.get("against", {}).items() if name != "moved"}
    if not kept["against"]:
        del kept["against"]
    (output / "metrics.json").write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
    write_rows(output / "rows.csv", report["rows"])
    if "against" in report:
        moved = ([metric, *row] for metric, rows in report["against"]["moved"].items() for row in rows)
        write_csv(output / "moved.csv", ["metric", "query", "value", "against"], moved)


def show(report: Mapping, benchmark: str, policy: str) -> None:
    """Print the table, what was counted, and what to look at."""
    from command_line.tables import console
    from evaluation.results import report_table

    protocol = report["protocol"]
    evaluator = protocol.get("evaluator", "").partition(":")[0]
    by = f" ({evaluator})" if evaluator else ""
    console.print(f"{benchmark}, policy {policy}{by}; unit: {protocol['unit']}", markup=False, soft_wrap=True)
    console.print(report_table(report))
    counts = {name: value for name, value in protocol.items() if isinstance(value, int) and name != "bootstrap"}
    console.print(", ".join(f"{name} {value}" for name, value in counts.items()), markup=False, soft_wrap=True)
    rules = protocol.get("parsing", {}).get("rules")
    if rules:
        said = ", ".join(f"{rule} {count}" for rule, count in rules.items())
        console.print(f"answers read by rule: {said}", markup=False, soft_wrap=True)
    if evaluator:
        console.print(f"differs from {evaluator}: {protocol['differs']}", markup=False, soft_wrap=True)
    for name, words in WARNINGS.items():
        if protocol.get(name):
            console.print(f"warning: {protocol[name]} {words}", style="yellow", markup=False, soft_wrap=True)
    if "against" in report:
        moved = report["against"]["moved"]
        metric = next((name for name in SHOWN if name in moved), next(iter(moved), None))
        rows = moved.get(metric, [])
        console.print(f"queries whose {metric} moved: {len(rows)}", markup=False)
        for query, first, second in rows[:5]:
            console.print(f"  {query}: {second:.4f} -> {first:.4f}", markup=False, soft_wrap=True)


WARNINGS = {
    "unknown": "answers are to nothing that is annotated; they were not scored",
    "invalid": "windows are no windows (not two numbers in order); they score 0",
    "negative": "windows begin before the video",
    "skipped": "annotations could not be used and were left out (see skipped_first in the protocol)",
    "matched_by_text": "answers have the id of another video or sentence than they name; video and sentence counted",
}
