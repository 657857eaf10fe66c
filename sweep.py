"""Run a W&B sweep file on this machine, without a server: every grid point once, and a table over seeds at the end.

python sweep.py configs/sweeps/meco_ablation.yaml --output runs/sweeps/meco_ablation

``wandb sweep`` takes the same file where there is a W&B account. Finished runs are not run again, one that was killed
goes on with its last checkpoint, and those that fail are listed at the end.
"""

import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from command_line.errors import failed as ended
from command_line.parser import CommandParser
from command_line.tables import PlainConsole, complain, print_written, say
from sweeps.runner import Point, run_points
from sweeps.sweep_file import command, grid, read_sweep
from sweeps.table import SEED, brief, default_columns, last_metrics, summary

__all__ = ["brief", "command", "grid", "last_metrics", "main", "read_sweep", "run"]


def run(sweep: Path, output: Path, columns: list[str] | None = None, jobs: int = 1, dry_run: bool = False) -> int:
    """Train every grid point and print what it reached.

    Args:
        sweep: the file.
        output: a folder for each run and ``results.json`` are written below it.
        columns: metrics of the table; without it those that were logged beside the sweep's metric.
        jobs: runs at a time; they share the visible GPUs out.
        dry_run: print the commands only.

    Returns:
        how many runs failed.

    Raises:
        ValueError: the file is not a grid sweep that this command understands, or a run did not log its metric.
    """
    settings = read_sweep(sweep)
    if jobs < 1:
        raise ValueError(f"--jobs must be at least 1, got {jobs}")
    points = [Point(i, point, output / f"{i:03d}") for i, point in enumerate(grid(settings["parameters"]))]
    if dry_run:
        for point in points:
            said = "finished:" if point.finished else shlex.join(point.arguments(settings))
            say(f"{said} {point.folder}")
        return 0
    metric, results = settings.get("metric", {}).get("name"), {}

    def done(point: Point) -> None:
        metrics = point.metrics()
        if metric and metric not in metrics:
            raise ValueError(f"{sweep}: run {point.folder} logged no {metric}; see its data.val and val_check_interval")
        if not (columns or default_columns(metrics, metric)):
            raise ValueError(
                f"{sweep}: run {point.folder} logged no score, so the table would be empty: give the sweep data.val "
                "and a metric, or name --columns"
            )
        results[point.number] = {"parameters": point.parameters, "metrics": metrics}
        output.mkdir(parents=True, exist_ok=True)
        (output / "results.json").write_text(json.dumps(in_order(results), indent=2) + "\n")

    failed = run_points(settings, points, jobs, done)
    if results:
        varied = [name for name, parameter in settings["parameters"].items() if len(parameter.get("values", ())) > 1]
        chosen = columns or default_columns(in_order(results)[0]["metrics"], metric)
        varied = [name for name in varied if name != SEED]
        PlainConsole(width=110).print(summary(sweep.stem, in_order(results), varied, chosen))
        print_written(output)
    for number, status in failed.items():
        point = points[number]
        complain("sweep.py", f"error: {point.folder} ended with status {status}: {json.dumps(point.parameters)}")
    return len(failed)


def in_order(results: dict[int, dict]) -> list[dict]:
    """Results by the number of their point."""
    return [results[number] for number in sorted(results)]


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status: 0 fine, 1 a run failed, 2 bad input."""
    parser = CommandParser(prog="sweep.py", description=__doc__.splitlines()[0])
    parser.add_argument("sweep", type=Path, help="a W&B sweep file with method: grid")
    parser.add_argument("--output", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--columns", type=list[str] | None, default=None, help="metrics of the table")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, each on its part of the GPUs")
    parser.add_argument("--dry_run", action="store_true", help="print the commands only")
    try:
        failed = run(**parser.parse_args(args).as_dict())
    except Exception as error:
        return ended("sweep.py", error)
    if failed:
        complain("sweep.py", f"error: {failed} of the runs failed; run again to go on")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
