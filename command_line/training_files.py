"""Files that a command of train.py names, looked for before the seconds that its libraries take to load.

What is in them, and everything else about them, is checked later, where they are read.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml

from command_line.paths import check_run

ELSEWHERE = ("://", "pipe:", "{", "*")
"""Parts of a place that is no path of this machine, or names several."""


def check_files(arguments: Sequence[str]) -> None:
    """Refuse configs, annotations, features and earlier runs that are not there.

    Args:
        arguments: of the command; where they ask for help or for the configuration, nothing is refused.

    Raises:
        FileNotFoundError, ValueError: naming the option and the file.
    """
    named = list(options(arguments))
    if any(key.endswith("help") or key in ("-h", "--print_config") for key, _ in named):
        return
    settings: dict = {}
    for key, value in named:
        if key in ("-c", "--config"):
            merge(settings, read_config(value))
        elif key.startswith("--"):
            merge(settings, nested(key.removeprefix("--").removesuffix("+").split("."), value))
    check_sources(settings)
    check_model(settings)


def options(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Name and value of each option, however they are written."""
    for number, argument in enumerate(arguments):
        if argument.startswith("-"):
            key, equals, value = argument.partition("=")
            yield key, value if equals else next(iter(arguments[number + 1 : number + 2]), "")


def read_config(file: str) -> object:
    """What a config holds, or a text in its place; what is no YAML is refused later, with its line.

    Raises:
        FileNotFoundError: there is no such file.
    """
    if Path(file).is_file():
        return plain(Path(file).read_text(encoding="utf-8", errors="replace"))
    if isinstance(found := plain(file), dict):
        return found
    raise FileNotFoundError(f"--config {file}: there is no such file")


def plain(text: str) -> object:
    """A value as YAML has it; None where it is no YAML."""
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        return None


def nested(keys: Sequence[str], value: str) -> dict:
    """A dotted option as a config would say it."""
    found = plain(value)
    for key in reversed(keys):
        found = {key: found}
    return found


def merge(settings: dict, more: object) -> None:
    """Let later settings win, key by key."""
    for key, value in more.items() if isinstance(more, dict) else ():
        if isinstance(value, dict) and isinstance(settings.get(key), dict):
            merge(settings[key], value)
        else:
            settings[key] = value


def check_sources(settings: dict) -> None:
    """Refuse sources of data whose files are not there.

    Raises:
        FileNotFoundError: naming the setting and the file.
    """
    data = settings.get("data")
    for part in ("train", "val"):
        sources = data.get(part) if isinstance(data, dict) else None
        for source in sources if isinstance(sources, list) else ():
            named = [source.get(key) for key in ("queries", "shards", "videos")] if isinstance(source, dict) else []
            for place in named:
                if isinstance(place, str) and not any(mark in place for mark in ELSEWHERE) and not Path(place).exists():
                    remedy = REMEDY if part == "val" else ""
                    raise FileNotFoundError(f"data.{part} names {place}, which is not there{remedy}")


REMEDY = (
    ": `prepare.py annotations .. --hold_out 200` makes it of videos that it takes out of the training data; "
    "or train without, --data.val null"
)
"""For validation data that is not there."""


def check_model(settings: dict) -> None:
    """Refuse a stage before, or a base model with the path of a folder, that is not there.

    Raises:
        ValueError: naming it.
    """
    model = settings.get("model")
    model = model if isinstance(model, dict) else {}
    model = model | (model["init_args"] if isinstance(model.get("init_args"), dict) else {})
    if isinstance(previous := model.get("previous"), str):
        check_run(Path(previous))
    llm = model.get("llm")
    if isinstance(llm, str) and llm.startswith(("/", "./", "../")) and not Path(llm).exists():
        raise ValueError(f"llm {llm!r} is neither a folder with a checkpoint nor a model of the hub")
