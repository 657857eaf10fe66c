"""A W&B sweep file with a grid: its points, and the command of each."""

import json
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path

from command_line.yaml_files import read_yaml


def read_sweep(path: Path) -> dict:
    """A sweep file.

    Raises:
        ValueError: no YAML, another method than grid, no parameters, or a parameter without ``value`` or ``values``.
    """
    settings = read_yaml(path)
    if settings.get("method") != "grid" or not settings.get("parameters"):
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
