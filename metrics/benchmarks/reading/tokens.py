"""The tokens of a plain text: times with their units, and the words between them with the parts they play."""

import re
from dataclasses import dataclass, field, replace

from metrics.benchmarks.reading import vocabulary as words

ORDINAL = re.compile(r"(?:st|nd|rd|th|x|p|k|fps|hz|am|pm|d)\b")
ROLES = {
    "join": words.JOIN, "and": words.AND, "between": words.BETWEEN, "after_between": words.AFTER_BETWEEN,
    "from": words.FROM, "start": words.START, "end": words.END, "length": words.LENGTH, "long": words.LONG,
    "at": words.AT, "filler": words.FILLER,
}  # fmt: skip
PARTS: dict[str, frozenset[str]] = {}
for _role, _words in ROLES.items():
    for _word in _words:
        PARTS[_word] = PARTS.get(_word, frozenset()) | {_role}
for _word in words.UNITS:
    PARTS[_word] = PARTS.get(_word, frozenset()) | {"filler"}
KNOWN = "|".join(
    sorted((w for w in PARTS if w[0] > "\u2e80" or not w.isalpha() and w[0].isalpha()), key=len, reverse=True)
)
"""Words that a pattern for words would miss: those of scripts without blanks, and those with vowel signs."""
EASTERN = tuple(word for names in words.EASTERN_UNITS.values() for word in names)
LONGEST = 9
"""Digits in front of the point. No video is longer."""
EAST = "\u2e80-\u9fff\uac00-\ud7a3"
"""Scripts that put no blank between words."""
SPACED_UNITS = "|".join(sorted((re.escape(w) for w in words.UNITS if w not in EASTERN and w != "%"), key=len,
                               reverse=True))  # fmt: skip
UNIT = (
    rf"(?:[ ]?(?P<cjk>{'|'.join(sorted(EASTERN, key=len, reverse=True))})"
    rf"|[ ]?(?P<percent>%)|(?:[ ]|-(?=[a-z]{{3}}))?(?P<unit>{SPACED_UNITS})(?![^\W\d_])\.?)?"
)
CLOCK = r"(?:(?P<h>\d{1,3}):)?(?P<m>\d{1,3}):(?P<s>\d{1,2}(?:[.,]\d{1,9})?)(?!\d|:\d)"
NUMBER = r"(?:\d+(?:[.,]\d+)*|\.\d+)(?:e[+-]?\d{1,2}(?![\w.]))?"
TOKEN = re.compile(
    rf"""
    (?P<clock>(?<![\d:.]){CLOCK})(?:\s?(?:min(?:utes)?|mins|s(?:ec(?:onds?|s)?)?|h(?:ours?|rs?)?)(?![^\W\d_]))?
    | (?P<broken>\d+(?:\.\d+)?\.\.\d[\d.]*)
    | (?P<number>(?<!\d)(?<!\d\.){NUMBER}){UNIT}
    | (?P<known>{KNOWN})
    | (?P<word>[^\W\d_{EAST}]+(?:['_][^\W\d_{EAST}]+)*|[{EAST}])
    | (?P<dots>\.\.+|\u2026)
    | (?P<newline>\n)
    | (?P<mark>[^\s\w])
    """,
    re.VERBOSE,
)
NOTHING: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Token:
    """A word or mark, or a time."""

    text: str
    parts: frozenset[str] = NOTHING
    """The parts that the word can play: keys of ``ROLES``."""
    value: float | None = None
    """Of a time, in its unit; seconds for clock times."""
    unit: str | None = None
    """s, min, h, ms, clock, % or frame; None: a bare number."""
    whole: bool = False
    """A number without a decimal point."""
    place: tuple[int, int] = field(default=(0, 0), compare=False)
    """Of a time: where it begins and ends in the text."""

    @property
    def is_time(self) -> bool:
        """True for a number or a clock time."""
        return self.value is not None


def tokens(text: str) -> list[Token]:
    """The tokens of a plain text, in order. One pass; numbers that count something else are left out."""
    found: list[Token] = []
    end = 0
    for match in TOKEN.finditer(text):
        if match.start() < end:
            continue
        token = read(match, text, found)
        end = match.end()
        if token is None:
            continue
        if token.is_time and compound(found, token):
            continue
        found.append(token)
    return found


