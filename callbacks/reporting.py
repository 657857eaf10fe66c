"""What is only said about a run."""

from collections.abc import Iterator
from contextlib import contextmanager

from lightning.pytorch.utilities import rank_zero_warn

from command_line.tables import shown


@contextmanager
def only_reported(what: str) -> Iterator[None]:
    """Let a failure in here be a warning: a report that cannot be made costs no run its weights.

    Args:
        what: that could not be made.
    """
    try:
        yield
    except Exception as error:
        rank_zero_warn(f"{what} could not be written: {type(error).__name__}: {shown(error)}")
