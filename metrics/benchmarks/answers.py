"""Free text to time windows in seconds: any wording, unit or language that a model uses, and never a guess."""

from collections.abc import Sequence
from dataclasses import dataclass

Window = tuple[float, float]
WITHOUT_WINDOWS = ("none", "refusal", "point", "unreadable")
"""Rules of answers without a window: it does not happen, the model does not say, a moment, or no time at all."""


@dataclass(frozen=True)
class Parsed:
    """What was read from one answer."""

    windows: tuple[Window, ...] = ()
    captions: tuple[str, ...] = ()
    """One a window, where the reader reads captions."""
    rule: str | None = None
    """The rule that matched. None, or one of ``WITHOUT_WINDOWS``: there is no window."""
    points: tuple[float, ...] = ()
    """Moments without length, in seconds (rule ``point``)."""
    reversed: int = 0
    """Windows whose end was said first; they are put in order."""


def read_moments(text: str, duration_s: float | None = None) -> Parsed:
    """The time windows of an answer, in the order said.

    Thoughts do not count, of several ``<answer>`` the last does; lists and objects are read before sentences; a
    quoted query says nothing about when. Numbers that count something else are no times.

    Args:
        text: the answer.
        duration_s: length of the video, for percentages, "the last 10 seconds" and the like; None: unknown.

    Returns:
        Windows (start, end) in seconds, start <= end, also beyond the end of the video; and the rule: json, table,
        range, start and end, start and length, numbers, words; without windows one of ``WITHOUT_WINDOWS``.
    """
    # Its patterns take a while to compile, and only answers in text need them.
    from metrics.benchmarks.reading.moments import moments

    return Parsed(**moments(text or "", duration_s))


def ordered(window: Sequence[float]) -> Window:
    """The window with its smaller time first."""
    return (min(window), max(window))


def parse_report(parsed: Sequence[Parsed]) -> dict[str, dict[str, int] | int]:
    """How answers were read: how often each rule matched, how many answers held several windows or reversed ones."""
    rules = [item.rule or "unparsed" for item in parsed]
    report = {
        "rules": {rule: rules.count(rule) for rule in sorted(set(rules))},
        "several_windows": sum(len(item.windows) > 1 for item in parsed),
    }
    turned = sum(item.reversed for item in parsed)
    return {**report, "reversed": turned} if turned else report