def read(match: re.Match, text: str, before: list[Token]) -> Token | None:
    """The token of a match; None for what says nothing."""
    if match["clock"]:
        hours, minutes, seconds = int(match["h"] or 0), int(match["m"]), float(match["s"].replace(",", "."))
        if seconds >= 60 or (match["h"] and minutes >= 60):
            return Token(match["clock"], frozenset({"other"}))
        return Token(match["clock"], value=hours * 3600 + minutes * 60 + seconds, unit="clock", place=match.span())
    if match["number"]:
        return number(match, text, before)
    if match["broken"]:
        return Token(match["broken"], frozenset({"other"}))
    word = match["known"] or match["word"] or ("..." if match["dots"] else match["newline"] or match["mark"])
    if word == "\n":
        return Token("\n", frozenset({"newline"}))
    return Token(word, PARTS.get(word, frozenset({"mark"} if match["mark"] else {"other"})))


def number(match: re.Match, text: str, before: list[Token]) -> Token | None:
    """A number with its unit, its sign and its comma understood; None for an ordinal, a name or too many digits."""
    digits = match["number"]
    unit = words.UNITS.get(match["unit"] or match["cjk"] or ("%" if match["percent"] else ""))
    last = before[-1] if before else Token("")
    place = match.start()
    value = as_float(digits)
    if value is None or glued(text, place, last) or (unit is None and ORDINAL.match(text, match.end())):
        return Token(digits, frozenset({"other"}))
    if last.text == "-" and text[place - 1] == "-" and is_sign(before, text, place - 1):
        before.pop()
        value = -value
    elif unit is None and len(last.text) > 1 and words.UNITS.get(last.text) in ("s", "min", "frame"):
        unit = words.UNITS[last.text]  # "second 12"
    whole = "." not in digits and "," not in digits
    return Token(digits, value=value, unit=unit, whole=whole, place=match.span())


def glued(text: str, place: int, last: Token) -> bool:
    """True for digits that belong to a name, such as "gpt4" or "#3"."""
    if last.text == "#":
        return True
    named = place and text[place - 1].isalpha() and text[place - 1] < "\u2e80" and not last.is_time
    return bool(named) and not last.parts & {"join", "from", "between", "start", "end"}


def is_sign(before: list[Token], text: str, place: int) -> bool:
    """True for a dash that makes a number negative: nothing to join stands in front of it."""
    if place and not (text[place - 1].isspace() or text[place - 1] in "([,:="):
        return False
    return not (len(before) > 1 and (before[-2].is_time or before[-2].text in ")]"))


def as_float(digits: str) -> float | None:
    """The value of digits with points and commas; None for what is no time.

    A comma is that of a decimal, unless three digits follow it behind one to three others ("1,200").
    """
    mantissa, _, exponent = digits.partition("e")
    if "," in mantissa:
        head, *rest = mantissa.split(",")
        if (
            all(len(part) == 3 and part.isdigit() for part in rest)
            and head.isdigit()
            and head.lstrip("0")
            and len(head) <= 3
        ):
            mantissa = head + "".join(rest)
        elif len(rest) == 1 and "." not in mantissa:
            mantissa = f"{head}.{rest[0]}"
        else:
            return None
    if mantissa.count(".") > 1 or len(mantissa.partition(".")[0]) > LONGEST:
        return None
    return float(f"{mantissa}e{exponent}" if exponent else mantissa)


def compound(found: list[Token], token: Token) -> bool:
    """Join "1 minute" and "5 seconds" to one time, in place; True where that was done."""
    order = ("h", "min", "s", "ms")
    place = len(found) - 1
    while place >= 0 and found[place].text in (",", "and", "und", "y", "et", "e", "и"):
        place -= 1
    if place < 0 or len(found) - place > 2 or not found[place].is_time or found[place].unit not in order[:2]:
        return False
    last = found[place]
    if token.unit not in order or order.index(token.unit) <= order.index(last.unit) or token.value < 0:
        return False
    limit = 60 if token.unit in ("min", "s") else 1000
    if token.value >= limit or last.value != int(last.value) and last.unit == token.unit:
        return False
    total = last.value * words.SECONDS_IN[last.unit] + token.value * words.SECONDS_IN[token.unit]
    unit = token.unit if token.unit in order[:2] else "s"
    found[place:] = [
        replace(last, text=f"{last.text} {token.text}", value=total / words.SECONDS_IN[unit], unit=unit, whole=False)
    ]
    return True
