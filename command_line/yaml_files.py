"""YAML of which nothing is executed: plain values alone, with the place of what is wrong."""

from pathlib import Path

import yaml


def read_yaml(path: Path) -> dict:
    """A YAML file that holds a mapping.

    Raises:
        ValueError: naming the file, and the line where there is one; it is no YAML of plain values, or no mapping.
        OSError: it is not there, or cannot be read.
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8-sig"))
    except (yaml.YAMLError, ValueError) as error:  # ValueError: not UTF-8, or a date that is none
        place = getattr(error, "problem_mark", None)
        where = f", line {place.line + 1}" if place else ""
        raise ValueError(f"{path}{where}: no YAML: {getattr(error, 'problem', None) or error}") from None
    except RecursionError:
        raise ValueError(f"{path}: no YAML that can be read: it is nested too deeply") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected keys and values, found {type(content).__name__}")
    return content
