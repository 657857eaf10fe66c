"""Score anyone's predictions as a benchmark of the field does it."""

import json
from pathlib import Path
from typing import Literal

from command_line.tables import console
from evaluation.results import metrics_table
from metrics.benchmarks import benchmarks


def score(
    benchmark: Literal[tuple(benchmarks.BENCHMARKS)],
    predictions: Path,
    annotations: Path | list[Path],
    policy: Literal["sound", "official"] = "sound",
    output: Path | None = None,
) -> None:
    """Score a prediction file as a benchmark of the field does it.

    Args:
        benchmark: whose metrics, and whose file formats.
        predictions: predictions.jsonl of this project, or a format the benchmark passes around.
        annotations: the published annotations; a list where the benchmark has several reference files.
        policy: ``sound``, or ``official`` to reproduce the official evaluator with its quirks.
        output: where metrics.json goes; None: nowhere.
    """
    report = benchmarks.score(benchmark, predictions, annotations, policy)
    if output:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(report, indent=2) + "\n")
    counts = {name: value for name, value in report["protocol"].items() if isinstance(value, int)}
    console.print(metrics_table(report["metrics"] | counts, f"{benchmark}, policy {policy}", decimals=4))
