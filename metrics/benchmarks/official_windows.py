"""Free text to time windows as the evaluators of the field read it, slips included. Our own reader: answers.py.

Every pattern here starts at the first of several digits, so that long numbers cost no more than their length.
"""

import re
from collections.abc import Callable, Sequence

from metrics.benchmarks.answers import Parsed, Window, ordered

NUMBER = r"(?<!\d)(\d++(?:\.++\d*+)?)"
"""E.T. Bench: also "12." and "12..5"."""
HYPHEN = re.compile(rf"{NUMBER}\s*-\s*{NUMBER}")
TO = re.compile(rf"{NUMBER}\s* to \s*{NUMBER}")
SIMPLE = r"(?<!\d)(\d++(?:\.\d*+)?)"
"""TimeLens: digits with one point."""
TIMELENS_RANGES = (
    ("hyphen", re.compile(rf"{SIMPLE}\s*-\s*{SIMPLE}")),
    ("to", re.compile(rf"{SIMPLE}\s+to\s+{SIMPLE}")),
)
ALONE = re.compile(r"\b\d+(?:\.\d+)?\b")
CLOCK = re.compile(r"\b(?:(\d{1,2}):(\d{2})|(\d{1,2})):(\d{2}(?:\.\d+)?)\b")
HOURS = re.compile(r"\b(\d{1,2}):(\d{2}):(\d{2})\b")
HUNDREDTHS = re.compile(r"(\d{2}) (?:to|and) (\d{2})")
TIME_WORDS = ("start", "end", "happen")
PLAIN = r"(?<!\d)(\d++(?:\.\d++)?)"
CHARADES_EXAMPLE = "a specific example is : 20.8 - 30.0 seconds"
CHARADES_CLOCK = r"\b(\d{1,2}:\d{2}(?::\d{2})?)"
CHARADES_RANGES = (
    ("clock range", re.compile(rf"{CHARADES_CLOCK}\s*[–-]\s*(\d{{1,2}}:\d{{2}}(?::\d{{2}})?)\b")),
    ("hyphen", re.compile(rf"{PLAIN}\s*[–-]\s*{PLAIN}")),
)
CHARADES_TIMES = (
    ("clocks", re.compile(rf"{CHARADES_CLOCK}\b"), 0),
    ("sentences", re.compile(r"\b(\d+(?:\.\d+)?)\b"), 1),
)
CHARADES_LAST = re.compile(rf"{PLAIN}\s*+(?:s\s*+)?[–-]\s*{PLAIN}")
EXTREME = re.compile(rf"{PLAIN}\s*(?:-|to|~|–|—)\s*{PLAIN}")
OMTG_TIME = r"(?<!\d)(\d++(?::\d++(?:\.\d++)?)?(?:\.\d++)?)"
OMTG_TAG = re.compile(r"<time>(\S+?)\s*-\s*(\S+?)\s*seconds?</time>", re.IGNORECASE)
OMTG_SECONDS = re.compile(rf"{OMTG_TIME}\s*-\s*{OMTG_TIME}\s*seconds?", re.IGNORECASE)
OMTG_OTHERS = (
    re.compile(r"starts\s+at\s+(\S+?)(?:\s+seconds?)?\s+and\s+ends\s+at\s+(\S)", re.IGNORECASE),
    re.compile(r"start\s+is\s+at\s+(\S+?)(?:\s+seconds?)?\s+and\s+(?:the\s+)?end\s+is\s+at\s+(\S)", re.IGNORECASE),
    re.compile(rf"{PLAIN}\s+to\s+{PLAIN}", re.IGNORECASE),
    re.compile(rf"{PLAIN}\s*-\s*(\d+(?:\.\d+)?)(?!\s*(?:seconds?|</time>))", re.IGNORECASE),
    re.compile(r"\[\s*(\d+(?:\.\d+)?)\s*,\s*(\d+(?:\.\d+)?)\s*\]"),
)
SIGNED = r"((?:-|(?<!\d))\d++(?:\.\d++)?)"
VUE_RANGES = (
    ("brackets", re.compile(rf"\[\s*{SIGNED}\s*,\s*{SIGNED}\s*\]")),
    ("hyphen or to", re.compile(rf"{SIGNED}\s*(?:-|to)\s*{SIGNED}")),
)


def pairs(values: Sequence[float]) -> list[Window]:
    """The values two by two; an odd last one is dropped."""
    return [(values[i], values[i + 1]) for i in range(0, len(values) - 1, 2)]


def in_order(windows: Sequence[Sequence[float]]) -> tuple[Window, ...]:
    """Every window with its smaller time first."""
    return tuple(map(ordered, windows))


def numbers(matches: Sequence[Sequence[str]]) -> list[Window]:
    """Matched digits as windows.

    Raises:
        ValueError: a token such as ``0..5`` is no number. The official scripts stop there, too.
    """
    return [(float(start), float(end)) for start, end in matches]


def clock_seconds(text: str) -> float:
    """Seconds of "m:ss" or "h:mm:ss".

    Raises:
        ValueError: a part is no number, or there are more than three.
    """
    parts = [float(part) for part in text.strip().split(":")]
    if len(parts) > 3:
        raise ValueError(f"no time: {text!r}")
    return sum(value * 60**i for i, value in enumerate(reversed(parts)))


