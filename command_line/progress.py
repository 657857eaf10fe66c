"""How far long work has come, and how long it will still take."""

import time

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from command_line.tables import console

PAUSE_S = 15.0
"""Seconds between two lines where there is no terminal to draw a bar on."""


class Bar:
    """A bar with the time left; where output is no terminal, a line every ``PAUSE_S`` seconds; nothing when quiet.

    Args:
        what: is done, in a word or two.
        total: steps of it.
    """

    def __init__(self, what: str, total: int):
        self.what, self.total, self.done = what, total, 0
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
        times = (TextColumn("left"), TimeRemainingColumn(), TextColumn("so far"), TimeElapsedColumn())
        self._drawn = console.is_terminal and not console.quiet
        self._progress = Progress(*columns, *times, console=console, disable=not self._drawn, transient=True)
        self._task = self._progress.add_task(what, total=total)
        self._began = self._spoke = time.monotonic()

    def __enter__(self) -> "Bar":
        self._progress.start()
        return self

    def __exit__(self, *error) -> None:
        self._progress.stop()

    def advance(self, steps: int = 1) -> None:
        """Some steps more are done."""
        self.done += steps
        self._progress.advance(self._task, steps)
        now = time.monotonic()
        if not self._drawn and self.done < self.total and now - self._spoke >= PAUSE_S:
            self._spoke = now
            left_s = (now - self._began) / self.done * (self.total - self.done)
            console.print(f"{self.what}: {self.done} of {self.total}, {spoken(left_s)} left", highlight=False)


def spoken(seconds: float) -> str:
    """A time as people say it: ``40 s``, ``12 min``, ``1.5 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
