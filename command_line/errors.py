"""How a command ends that cannot go on: with a line that says why, and status 2."""

import os
import tempfile
import traceback

from command_line.parser import precise
from command_line.tables import complain

TRACEBACK = "WHENLM_TRACEBACK"
"""Environment variable; set to 1, errors come with their traceback."""


def failed(program: str, error: Exception, expected: tuple[type[Exception], ...] = ()) -> int:
    """Say in a line what went wrong, and give the exit status.

    ``ValueError`` and ``OSError`` are about input. Any other exception may be a fault of the program or of a library:
    its kind is named, and its traceback is kept in a file for whoever looks into it.

    Args:
        program: name of the command.
        error: that ended it.
        expected: kinds of errors that are about input as well.
    """
    if os.environ.get(TRACEBACK) == "1":
        traceback.print_exception(error)
    message = precise(str(error)) or type(error).__name__
    if not isinstance(error, (ValueError, OSError, *expected)):
        message = f"{type(error).__name__}: {message}"
        with tempfile.NamedTemporaryFile("w", prefix="whenlm-", suffix=".txt", delete=False) as file:
            traceback.print_exception(error, file=file)
        message += f" (traceback in {file.name})"
    complain(program, f"error: {message}")
    return 2
