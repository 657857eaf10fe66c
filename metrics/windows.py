"""Counts of predicted windows that no metric can use."""

from collections.abc import Mapping, Sequence

from metrics.spans import is_number, is_valid


def check_windows(answers: Mapping[str, Sequence | None], policy: str) -> dict[str, int]:
    """Counts of windows that are invalid or begin before 0.

    Invalid: not two finite numbers in order (a third one, the score, may follow).

    Args:
        answers: id -> windows, None where nothing could be read.
        policy: ``official`` cannot go on with a window that is not made of numbers.

    Raises:
        ValueError: such a window, under ``official``.
    """
    counts = {"unparsed": 0, "invalid": 0, "negative": 0}
    for name, windows in answers.items():
        counts["unparsed"] += windows is None
        for window in windows or []:
            if policy == "official" and not (len(window) >= 2 and all(map(is_number, window))):
                raise ValueError(f"{name!r}: window {list(window)!r:.60} is not made of numbers; use the sound policy")
            counts["invalid"] += not is_valid(window)
            counts["negative"] += is_valid(window) and window[0] < 0
    return counts
