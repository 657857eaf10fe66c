"""The test questions for the runs of sweeps, whose settings were chosen on validation data, as one table.

Beside the runs stand windows that look at no video: the best constant one, and random ones.
"""

import json
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from statistics import mean

from jsonargparse.typing import NonNegativeInt, PositiveInt

from command_line.tables import console
from evaluation.benchmark import benchmark
from evaluation.report import report
from reports.measured import RESULTS
from sweeps.runner import Point
from sweeps.sweep_file import grid, read_sweep
from sweeps.table import SEED


def held_out(
    sweeps: dict[Path, Path],
    shards: str,
    queries: Path,
    output: Path,
    columns: list[str] | None = None,
    chosen: tuple[str, ...] = (),
    batch_size: PositiveInt = 16,
    num_workers: NonNegativeInt = 2,
    partial: bool = False,
) -> None:
    """Ask every run of sweeps the test questions, and put what they reached into a table: a row a setting, over seeds.

    Runs that were asked before are not asked again.

    Args:
        sweeps: sweep files and the folders of their runs (``--output`` of sweep.py).
        shards: features of the test videos.
        queries: annotation file.
        output: folder for the results of each run, and for the table.
        columns: metrics of the table, and costs: trained_numbers, new_tokens, tokens_per_answer, ms_per_query.
        chosen: parameters of the sweeps whose value is chosen: of runs that differ in these (and in the seed) alone,
            those with the best mean of the sweep's validation metric are asked.
        batch_size: queries answered together.
        num_workers: reading processes.
        partial: leave runs out that are not finished, and name them.

    Raises:
        ValueError: a run is not finished, or with ``partial`` none of a sweep is; a parameter to choose is in no sweep,
            or two settings have the same name.
    """
    rows: dict[str, list[Point]] = {}
    for file, runs in sweeps.items():
        settings = read_sweep(file)
        points = [Point(i, values, runs / f"{i:03d}") for i, values in enumerate(grid(settings["parameters"]))]
        done = [point for point in points if point.finished]
        if unfinished := [str(point.folder) for point in points if not point.finished]:
            if not (partial and done):
                raise ValueError(
                    f"{file}: not finished: {', '.join(unfinished)}; run sweep.py again, or --partial true"
                )
            console.print(f"{file}: left out, as they are not finished: {', '.join(unfinished)}")
        for label, found in best(done, settings, chosen, Path(file).stem).items():
            if label in rows:
                raise ValueError(f"{file}: another sweep has a setting {label} too")
            rows[label] = found
    unknown = {name for name in chosen if not any(name in point.parameters for row in rows.values() for point in row)}
    if unknown:
        raise ValueError(f"--chosen {', '.join(sorted(unknown))}: no sweep has this parameter")
    results = []
    for label, points in rows.items():
        for point in points:
            folder = output / "runs" / label.replace(" ", "-") / point.folder.name
            if not (folder / RESULTS).is_file():
                benchmark(point.folder, shards, queries, folder, batch_size=batch_size, num_workers=num_workers)
            results.append(f"{label}={folder}")
    report(results, output, columns=columns, chance=True)


def best(points: list[Point], settings: Mapping, chosen: tuple[str, ...], name: str) -> dict[str, list[Point]]:
    """The points to ask, by the name of their setting.

    Args:
        points: of one sweep.
        settings: the sweep file.
        chosen: parameters of which the best value is taken.
        name: of the sweep; it begins the names of settings that no class names.

    Raises:
        ValueError: something is to be chosen, and the sweep has no metric.
    """
    varied = [name for name, one in settings["parameters"].items() if len(one.get("values", ())) > 1 and name != SEED]
    named, tried = [one for one in varied if one not in chosen], [one for one in varied if one in chosen]
    groups: dict[str, dict[str, list[Point]]] = defaultdict(lambda: defaultdict(list))
    for point in points:
        words = [name_of(parameter, point.parameters[parameter]) for parameter in named]
        label = " ".join(words if any(" " not in word for word in words) else [name, *words])
        groups[label][json.dumps([point.parameters[one] for one in tried])].append(point)
    if not tried:
        return {label: points for label, tries in groups.items() for points in tries.values()}
    metric = settings.get("metric", {})
    if "name" not in metric:
        raise ValueError(f"--chosen {', '.join(tried)}: the sweep names no metric to choose by")
    sign = 1 if metric.get("goal") == "maximize" else -1

    def reached(points: list[Point]) -> float:
        return sign * mean(point.metrics()[metric["name"]] for point in points)

    return {label: max(tries.values(), key=reached) for label, tries in groups.items()}


def name_of(parameter: str, value: object) -> str:
    """A value for people: of a class its name, of others parameter and value."""
    with suppress(json.JSONDecodeError):
        value = json.loads(value) if isinstance(value, str) else value
    if isinstance(value, Mapping) and "class_path" in value:
        return value["class_path"].rpartition(".")[2]
    return f"{parameter.rpartition('.')[2]} {value}"
