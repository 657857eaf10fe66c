"""What ends a process: signals, and the end of who started it."""

import os
import signal
import threading
import time
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
GRACE_S = 50
"""Seconds in which a process that is told to stop comes to the end of what it does."""


def status_of(signum: int) -> int:
    """Exit status of a process that was told to stop: 130 for Ctrl-C, else 143."""
    return 130 if signum == signal.SIGINT else 143


def leave_at_once() -> None:
    """Before there is anything to keep, let a signal end this process at once, with a line and no traceback."""
    for signum in SIGNALS:
        signal.signal(signum, _leave)
    if "LOCAL_RANK" in os.environ:  # a process of a group whose launcher is gone waits for the others for ever
        end_with_parent()


def end_with_parent() -> None:
    """Let this process end soon after the one that started it."""
    threading.Thread(target=_follow, args=(os.getppid(),), daemon=True).start()


def _leave(signum: int, frame: FrameType | None) -> None:
    if os.environ.get("LOCAL_RANK", "0") == "0":
        os.write(2, f"train.py: stopped by {signal.Signals(signum).name}; nothing new was kept\n".encode())
    os._exit(status_of(signum))


def _follow(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    time.sleep(5)  # it may end by itself
    os._exit(143)


def leave_it_to_the_parent(worker: int) -> None:
    """Let a data worker go on where its whole group is told to stop: who reads from it says when it ends.

    Told by SIGTERM it ends itself after ``GRACE_S`` seconds, lest a parent that ends it so waits for ever.

    Args:
        worker: its number.
    """
    for signum in (signal.SIGINT, signal.SIGUSR1):
        signal.signal(signum, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(GRACE_S))
