"""The windows of an answer, from its parts: lists and objects, tables, sentences."""

from metrics.benchmarks.answers import ordered
from metrics.benchmarks.reading import normalising, phrases
from metrics.benchmarks.reading.lists import ListReader, read_lists, read_table
from metrics.benchmarks.reading.negations import contradicted, denies, refuses, without_time
from metrics.benchmarks.reading.numerals import spelled_out
from metrics.benchmarks.reading.ranges import Found, Scale, read_ranges
from metrics.benchmarks.reading.tokens import tokens
from metrics.spans import is_number


def moments(text: str, duration_s: float | None) -> dict:
    """The fields of what ``metrics.benchmarks.answers.read_moments`` gives."""
    scale = Scale(float(duration_s) if is_number(duration_s) and duration_s > 0 else None)
    part = normalising.answer_part(normalising.plain(text))
    last = normalising.conclusion(part)
    found = read_part(last, scale)
    if not found.windows and last is not part:
        whole = read_part(part, scale)
        found = whole if whole.windows or not found.points else found
    if found.windows:
        windows = tuple(dict.fromkeys(map(ordered, found.windows)))
        turned = sum(start > end for start, end in dict.fromkeys(found.windows))
        return {"windows": windows, "rule": found.rule, "reversed": turned}
    rule = kind(part, found)
    return {"rule": rule, "points": tuple(found.points) if rule == "point" else ()}


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
    text, rate = phrases.without_rate(spelled_out(phrases.without_asides(text)))
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
