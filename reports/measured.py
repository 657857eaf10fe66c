"""Result folders and sweeps as rows of a table: one row a model, its seeds together."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from command_line.yaml_files import read_yaml
from datamodules.strict_json import read, read_object

COST = "cost/"
"""Begins the names of what is no score."""
RESULTS = "metrics.json"
COSTS = "cost.json"
SWEEP = "results.json"
OWN = ("seed_everything", "output", "resume", "trainer.default_root_dir", "trainer.logger", "checkpoint.dirpath",
       "model.init_args.previous", "config")  # fmt: skip
"""Keys of a run's config that may differ between seeds of one model."""


@dataclass(frozen=True)
class Row:
    """A model with what it reached, once for each seed."""

    label: str
    metrics: tuple[Mapping[str, float], ...]
    protocol: Mapping[str, object] = field(default_factory=dict)
    """What the numbers depend on, the same for all seeds."""
    folders: tuple[Path, ...] = ()

    def is_cost(self, column: str) -> bool:
        """Whether a column is no score."""
        return any(name.startswith(COST) and name.endswith(f"/{column}") for one in self.metrics for name in one)

    def values(self, column: str) -> list[float]:
        """What the seeds reached, by the name of a metric, or by the last part of it."""
        found = [
            {name.rpartition("/")[2]: value for name, value in one.items()}
            | {name.removeprefix(COST): value for name, value in one.items()}
            for one in self.metrics
        ]
        return [one[column] for one in found if column in one]


@dataclass(frozen=True)
class _Result:
    label: str
    key: str
    metrics: Mapping[str, float]
    protocol: Mapping[str, object]
    folder: Path


def read_rows(results: Sequence[str]) -> list[Row]:
    """Read results.

    Args:
        results: folders of ``evaluate.py`` (with metrics.json), such files, or folders of ``sweep.py`` (with
            results.json); each as it is or as ``LABEL=FOLDER``. Results with the same label are seeds of one model, and
            so are those without one whose runs and protocols differ in the seed alone.

    Raises:
        ValueError: a folder holds no results, or two results under one label were measured differently.
    """
    found = [one for result in results for one in _read(*_named(result))]
    rows = []
    for key in dict.fromkeys(one.key for one in found):
        seeds = [one for one in found if one.key == key]
        for one in seeds[1:]:
            if different := differences(seeds[0].protocol, one.protocol):
                raise ValueError(
                    f"{seeds[0].folder} and {one.folder} are both {one.label}, but were measured differently: "
                    f"{'; '.join(different)}. Give them labels of their own"
                )
        metrics, folders = tuple(one.metrics for one in seeds), tuple(one.folder for one in seeds)
        rows.append(Row(seeds[0].label, metrics, seeds[0].protocol, folders))
    return rows


def chance_rows(row: Row) -> list[Row]:
    """What windows that look at no video reach on a row's queries, where its results say it."""
    beside = read_object(row.folders[0] / RESULTS).get("baselines", {}) if row.folders else {}
    return [Row(name, (metrics,), row.protocol) for name, metrics in beside.items()]


def _named(result: str) -> tuple[str, Path]:
    label, equals, folder = result.partition("=")
    return (label, Path(folder)) if equals and not Path(result).exists() else ("", Path(result))


def _read(label: str, folder: Path) -> list[_Result]:
    file = folder if folder.is_file() else folder / RESULTS
    if not file.is_file() and (folder / SWEEP).is_file():
        return _read_sweep(label, folder)
    try:
        report = read_object(file)
        metrics, protocol = dict(report["metrics"]), _facts(report["protocol"])
        beside = file.with_name(COSTS)
        costs = {f"{COST}{name}": value for name, value in (read_object(beside) if beside.is_file() else {}).items()}
        metrics = metrics | _unread(metrics) | costs
    except FileNotFoundError:
        raise ValueError(f"{folder} holds neither {RESULTS} (of evaluate.py) nor {SWEEP} (of sweep.py)") from None
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} is no result of evaluate.py: {error}") from None
    run = report["protocol"].get("checkpoint", {}).get("folder")
    key = label or json.dumps([protocol, _settings(Path(run)) if run else str(folder)], sort_keys=True)
    return [_Result(label or folder.name, key, metrics, protocol, file.parent)]