def vtimellm_window(text: str) -> Parsed:
    """VTimeLLM grounding: the first "two digits to (or and) two digits", in hundredths of the video.

    Args:
        text: the answer.

    Returns:
        One window of fractions from 0 to 0.99, not sorted, or none.
    """
    match = HUNDREDTHS.search(text)
    if not match:
        return Parsed()
    return Parsed(((int(match[1]) / 100, int(match[2]) / 100),), rule="dd to dd")


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
            return Parsed(in_order(numbers(matches)), rule=rule)
    pieces = [piece for piece in re.split(r"[!?\n]", text) if any(word in piece for word in TIME_WORDS)]
    found = [match for piece in pieces if (match := ALONE.search(piece))]
    windows = pairs([float(match[0]) for match in found])
    if windows:
        return Parsed(in_order(windows), rule="sentences")
    found = [match for piece in pieces if (match := HOURS.search(piece))]
    windows = pairs([float(int(h) * 3600 + int(m) * 60 + int(s)) for h, m, s in (match.groups() for match in found)])
    return Parsed(in_order(windows), rule="h:mm:ss") if windows else Parsed()


def timelens_windows(text: str, training: bool = False) -> Parsed:
    """TimeLens ``extract_time``, which lmms-eval's timelens tasks use as well; the windows are not sorted.

    Clock times (mm:ss, h:mm:ss) two by two; else "a - b"; else "a to b"; else all numbers two by two.

    Args:
        text: the answer.
        training: as in its reward function, every "to" is read as a hyphen first, inside words as well.
    """
    text = text.lower()
    if training:
        text = text.replace("to", "-")
    clocks = [int(h or 0) * 3600 + int(m or minutes) * 60 + float(s) for h, m, minutes, s in CLOCK.findall(text)]
    if len(clocks) > 1:
        return Parsed(tuple(pairs(clocks)), rule="clock")
    for rule, pattern in TIMELENS_RANGES:
        matches = pattern.findall(text)
        if matches:
            return Parsed(tuple(numbers(matches)), rule=rule)
    windows = pairs([float(value) for value in ALONE.findall(text)])
    return Parsed(tuple(windows), rule="numbers") if windows else Parsed()


def charades_window(text: str) -> Parsed:
    """lmms-eval's task ``temporal_grounding_charades``: one window, with the smaller time first.

    Every "to" is read as a hyphen, inside words as well. In the pieces (split at !, ? and line breaks) that speak of
    start, end or happen, or else in all of them: a range of clock times, a range of numbers, clock times two by two,
    the first number of each piece two by two, a range with "s" behind its numbers.
    """
    text = text.lower().replace(CHARADES_EXAMPLE, "").replace("to", "-")
    pieces = re.split(r"[!?\n]", text)
    pieces = [piece for piece in pieces if any(word in piece for word in TIME_WORDS)] or pieces
    for rule, pattern in CHARADES_RANGES:
        for piece in pieces:
            if matches := pattern.findall(piece):
                return Parsed(in_order([tuple(map(clock_seconds, matches[0]))]), rule=rule)
    for rule, pattern, most in CHARADES_TIMES:
        found = [time for piece in pieces for time in pattern.findall(piece)[: most or None]]
        if windows := pairs([clock_seconds(time) for time in found]):
            return Parsed(in_order(windows[:1]), rule=rule)
    for piece in pieces:
        if match := CHARADES_LAST.search(piece):
            return Parsed(in_order(numbers([match.groups()])), rule="hyphen with s")
    return Parsed()


def extreme_window(text: str) -> Parsed:
    """lmms-eval's task ``extremewhenbench``: the last "a - b", "a to b" or "a ~ b", with the smaller time first."""
    matches = EXTREME.findall(text)
    return Parsed(in_order(numbers(matches[-1:])), rule="last range") if matches else Parsed()


def omtg_windows(text: str) -> Parsed:
    """VLMEvalKit's OMTGBench: all windows that end after they start, by start.

    Those in ``<time>`` tags; else "a - b seconds"; else, together, "starts at .. and ends at ..", "start is at .. and
    end is at .." (of which only the first character of the end is read), "a to b", "a - b" and "[a, b]".
    """

    def valid(matches: Sequence[Sequence[str]]) -> list[Window]:
        windows = []
        for start, end in matches:
            try:
                windows.append((clock_seconds(start), clock_seconds(end)))
            except ValueError:
                continue
        return [(start, end) for start, end in windows if end > start]

    for rule, pattern in (("tag", OMTG_TAG), ("seconds", OMTG_SECONDS)):
        if windows := valid(pattern.findall(text)):
            return Parsed(tuple(sorted(windows, key=lambda window: window[0])), rule=rule)
    windows = [window for pattern in OMTG_OTHERS for window in valid(pattern.findall(text))]
    windows = dict.fromkeys(sorted(windows, key=lambda window: window[0]))
    return Parsed(tuple(windows), rule="others") if windows else Parsed()


def vue_windows(text: str) -> Parsed:
    """TimeLens2's reader of spans for VUE-TR, MomentSeeker and Ego4D-NLQ, in the order said.

    "[a, b]" pairs; else "a - b" or "a to b"; else all numbers two by two. A sign counts.
    """
    for rule, pattern in VUE_RANGES:
        if matches := pattern.findall(text.lower()):
            return Parsed(tuple(numbers(matches)), rule=rule)
    windows = pairs([float(value) for value in re.findall(SIGNED, text)])
    return Parsed(tuple(windows), rule="numbers") if windows else Parsed()


PARSERS: dict[str, Callable[[str], Parsed]] = {
    "vtimellm": vtimellm_window,
    "etbench": etbench_windows,
    "timelens": timelens_windows,
    "timelens_training": lambda text: timelens_windows(text, training=True),
    "lmms_eval_charades": charades_window,
    "lmms_eval_extremewhenbench": extreme_window,
    "vlmevalkit_omtg": omtg_windows,
    "timelens2_vue": vue_windows,
}
