"""Free text to time windows in seconds: any wording, unit or language that a model uses, and never a guess."""

from collections.abc import Sequence
from dataclasses import dataclass

from metrics.benchmarks.reading import normalising, phrases
from metrics.benchmarks.reading.lists import ListReader, read_lists, read_table
from metrics.benchmarks.reading.negations import contradicted, denies, refuses, without_time
from metrics.benchmarks.reading.numerals import spelled_out
from metrics.benchmarks.reading.ranges import Found, Scale, read_ranges
from metrics.benchmarks.reading.tokens import tokens
from metrics.spans import is_number

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
    scale = Scale(float(duration_s) if is_number(duration_s) and duration_s > 0 else None)
    part = normalising.answer_part(normalising.plain(text or ""))
    last = normalising.conclusion(part)
    found = read_part(last, scale)
    if not found.windows and last is not part:
        whole = read_part(part, scale)
        found = whole if whole.windows or not found.points else found
    if found.windows:
        windows = tuple(dict.fromkeys(map(ordered, found.windows)))
        turned = sum(start > end for start, end in dict.fromkeys(found.windows))
        return Parsed(windows, rule=found.rule, reversed=turned)
    return Parsed(rule=kind(part, found), points=tuple(found.points) if kind(part, found) == "point" else ())


def ordered(window: Sequence[float]) -> Window:
    """The window with its smaller time first."""
    return (min(window), max(window))


def kind(part: str, found: Found) -> str:
    """The rule of an answer without windows."""
    if found.rule == "none":
        return "none"
    text = normalising.without_markup(part)
    if found.points:
        return "none" if denies(text) else "refusal" if refuses(text) else "point"
    return without_time(text)


def read_part(text: str, scale: Scale) -> Found:
    """The windows of a plain text: its lists, else its tables, else its sentences."""
    if not text.strip():
        return Found(rule="unreadable")
    reader = ListReader(lambda value: single_time(value, scale), lambda value: read_sentences(value, scale).windows)
    listed = read_lists(text, reader)
    if listed.windows:
        return phrases.relative(listed, text, scale)
    table = read_table(text, lambda value: single_time(value, scale))
    if table.windows:
        return table
    found = read_sentences(text, scale)
    if not found.windows and (listed.points or reader.empty):
        return Found(points=listed.points or found.points, rule="none" if reader.empty and not found.points else "")
    return found


def read_sentences(text: str, scale: Scale) -> Found:
    """The windows of sentences: ranges, starts with ends or lengths; else what is said in words only."""
    text = normalising.without_quotes(normalising.without_markup(text), only_about_time)
    text, rate = phrases.without_rate(spelled_out(text))
    text = phrases.edges(text, scale.duration_s)
    if contradicted(text):
        return Found(rule="none")
    found = read_ranges(tokens(text), Scale(scale.duration_s, rate))
    if found.windows:
        return phrases.relative(found, text, scale)
    said = phrases.in_words(text, scale)
    return Found([said], "words") if said else found


def only_about_time(text: str) -> bool:
    """True for a text without words that have nothing to do with time."""
    return all(token.is_time or token.parts != {"other"} for token in tokens(spelled_out(text)))


def single_time(text: str, scale: Scale) -> float | None:
    """The seconds of a text that is one time; None for any other."""
    found = tokens(spelled_out(normalising.without_markup(text)))
    times = [token for token in found if token.is_time]
    if len(times) != 1 or any(token.parts == {"other"} for token in found if not token.is_time):
        return None
    return scale.seconds(times[0].value, times[0].unit)


def parse_report(parsed: Sequence[Parsed]) -> dict[str, dict[str, int] | int]:
    """How answers were read: how often each rule matched, how many answers held several windows or reversed ones."""
    rules = [item.rule or "unparsed" for item in parsed]
    report = {
        "rules": {rule: rules.count(rule) for rule in sorted(set(rules))},
        "several_windows": sum(len(item.windows) > 1 for item in parsed),
    }
    turned = sum(item.reversed for item in parsed)
    return {**report, "reversed": turned} if turned else report