def _unread(metrics: Mapping[str, float]) -> dict[str, float]:
    """The percentage of answers of each task from which nothing could be read: ``grounding/unparsed%``."""
    tasks = {name.removesuffix("/unparsed") for name in metrics if name.endswith("/unparsed")}
    counts = {task: (metrics[f"{task}/unparsed"], metrics.get(f"{task}/n")) for task in sorted(tasks)}
    return {f"{COST}{task}/unparsed%": 100 * part / whole for task, (part, whole) in counts.items() if whole}


def _read_sweep(label: str, folder: Path) -> list[_Result]:
    """The points of a sweep; seeds of one point share a key."""
    points = read(folder / SWEEP)
    if not isinstance(points, list) or not all(isinstance(point, dict) for point in points):
        raise ValueError(f"{folder / SWEEP} is no list of the points of a sweep")
    points = [point for point in points if point.get("metrics")]
    settings = [{k: v for k, v in point["parameters"].items() if k != "seed_everything"} for point in points]
    varied = [name for name in (settings[0] if settings else ()) if len({str(one.get(name)) for one in settings}) > 1]
    found = []
    for point, setting in zip(points, settings, strict=True):
        words = ", ".join(f"{name.rpartition('.')[2]} {setting[name]}" for name in varied)
        name = " ".join(filter(None, (label or folder.name, words)))
        protocol = {"queries": f"validation of the sweep {folder.name}"}
        key = f"{folder} {json.dumps(setting, sort_keys=True)}"
        found.append(_Result(name, key, point["metrics"], protocol, folder))
    return found


def _facts(protocol: Mapping) -> dict[str, object]:
    """What a number depends on, by the names of the footnotes; nothing that differs between seeds."""
    features, localizer = protocol.get("features", {}), protocol.get("localizer", {})
    files = protocol.get("files", {}).get("annotations", [{}])
    facts = {
        "setting": str(protocol.get("setting", "")).split(":")[0],
        "base": Path(str(protocol.get("base", {}).get("name", ""))).name,
        "features": ", ".join(filter(None, _made(features))),
        "times": str(localizer.get("class_path", "")).rpartition(".")[2],
        "decoding": _decoding(protocol.get("generation", {})),
        "scoring": str(protocol.get("policy", "")),
        "queries": Path(protocol.get("queries", {}).get("file", "") or str(files[0].get("path", ""))).name,
        "benchmark": protocol.get("benchmark", ""),
        "n": protocol.get("n"),
    }
    return {name: value for name, value in facts.items() if value not in ("", None)}


def _made(features: Mapping) -> tuple[str, str, str]:
    """Encoder, sampling and S-tokens."""
    spatial = features.get("spatial", "")
    encoder = Path(str(features.get("encoder", ""))).name
    return encoder, features.get("sampling", ""), f"S-tokens {spatial}" if spatial else ""


def _decoding(generation: Mapping) -> str:
    if not generation:
        return ""
    heat = generation.get("temperature", 0)
    return f"{f'temperature {heat}' if heat else 'greedy'}, {generation.get('max_new_tokens')} tokens at most"


def _settings(run: Path) -> object:
    """The config of a run without what seeds may differ in; the folder's name where there is no config."""
    try:
        config = read_yaml(run / "config.yaml")
    except (OSError, ValueError):
        return str(run)
    return {name: value for name, value in flat(config).items() if not name.startswith(OWN)}


def flat(settings: object, name: str = "") -> dict[str, object]:
    """Nested settings by dotted names."""
    if not isinstance(settings, Mapping):
        return {name: settings}
    parts = (flat(value, f"{name}.{key}" if name else str(key)) for key, value in settings.items())
    return {key: value for part in parts for key, value in part.items()}


def differences(one: Mapping, other: Mapping, both: bool = False) -> list[str]:
    """What differs between two protocols: ``base: a, not b``.

    Args:
        one: the first.
        other: the second.
        both: only of what both of them say.
    """
    names = [name for name in {**one, **other} if not both or (name in one and name in other)]
    return [f"{n}: {one.get(n)}, not {other.get(n)}" for n in names if one.get(n) != other.get(n)]
