"""Free text to captions with time windows in seconds: lists, lines and sentences that say when and what."""

import re
from collections.abc import Iterator, Mapping

from metrics.benchmarks.answers import Parsed, Window, ordered
from metrics.benchmarks.reading import normalising, phrases
from metrics.benchmarks.reading.lists import decoded, plain_name, segments
from metrics.benchmarks.reading.moments import read_part
from metrics.benchmarks.reading.numerals import spelled_out
from metrics.benchmarks.reading.ranges import Found, Scale, read_ranges
from metrics.benchmarks.reading.tokens import tokens
from metrics.spans import is_number

CAPTION_KEYS = (
    "caption",
    "description",
    "event",
    "label",
    "text",
    "sentence",
    "action",
    "activity",
    "title",
    "step",
    "name",
)
WORDS = r"(?:seconds?|secs?|s|from|between|at|(?:start|end)(?:ing|s)?(?: time| at)?|description|caption|event)"
EDGES = re.compile(rf"^(?:[\s,:;.|()\[\]=>-]|{WORDS}\b)+|(?:[\s,:;|(\[=-]|\b{WORDS}(?=[\s:]*$))+$")
"""What stands around a caption and does not belong to it."""
SHORTEST = 3
"""Letters of a caption."""
RADIUS_S = 20.0
"""A line with one time is an event around it, as E.T. Bench reads it."""

Event = tuple[Window, str]


def read_events(text: str, duration_s: float | None = None) -> Parsed:
    """The events of an answer, in the order said.

    Objects with times and a caption; else lines, each with its time and words; else windows in a running text, with
    the words behind each of them (or in front, where nothing stands behind the last one). A line with one time only
    is an event from 20 s before to 20 s after it, near the start of the video the 40 s behind it.

    Args:
        text: the answer.
        duration_s: length of the video; None: unknown.

    Returns:
        Windows and captions, as many; rule ``unreadable`` where there is no event.
    """
    scale = Scale(float(duration_s) if is_number(duration_s) and duration_s > 0 else None)
    part = normalising.answer_part(normalising.plain(text or ""))
    for rule, reader in (("objects", of_objects), ("lines", of_lines), ("text", of_text)):
        events = [(ordered(window), caption) for window, caption in reader(part, scale)]
        if events:
            return Parsed(tuple(event[0] for event in events), tuple(event[1] for event in events), rule)
    return Parsed(rule="unreadable")


def of_objects(text: str, scale: Scale) -> Iterator[Event]:
    """Events from lists of objects such as ``{"start": 3, "end": 7, "caption": ".."}``."""
    for segment in segments(text):
        try:
            value = decoded(segment)
        except (ValueError, RecursionError):
            continue
        for item in value if isinstance(value, list) else [value]:
            if not isinstance(item, Mapping):
                continue
            captions = [item[key] for key in item if plain_name(key) in CAPTION_KEYS and isinstance(item[key], str)]
            times = {key: content for key, content in item.items() if content not in captions}
            windows = read_part(str(times), scale).windows
            if len(windows) == 1 and captions:
                yield windows[0], captions[0].strip()


def of_lines(text: str, scale: Scale) -> Iterator[Event]:
    """Events from lines, if several of them have a time."""
    events = []
    for line in text.split("\n"):
        line, found = read_line(line, scale)
        if len(found.windows) > 1:
            return
        if found.windows and found.places:
            window, place = found.windows[0], found.places[0]
        elif len(found.points) == 1 and (times := [token for token in tokens(line) if token.is_time]):
            window, place = around(found.points[0]), times[0].place
        else:
            continue
        caption = clean(line[: place[0]]) + " " + clean(line[place[1] :])
        if len(caption.strip()) >= SHORTEST:
            events.append((window, caption.strip()))
    yield from events


def of_text(text: str, scale: Scale) -> Iterator[Event]:
    """Events from windows in a running text."""
    text, found = read_line(text, scale)
    places = found.places if len(found.places) == len(found.windows) else []
    edges = [0, *(edge for place in places for edge in place), len(text)]
    pieces = [clean(text[edges[i] : edges[i + 1]].replace("\n", " ")) for i in range(0, len(edges), 2)]
    captions = pieces[1:] if pieces[-1:] != [""] else pieces[:-1]
    for window, caption in zip(found.windows if places else [], captions, strict=False):
        if len(caption) >= SHORTEST:
            yield window, caption


def read_line(line: str, scale: Scale) -> tuple[str, Found]:
    """A text without markup, and the windows in it."""
    text, rate = phrases.without_rate(spelled_out(normalising.without_markup(line)))
    text = phrases.edges(text, scale.duration_s)
    return text, read_ranges(tokens(text), Scale(scale.duration_s, rate))


def clean(text: str) -> str:
    """A caption without the marks and small words that led to its time."""
    return EDGES.sub("", text.strip()).strip()


def around(time: float) -> Window:
    """The window of an event of which one time is known."""
    return (time - RADIUS_S, time + RADIUS_S) if time > RADIUS_S else (time, time + 2 * RADIUS_S)
