"""Events to structural tokens: which stretches of a video get a token, and the frames of each.

Times are in frames: frame ``k`` stands for [k, k + 1). Source: MeCo, section 3.2, and the released data code.
"""

from collections.abc import Sequence

import numpy as np

from datamodules.markup import Text, Token, join

ENT, TST = "<ent>", "<tst>"
LEAD, GAP = 1, 2
"""The released thresholds, in frames: shortest stretch before the first event, and between or behind events, that gets
a transition token."""
Window = tuple[float, float]


def transitions(windows: Sequence[Window], frames: int) -> dict[int, Window]:
    """Background stretches that get a token, by the number of events before them, as released.

    Args:
        windows: events in the order in which the answer names them, unbounded.
        frames: T.
    """
    found = {}
    windows = np.asarray(windows, np.float32).tolist()  # as released
    if windows[0][0] >= LEAD:
        found[0] = (0.0, windows[0][0])
    for number, ((_, end), (start, _)) in enumerate(zip(windows, windows[1:], strict=False), 1):
        if end <= start - GAP:
            found[number] = (end, start)
    if windows[-1][1] <= frames - GAP:
        found[len(windows)] = (windows[-1][1], float(frames))
    return found


def partition(windows: Sequence[Window], frames: int) -> tuple[list[tuple[int, int]], dict[int, tuple[int, int]]]:
    """Frames of events and of all stretches between them, without gap, and without overlap where events have none.

    The paper's segments follow one another. Annotated events may also overlap or nest: each then has all of its frames,
    and background is what no event covers. The one frame in which an event ends and the next begins belongs to the
    earlier one, if the later has another.

    Args:
        windows: events, by their start.
        frames: T.

    Returns:
        first and last frame of each event, and of each transition by the number of events before it.
    """
    events, between, free = [], {}, 0
    for number, window in enumerate(windows):
        first, last = covered(window, frames)
        if first == free - 1 and last >= free:
            first = free
        if first > free:
            between[number] = (free, first - 1)
        events.append((first, last))
        free = max(free, last + 1)
    if free < frames:
        between[len(windows)] = (free, frames - 1)
    return events, between


def covered(window: Window, frames: int) -> tuple[int, int]:
    """First and last frame of a window, in single precision as released: both frames that it touches count."""
    start, end = bounded(window, frames)
    return min(int(start), frames - 1), min(int(end), frames - 1)


def bounded(window: Window, frames: int) -> Window:
    """The window inside the video and at least one frame long."""
    start, end = np.sort(np.clip(np.asarray(window, np.float32), 0, frames))
    if end - start < 1:
        centre = np.clip((start + end) / np.float32(2), np.float32(0.5), np.float32(frames - 0.5))
        start, end = centre - np.float32(0.5), centre + np.float32(0.5)
    return float(start), float(end)


def interleave(captions: Sequence[str], transitions: Sequence[int]) -> Text:
    """The answer: each caption with its event token, transition tokens on lines of their own.

    Args:
        captions: one an event; may be empty.
        transitions: numbers of events that have a transition behind them; 0: one stands in front.
    """
    lines = [Text(caption.strip(), Token(ENT)) for caption in captions]
    for number in sorted(transitions, reverse=True):
        lines.insert(number, Text(Token(TST)))
    return join("\n", lines)
