"""Free text to time windows and captions, by the rules of the evaluators of the field.

Each parser says which of its rules matched, so that a report can show how answers were read.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

Window = tuple[float, float]
NUMBER = r"(\d+\.*\d*)"
HYPHEN = re.compile(rf"{NUMBER}\s*-\s*{NUMBER}")
TO = re.compile(rf"{NUMBER}\s+to\s+{NUMBER}")
ALONE = re.compile(r"\b\d+(?:\.\d+)?\b")
CLOCK = re.compile(r"\b(?:(\d{1,2}):)?(\d{1,2}):(\d{2}(?:\.\d+)?)\b")
HOURS = re.compile(r"\b(\d{1,2}):(\d{2}):(\d{2})\b")
PERCENT = re.compile(r"(\d{2}) (?:to|and) (\d{2})")
TIME_WORDS = ("start", "end", "happen")
RADIUS_S = 20.0
"""E.T. Bench turns one time of a caption into a window of twice this length."""


@dataclass(frozen=True)
class Parsed:
    """What was read from one answer."""

    windows: tuple[Window, ...] = ()
    captions: tuple[str, ...] = ()
    """One a window, where the parser reads captions."""
    rule: str | None = None
    """The rule that matched. None: nothing could be read."""


def pairs(values: Sequence[float]) -> list[Window]:
    """The values two by two; an odd last one is dropped."""
    return [(values[i], values[i + 1]) for i in range(0, len(values) - 1, 2)]


def ordered(windows: Sequence[Sequence[float]]) -> tuple[Window, ...]:
    """Every window with its smaller time first."""
    return tuple((min(window), max(window)) for window in windows)


def numbers(matches: Sequence[Sequence[str]]) -> list[Window]:
    """Matched digits as windows.

    Raises:
        ValueError: a token such as ``0..5`` is no number. The official scripts stop there, too.
    """
    return [(float(start), float(end)) for start, end in matches]


def vtimellm_window(text: str) -> Parsed:
    """VTimeLLM grounding: the first "two digits to (or and) two digits", in hundredths of the video.

    Args:
        text: the answer.

    Returns:
        One window of fractions from 0 to 0.99, not sorted, or none.
    """
    match = PERCENT.search(text)
    if not match:
        return Parsed()
    return Parsed(((int(match[1]) / 100, int(match[2]) / 100),), rule="dd to dd")


def vtimellm_events(text: str, duration_s: float) -> Parsed:
    """VTimeLLM dense captioning: the JSON list of an answer as events in seconds.

    The list is the text from the first ``[`` to the last ``]`` of one line. Start and end are hundredths of the video
    at fixed positions of "from dd to dd"; an item that cannot be read ends the list. Neighbours whose captions are
    nearly equal and that touch become one event. The end of an event is (end + 1) hundredths.

    Args:
        text: the answer.
        duration_s: length of the video.
    """
    match = re.search(r"\[.*\]", text)
    try:
        items = json.loads(match[0]) if match else []
    except ValueError:
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


def alike(a: str, b: str) -> bool:
    """True for captions of which more than 98 % agree."""
    return SequenceMatcher(None, a, b).ratio() > 0.98


def etbench_windows(text: str) -> Parsed:
    """E.T. Bench time windows (``tvg_format``), each with the smaller time first.

    "a - b" anywhere; else "a to b"; else the first number of every line that speaks of start, end or happen, two by
    two; else h:mm:ss in the same way.

    Raises:
        ValueError: a token such as ``0..5`` is no number.
    """
    text = text.lower()
    for rule, pattern in (("hyphen", HYPHEN), ("to", TO)):
        matches = pattern.findall(text)
        if matches:
            return Parsed(ordered(numbers(matches)), rule=rule)
    pieces = [piece for piece in re.split(r"[!?\n]", text) if any(word in piece for word in TIME_WORDS)]
    found = [match for piece in pieces if (match := ALONE.search(piece))]
    windows = pairs([float(match[0]) for match in found])
    if windows:
        return Parsed(ordered(windows), rule="sentences")
    found = [match for piece in pieces if (match := HOURS.search(piece))]
    windows = pairs([float(int(h) * 3600 + int(m) * 60 + int(s)) for h, m, s in (match.groups() for match in found)])
    return Parsed(ordered(windows), rule="h:mm:ss") if windows else Parsed()


def etbench_events(text: str, official: bool = False) -> Parsed:
    """E.T. Bench captions with windows (``dvc_format``).

    "a - b" pairs with the text between them as captions; else "start time: .. end time: .. description: ..."; else the
    first line (or sentence) with a time in front of the word seconds. Pieces of up to five characters are no captions.

    Args:
        text: the answer.
        official: cut the text at every place where the digits of a window occur, also inside longer numbers ("1 - 5"
            inside "11 - 50"), which leaves digits in captions.

    Raises:
        ValueError: a token such as ``0..5`` is no number.
    """
    lower = text.lower()
    matches = HYPHEN.findall(lower)
    windows: list[Window] = []
    captions: list[str] = []
    rule = "hyphen"
    if matches:
        windows = numbers(matches)
        between = HYPHEN.sub("\n", lower)
        if official:
            between = lower
            for match in HYPHEN.finditer(lower):
                between = between.replace(match[0], "\n")
        captions = between.replace("seconds", "").split("\n")
    else:
        starts = re.findall(rf"start(?:ing)? time: {NUMBER}", lower)
        ends = re.findall(rf"end(?:ing)? time: {NUMBER}", lower)
        if starts and ends:
            rule = "start time, end time"
            windows = numbers(list(zip(starts, ends, strict=False)))
            captions = re.findall(r"description: (.*)", lower) or re.findall(r"\*\s*(.*)", lower)
    captions = [caption.strip().strip(", ").rstrip() for caption in captions if len(caption) > 5]
    size = min(len(windows), len(captions))
    if size:
        return Parsed(ordered(windows[:size]), tuple(captions[:size]), rule)
    return first_sentence_with_time(text)


def first_sentence_with_time(text: str) -> Parsed:
    """The first line, or sentence of a single line, that holds a time, with the text behind "seconds"."""
    sentences = text.split("\n") if "\n" in text else [part + "." for part in text.split(".") if len(part) > 7]
    for sentence in sentences:
        if len(sentence) <= 7:
            continue
        parts = [part.strip(",") for part in sentence.split("seconds")]
        window = loose_window(parts[0])
        if window:
            return Parsed(ordered([window]), (parts[-1].strip(),), "first sentence")
    return Parsed()


def loose_window(text: str) -> Window | None:
    """A window from "a - b", two numbers, or one number with 20 s around it (40 s after it near the start).

    Text with one or two colons, clock times, is not understood.
    """
    match = HYPHEN.search(text)
    if match:
        try:
            return numbers([match.groups()])[0]
        except ValueError:
            return None
    if text.count(":") in (1, 2):
        return None
    try:
        values = [round(float(value), 2) for value in re.findall(r"\d+\.*\d*(?!\.)", text)]
    except ValueError:
        return None
    if len(values) == 1:
        time = values[0]
        return (time - RADIUS_S, time + RADIUS_S) if time > RADIUS_S else (time, time + 2 * RADIUS_S)
    return (values[0], values[1]) if len(values) == 2 else None


def timelens_windows(text: str, training: bool = False) -> Parsed:
    """TimeLens ``extract_time``; the windows are not sorted.

    Clock times (mm:ss, h:mm:ss) two by two; else "a - b"; else "a to b"; else all numbers two by two.

    Args:
        text: the answer.
        training: as in its reward function, every "to" is read as a hyphen first, inside words as well.
    """
    text = text.lower()
    if training:
        text = text.replace("to", "-")
    clocks = [int(h or 0) * 3600 + int(m) * 60 + float(s) for h, m, s in CLOCK.findall(text)]
    if len(clocks) > 1:
        return Parsed(tuple(pairs(clocks)), rule="clock")
    for rule, pattern in (("hyphen", HYPHEN), ("to", TO)):
        matches = pattern.findall(text)
        if matches:
            return Parsed(tuple(numbers(matches)), rule=rule)
    windows = pairs([float(value) for value in ALONE.findall(text)])
    return Parsed(tuple(windows), rule="numbers") if windows else Parsed()


PARSERS = {
    "vtimellm": vtimellm_window,
    "etbench": etbench_windows,
    "timelens": timelens_windows,
    "timelens_training": lambda text: timelens_windows(text, training=True),
}


def parse_report(parsed: Sequence[Parsed]) -> dict[str, dict[str, int] | int]:
    """How answers were read: how often each rule matched, how many answers failed or held several windows."""
    rules = [item.rule or "unparsed" for item in parsed]
    return {
        "rules": {rule: rules.count(rule) for rule in sorted(set(rules))},
        "several_windows": sum(len(item.windows) > 1 for item in parsed),
    }
