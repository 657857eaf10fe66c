"""Command lines that say in a line or two what is wrong with them."""

import re
import sys
from argparse import RawDescriptionHelpFormatter
from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml
from jsonargparse import ActionConfigFile, ArgumentParser, DefaultHelpFormatter

from command_line.tables import complain


def precise(message: str) -> str:
    """The lines of a message that name key and value.

    Left out are jsonargparse's list of every type it tried, and the traceback that a data worker puts in front.
    """
    message = re.split(r"^\w*Error: ", message, flags=re.MULTILINE)[-1] if "Original Traceback" in message else message
    noise = ("Does not validate against any", "Subtypes: ", "Expected a <class 'NoneType'>", "Errors:", "Given value t")
    noise += ("Expected a path but",)
    lines = [line.strip().removeprefix("- ") for line in message.splitlines()]
    return "\n  ".join([line for line in lines if line and not line.startswith(noise)][:4])


class ShortErrors:
    """Makes a parser say what is wrong with an argument in a line or two, without pages of usage in front."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs | {"allow_abbrev": False})

    def error(self, message: str, ex: Exception | None = None) -> None:
        """Print the precise part of a message and leave with status 2."""
        complain(self.prog, f"error: {precise(str(message))}")
        sys.exit(2)


class ConfigFile(ActionConfigFile):
    """A YAML file whose lists replace those of earlier files. jsonargparse merges lists of the same length item by
    item, so that a source of data would keep the weight, or the queries, of an earlier one.
    """

    @staticmethod
    def apply_config(parser, cfg, dest, value) -> None:
        """Forget the lists that this file has, then read it."""
        text = Path(value).read_text() if Path(value).is_file() else value
        try:
            settings = yaml.safe_load(text)
        except yaml.YAMLError:
            settings = None  # it is refused with its line where it is read
        for key in lists_of_records(settings):
            if cfg.get(key) is not None:
                cfg[key] = None
        ActionConfigFile.apply_config(parser, cfg, dest, value)


def lists_of_records(settings: object, place: str = "") -> Iterator[str]:
    """Dotted keys of the lists in a config whose items have keys of their own."""
    if isinstance(settings, dict):
        for key, value in settings.items():
            yield from lists_of_records(value, f"{place}.{key}" if place else str(key))
    elif isinstance(settings, list) and any(isinstance(item, dict) for item in settings):
        yield place


def replacing(arguments: Sequence[str]) -> list[str]:
    """The same arguments, each list of records with ``null`` in front of it, so that it replaces what was there."""
    found = []
    for number, argument in enumerate(arguments):
        key, equals, value = argument.partition("=")
        value = value if equals else next(iter(arguments[number + 1 : number + 2]), "")
        if key.startswith("--") and not key.endswith("+") and value.lstrip().startswith("["):
            try:
                several = list(lists_of_records(yaml.safe_load(value), key))
            except yaml.YAMLError:
                several = []
            found += [f"{key}=null"] if several else []
        found.append(argument)
    return found


class LinesAsWritten(RawDescriptionHelpFormatter, DefaultHelpFormatter):
    """Help whose description and epilog keep their lines."""


class CommandParser(ShortErrors, ArgumentParser):
    """Of commands that are functions."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **{"formatter_class": LinesAsWritten, **kwargs})
