"""What the runs of a sweep reached."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev

from rich.table import Table

SEED = "seed_everything"
COUNTS = ("n", "unparsed", "invalid", "missing")
"""Ends of the names of logged values that are no scores."""


def last_metrics(logs: Path) -> dict[str, float]:
    """The last value of every validation metric in a run's logs, of which a resumed run has several."""
    rows = []
    for log in sorted(logs.glob("metrics*.csv")):  # metrics-001.csv, .., metrics.csv
        with open(log, newline="") as lines:
            rows += csv.DictReader(lines)
    return {name: float(row[name]) for row in rows for name in row if name.startswith("val/") and row[name]}


def default_columns(metrics: dict[str, float], metric: str | None) -> list[str]:
    """Scores that were logged beside a sweep's metric, and none of the counts."""
    group = (metric or "val/").rpartition("/")[0]
    return [name for name in metrics if name.startswith(f"{group}/") and name.rpartition("/")[2] not in COUNTS]


def summary(title: str, results: Sequence[dict], varied: Sequence[str], columns: Sequence[str]) -> Table:
    """Mean and standard deviation over seeds, one line a setting of the ``varied`` parameters."""
    groups: dict[str, list[dict]] = {}
    for result in results:
        setting = "\n".join(f"{name.rpartition('.')[2]}: {brief(result['parameters'][name])}" for name in varied)
        groups.setdefault(setting, []).append(result["metrics"])
    table = Table("setting", "runs", *(name.removeprefix("val/").replace("/", "\n") for name in columns), title=title)
    for setting, runs in groups.items():
        cells = []
        for name in columns:
            values = [metrics[name] for metrics in runs if name in metrics]
            spread = f" ± {stdev(values):.1f}" if len(values) > 1 else ""
            cells.append(f"{mean(values):.1f}{spread}" if values else "-")
        table.add_row(setting, str(len(runs)), *cells, end_section=True)
    return table


def brief(value: object) -> str:
    """A parameter for people: of a class only its settings."""
    try:
        value = json.loads(value) if isinstance(value, str) else value
    except json.JSONDecodeError:
        return value
    settings = value.get("init_args", value) if isinstance(value, dict) else None
    return str(value) if settings is None else ", ".join(f"{name}={content}" for name, content in settings.items())
