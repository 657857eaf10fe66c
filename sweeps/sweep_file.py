"""A W&B sweep file with a grid: its points, and the command of each."""

import json
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import yaml


def read_yaml(path: Path) -> dict:
    """A YAML file that holds a mapping. Raises ValueError naming what is wrong with it."""
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        place = getattr(error, "problem_mark", None)
        where = f", line {place.line + 1}" if place else ""
        raise ValueError(f"{path}{where}: no YAML: {getattr(error, 'problem', None) or error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected keys and values, found {type(content).__name__}")
    return content


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
