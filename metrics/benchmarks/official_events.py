"""Free text to captions with time windows, as VTimeLLM and E.T. Bench read it."""

import json
import re
from difflib import SequenceMatcher

from metrics.benchmarks.answers import Parsed, Window
from metrics.benchmarks.official_windows import HYPHEN, NUMBER, in_order, numbers

RADIUS_S = 20
"""E.T. Bench turns one time of a caption into a window of twice this length."""
CLOCK = re.compile(r"(?<!\d)\d+(?:\.+\d*)?:\d+(?:\.+\d*)?")
TIMES = re.compile(r"\d+(?:\.+\d*)?(?!\.)")


def vtimellm_events(text: str, duration_s: float) -> Parsed:
    """VTimeLLM dense captioning: the JSON list of an answer as events in seconds.

    The list is the text from the first ``[`` to the last ``]`` of one line. Start and end are hundredths of the video
    at fixed positions of "from dd to dd"; an item that cannot be read ends the list. Neighbours whose captions are
    nearly equal and that touch become one event. The end of an event is (end + 1) hundredths.

    Args:
        text: the answer.
        duration_s: length of the video.
    """
    try:
        items = json.loads(listed(text))
    except (ValueError, RecursionError):
        items = []
    events: list[list] = []
    for item in items:
        try:
            caption, times = item["event"], item["timestamps"]
            start, end = int(times[5:7]), int(times[-2:])
            if not isinstance(caption, str):
                break
        except (KeyError, TypeError, ValueError):
            break
        if events and -1 <= start - events[-1][1] <= 1 and alike(events[-1][2], caption):
            events[-1][1] = end
        else:
            events.append([start, end, caption])
    windows = tuple((start * duration_s / 100, (end + 1) * duration_s / 100) for start, end, _ in events)
    return Parsed(windows, tuple(caption for *_, caption in events), "json list" if events else None)


def listed(text: str) -> str:
    """The text from the first ``[`` to the last ``]`` of the first line that holds both; "[]" where none does."""
    for line in text.split("\n"):
        start, end = line.find("["), line.rfind("]")
        if -1 < start < end:
            return line[start : end + 1]
    return "[]"


def alike(a: str, b: str) -> bool:
    """True for captions of which more than 98 % agree."""
    return SequenceMatcher(None, a, b).ratio() > 0.98


def etbench_events(text: str) -> Parsed:
    """E.T. Bench captions with windows (``dvc_format``).

    "a - b" pairs with the text between them as captions, cut at every place where the digits of a window occur, also
    inside longer numbers ("1 - 5" inside "11 - 50"); else "start time: .. end time: .. description: ..."; else the
    first line (or sentence) with a time in front of the word seconds. Pieces of up to five characters are no captions.
    An answer with "start time 1, end time 5", or with a token such as ``0..5`` in a window, counts as unreadable.

    Args:
        text: the answer.
    """
    lower = text.lower()
    try:
        windows, captions, rule = paragraph(lower)
    except ValueError:
        return Parsed()
    captions = [caption.strip().strip(", ").rstrip() for caption in captions if len(caption) > 5]
    size = min(len(windows), len(captions))
    if size:
        return Parsed(in_order(windows[:size]), tuple(captions[:size]), rule)
    return first_sentence_with_time(text)


def paragraph(lower: str) -> tuple[list[Window], list[str], str]:
    """All windows of a lower-case text with the pieces that may be their captions, and the rule.

    Raises:
        ValueError: a token is no number, or the wording is one at which the official code stops.
    """
    if matches := list(HYPHEN.finditer(lower)):
        between = lower
        for match in matches:
            between = between.replace(match[0], "\n")
        return numbers([match.groups() for match in matches]), between.replace("seconds", "").split("\n"), "hyphen"
    starts = re.findall(rf"start(?:ing)? time: {NUMBER}", lower)
    ends = re.findall(rf"end(?:ing)? time: {NUMBER}", lower)
    if starts and ends:
        captions = re.findall(r"description: (.*)", lower) or re.findall(r"\*\s*(.*)", lower)
        return numbers(list(zip(starts, ends, strict=False))), captions, "start time, end time"
    if re.search(rf"start time {NUMBER}, end time {NUMBER}", lower):
        raise ValueError("'start time .., end time ..'")
    return [], [], ""


def first_sentence_with_time(text: str) -> Parsed:
    """The first line, or sentence of a single line, that holds a time, with the text behind "seconds"."""
    sentences = text.split("\n") if "\n" in text else [part + "." for part in text.split(".") if len(part) > 7]
    for sentence in sentences:
        if len(sentence) <= 7:
            continue
        parts = [part.strip(",") for part in sentence.split("seconds")]
        try:
            window = loose_window(parts[0])
        except (ValueError, IndexError):
            continue
        return Parsed(in_order([window]), (parts[-1].strip(),), "first sentence")
    return Parsed()


def loose_window(text: str) -> Window:
    """A window from "a - b", one or two m:ss, two numbers, or one time with 20 s around it (near the start behind it).

    Raises:
        ValueError, IndexError: nothing of the kind stands there.
    """
    found = [match[0] for match in HYPHEN.finditer(text)]
    if not found and text.count(":") in (1, 2):
        clocks = [clock(match) for match in CLOCK.findall(text)]
        if text.count(":") == 2 and len(clocks) != 2:
            raise ValueError("two colons, but not two clock times")
        found = [around(clocks[0])] if text.count(":") == 1 else [f"{clocks[0]} - {clocks[1]}"]
    if not found:
        found = TIMES.findall(text)
        if len(found) == 1:
            found = [around(float(found[0]))]
        elif len(found) == 2:
            found = [" - ".join(found)]
    start, end = found[0].split("-")[:2]
    return round(float(start), 2), round(float(end), 2)


def clock(text: str) -> int:
    """Seconds of "m:ss" with whole numbers.

    Raises:
        ValueError: they are not whole.
    """
    minutes, seconds = map(int, text.split(":"))
    return 60 * minutes + seconds


def around(time: float) -> str:
    """A window around a time, as "start - end"."""
    return f"{time - RADIUS_S} - {time + RADIUS_S}" if time > RADIUS_S else f"{time} - {time + 2 * RADIUS_S}"
