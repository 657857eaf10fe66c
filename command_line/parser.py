"""Command lines that say in a line or two what is wrong with them."""

import re
import sys
from argparse import RawDescriptionHelpFormatter

from jsonargparse import ArgumentParser, DefaultHelpFormatter

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


class LinesAsWritten(RawDescriptionHelpFormatter, DefaultHelpFormatter):
    """Help whose description and epilog keep their lines."""


class CommandParser(ShortErrors, ArgumentParser):
    """Of commands that are functions."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **{"formatter_class": LinesAsWritten, **kwargs})
