"""Times that are said without numbers or in parts of the video: "to the end", "the first 5 seconds", "30 fps"."""

import re

from metrics.benchmarks.reading.ranges import Found, Scale
from metrics.benchmarks.reading.vocabulary import UNITS

VIDEO = r"(?:video|clip|footage|film|movie|recording|sequence)"
OF_VIDEO = rf"(?:\s+of\s+(?:the\s+)?{VIDEO})"
NUMBER = r"\d{1,9}(?:\.\d{1,9})?"
RATE = re.compile(rf"(?<![\d.])({NUMBER})\s?(?:fps\b|frames?\s?(?:per|/|a)\s?s(?:ec(?:ond)?)?\b|hz\b)")
TO_END = re.compile(
    r"(?P<join>\b(?:to|until|till|through|up to)|[-~\u2192])\s*(?:the\s+)?(?:very\s+)?(?:end|last frame)"
    rf"(?:{OF_VIDEO}|(?=\s*(?:[.,;!)\n]|$)))"
    r"|(?P<onwards>(?<=[\ds])\s+(?:and\s+)?onwards?\b)"
    r"|(?P<east>\u5230(?:\u89c6\u9891)?(?:\u7ed3\u675f|\u7ed3\u5c3e|\u672b\u5c3e|\u6700\u540e))"
)
FROM_START = re.compile(
    rf"\b(?:from|at)\s+(?:the\s+)?(?:very\s+)?(?:beginning|start){OF_VIDEO}?,?\s+"
    r"(?=(?:up )?(?:to|until|till|through)\b|[-~\u2192])"
)
PART = re.compile(rf"\b(first|opening|initial|last|final|closing)\s+({NUMBER})[\s-]?([a-z]+|%)")
WHOLE = re.compile(
    rf"\b(?:whole|entire|full|complete)\s+(?:\w+\s+)?{VIDEO}\b|\bthroughout\b|\bduring the {VIDEO}\W*$"
    r"|\bfrom (?:the )?(?:beginning|start) to (?:the )?end\b|\u6574\u4e2a\u89c6\u9891|\u5168\u7a0b"
)
FRAMES_ASIDE = re.compile(r"\((?:at |~ ?)?frames? #?\d{1,9}(?: ?(?:-|to) ?\d{1,9})?\)")
CORRECTED = re.compile(
    r"\bnot (?:at|from|between|during|in) [^,;.\n]{0,40}\d[^,;\n]{0,40}[,;] ?(?:but|rather|instead)\b"
)
RELATIVE = re.compile(
    r"\b(?:relative|normali[sz]ed|fractions?|proportions?)\b"
    rf"|\bof the (?:total |whole |entire |full )?{VIDEO}(?:'s)? (?:length|duration)\b"
)


def without_rate(text: str) -> tuple[str, float | None]:
    """The text without "at 30 fps", and the rate that it names."""
    found = RATE.search(text)
    return (RATE.sub(" ", text), float(found[1]) or None) if found else (text, None)


def without_asides(text: str) -> str:
    """The text without frame numbers in brackets, and without a time that is denied ("not at 3 s, but ..")."""
    return CORRECTED.sub(" ", FRAMES_ASIDE.sub(" ", text))


def edges(text: str, duration_s: float | None) -> str:
    """The text with seconds for "from the beginning" and, where the length of the video is known, "to the end"."""
    text = FROM_START.sub("from 0 seconds ", text)
    if duration_s is None:
        return text
    return TO_END.sub(f" to {duration_s:.9g} seconds ", text)


def in_words(text: str, scale: Scale) -> tuple[float, float] | None:
    """The window of "the first 5 seconds", "the last 10 seconds" or "the whole video"; None for other words."""
    part = PART.search(text)
    unit = UNITS.get(part[3]) if part else None
    if part and unit in ("s", "min", "h", "ms", "%"):
        length = scale.seconds(float(part[2]), unit) if unit != "%" or scale.duration_s else None
        if length is not None and part[1] in ("first", "opening", "initial"):
            return 0.0, length
        if length is not None and scale.duration_s:
            return max(scale.duration_s - length, 0.0), scale.duration_s
    if scale.duration_s and WHOLE.search(text):
        return 0.0, scale.duration_s
    return None


def relative(found: Found, text: str, scale: Scale) -> Found:
    """Windows of numbers up to 1 that the text calls relative, in seconds; others as they are."""
    if not (found.bare and scale.duration_s and RELATIVE.search(text)):
        return found
    if all(0 <= time <= 1 for window in found.windows for time in window):
        found.windows = [(start * scale.duration_s, end * scale.duration_s) for start, end in found.windows]
    return found
