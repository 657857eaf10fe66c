"""Run a W&B sweep file on this machine, without a server: every grid point once, and a table over seeds at the end.

python sweep.py configs/sweeps/meco_ablation.yaml --output runs/sweeps/meco_ablation

``wandb sweep`` takes the same file where there is a W&B account. Finished runs are not run again, one that was killed
goes on with its last checkpoint.
"""

import csv
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from statistics import mean, stdev

import yaml
from rich.console import Console
from rich.table import Table

from command_line.parser import CommandParser
from command_line.tables import print_written

SEED = "seed_everything"
COUNTS = ("n", "unparsed", "invalid", "missing")
"""Ends of the names of logged values that are no scores."""


def run(sweep: Path, output: Path, columns: list[str] | None = None) -> None:
    """Train every grid point and print what it reached.

    Args:
        sweep: the file.
        output: a folder for each run and ``results.json`` are written below it.
        columns: metrics of the table; without it those that were logged beside the sweep's metric.

    Raises:
        ValueError: the file is not a grid sweep that this command understands, or a run did not log its metric.
    """
    settings = read_sweep(sweep)
    points = list(grid(settings["parameters"]))
    results = []
    for number, point in enumerate(points):
        folder = output / f"{number:03d}"
        if not (folder / "model" / "manifest.json").is_file():
            print(f"run {number + 1} of {len(points)}: {json.dumps(point)}", flush=True)
            began = (folder / "checkpoints" / "last.ckpt").is_file()
            subprocess.run([*command(settings, point), f"--output={folder}", *["--resume=true"] * began], check=True)
        metrics = last_metrics(folder / "logs")
        if (name := settings.get("metric", {}).get("name")) and name not in metrics:
            raise ValueError(f"{sweep}: run {folder} logged no {name}; see its data.val and trainer.val_check_interval")
        results.append({"parameters": point, "metrics": metrics})
        output.mkdir(parents=True, exist_ok=True)
        (output / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    if columns is None:
        group = settings.get("metric", {}).get("name", "val/").rpartition("/")[0]
        beside = [name for name in results[0]["metrics"] if name.startswith(f"{group}/")]
        columns = [name for name in beside if name.rpartition("/")[2] not in COUNTS]
    varied = [name for name, parameter in settings["parameters"].items() if len(parameter.get("values", ())) > 1]
    Console(width=110).print(summary(sweep.stem, results, [name for name in varied if name != SEED], columns))
    print_written(output)


def read_sweep(path: Path) -> dict:
    """A sweep file.

    Raises:
        ValueError: another method than grid, no parameters, or a parameter without ``value`` or ``values``.
    """
    settings = yaml.safe_load(Path(path).read_text())
    if not isinstance(settings, dict) or settings.get("method") != "grid" or not settings.get("parameters"):
        raise ValueError(f"{path}: expected method: grid and parameters; other methods need `wandb sweep`")
    for name, parameter in settings["parameters"].items():
        if not isinstance(parameter, dict) or set(parameter) not in ({"value"}, {"values"}):
            raise ValueError(f"{path}: parameter {name} must have either value or values")
    return settings


def grid(parameters: dict) -> Iterator[dict]:
    """Every combination of the parameters' values; the last one varies fastest."""
    names = list(parameters)
    values = [p["values"] if "values" in p else [p["value"]] for p in parameters.values()]
    return (dict(zip(names, combination, strict=True)) for combination in product(*values))


def command(settings: dict, point: dict) -> list[str]:
    """The command of a grid point, with W&B's macros filled in."""
    arguments = [f"--{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in point.items()]
    macros = {"${env}": [], "${interpreter}": [sys.executable], "${program}": [settings["program"]]}
    macros["${args}"] = arguments
    default = ["${env}", "${interpreter}", "${program}", "${args}"]
    return [part for word in settings.get("command", default) for part in macros.get(word, [word])]


def last_metrics(logs: Path) -> dict[str, float]:
    """The last value of every validation metric in a run's logs, of which a resumed run has several."""
    rows = []
    for log in sorted(logs.glob("metrics*.csv")):  # metrics-001.csv, .., metrics.csv
        with open(log, newline="") as lines:
            rows += csv.DictReader(lines)
    return {name: float(row[name]) for row in rows for name in row if name.startswith("val/") and row[name]}


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


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    parser = CommandParser(prog="sweep.py", description=__doc__.splitlines()[0])
    parser.add_argument("sweep", type=Path, help="a W&B sweep file with method: grid")
    parser.add_argument("--output", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--columns", type=list[str] | None, default=None, help="metrics of the table")
    try:
        run(**parser.parse_args(args).as_dict())
    except (ValueError, OSError) as error:
        print(f"sweep.py: error: {error}", file=sys.stderr)
        return 2
    except subprocess.CalledProcessError as error:
        print(f"sweep.py: error: a run ended with status {error.returncode}; run again to go on", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
