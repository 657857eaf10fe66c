"""Plain text of an answer: one way to write a digit, a dash and a quotation mark, and only the part that answers."""

import html
import re
import unicodedata
from collections.abc import Callable

DASHES = dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe58\ufe63\uff0d\u2500\u30fc"), "-")
TILDES = dict.fromkeys(map(ord, "\u02dc\u223c\u301c\uff5e\u2053"), "~")
ARROWS = dict.fromkeys(map(ord, "\u2192\u21d2\u27a1\u279c\u2794\u27f6\u2794\u279e\u2b95"), "\u2192")
QUOTES = dict.fromkeys(map(ord, "\u2018\u2019\u201b\u02bc\u00b4"), "'") | dict.fromkeys(
    map(ord, "\u201c\u201d\u201e\u201f\u00ab\u00bb\u300c\u300d\u300e\u300f"), '"'
)
PRIMES = {0x2032: "'", 0x2033: '"'}
OTHERS = {0x066B: ".", 0x066C: "", 0xFF0E: ".", 0xFF0C: ",", 0x3001: ",", 0x060C: ",", 0xFF1A: ":", 0xFF1B: ";"}
OTHERS |= {0x3002: ". ", 0xFF01: "!", 0xFF1F: "?", 0xFF08: "(", 0xFF09: ")", 0x3010: "[", 0x3011: "]", 0xFF05: "%"}
OTHERS |= {0xFF3B: "[", 0xFF3D: "]", 0x2236: ":", 0x00D7: "x"}
CHARACTERS = DASHES | TILDES | ARROWS | QUOTES | PRIMES | OTHERS
INVISIBLE = re.compile("[\u200b-\u200f\u2028-\u202e\u2060-\u2064\ufeff\u00ad]")
BLANKS = re.compile(r"[^\S\n]")

THOUGHTS = (
    "think|thinking|thought|thoughts|reasoning|reason|analysis|redacted_thinking|seed:think|scratchpad|reflection"
)
OPENED = re.compile(rf"<\|?(?:{THOUGHTS})\|?>|\[think\]|\u25c1think\u25b7|<\|channel\|>analysis(?:<\|message\|>)?")
CLOSED = re.compile(
    rf"</(?:{THOUGHTS})>|<\|/(?:{THOUGHTS})\|>|\[/think\]|\u25c1/think\u25b7|<\|channel\|>final(?:<\|message\|>)?"
)
ANSWERS = (re.compile(r"<glue>"), re.compile(r"<answer>|<\|begin_of_box\|>"))
ANSWER_ENDS = (re.compile(r"</glue>"), re.compile(r"</answer>|<\|end_of_box\|>"))
BOXED = re.compile(r"\\boxed\s*\{")
TAG = re.compile(r"<(/?)\s*\|?([^\W\d_][\w:.|-]{0,30})\|?\s*/?>")
BRACKETED_TIME = re.compile(r"<\s*(?=[\d.])([^<>\n]{1,40})>")
MARKUP = re.compile(
    r"```\w*|\*\*|__|\\(?:text|mathrm|mathbf|textbf|quad|left|right)\b|\\[,;! ]|[*_`$#{}\\](?![\"'\d])|\*"
)
LABELS = ("start", "begin", "from", "end", "to", "stop", "duration")
NUMBERING = re.compile(
    r"^[^\S\n]*(?:[-+\u2022\u00b7\u25aa\u25cf>][^\S\n]+)?\(?\d{1,2}[.)][^\S\n]+(?![-~\u2192]|to\b)", re.M
)
BULLET = re.compile(r"^[^\S\n]*[-+\u2022\u00b7\u25aa\u25cf>][^\S\n]+", re.M)
NAMED = re.compile(
    r"\b(?:event|moment|segment|clip|scene|instance|occurrence|interval|span|window|part|step|option|shot|phase|"
    r"chapter|"
    r"case|match|query|answer|result|item|no|frame range)s?[^\S\n]{0,2}(?:#|no\.?|number)?[^\S\n]{0,2}\d{1,3}"
    r"(?:[^\S\n]{0,2}[:)\]][^\S\n]|[^\S\n]{0,2}[:)\]-](?=[^\S\n]|$)|(?=[^\S\n]?\())",
    re.M,
)
"""``Event 2:``, ``Moment 1 -``: a name, not a time."""
CONCLUSION = re.compile(
    r"(?:final|correct|right|actual|corrected) (?:answer|span|time|times|interval|window|segment)s?\b|"
    r"^\W{0,4}answer\b\s*[:=]|\btherefore\b|\u6700\u7ec8\u7b54\u6848|\u7b54\u6848\u662f|\u6240\u4ee5",
    re.M,
)
QUOTED = re.compile(r"\"([^\"\n]{1,400})\"|(?<![\w'])'((?:[^'\n]|(?<=\w)'(?=\w)){1,400})'(?![\w'])")


def plain(text: str) -> str:
    """Lower case, ASCII digits of any script, one character a kind of dash, tilde, arrow and quotation mark."""
    text = INVISIBLE.sub("", html.unescape(text)).translate(CHARACTERS)
    text = "".join(map(digit, text)) if not text.isascii() else text
    return BLANKS.sub(" ", text.replace("\r\n", "\n").replace("\r", "\n")).lower().replace("-->", "\u2192").replace(
        "->", "\u2192"
    ).replace("=>", "\u2192")  # fmt: skip


def digit(character: str) -> str:
    """The ASCII digit of a decimal digit, and the plain form of a full-width letter; other characters as they are."""
    if character.isascii():
        return character
    value = unicodedata.decimal(character, None)
    if value is not None:
        return str(value)
    return chr(ord(character) - 0xFEE0) if "\uff21" <= character <= "\uff5a" else character


def without_thoughts(text: str) -> str:
    """What stands behind the thoughts; of a text that was cut off inside its thought nothing."""
    closed = list(CLOSED.finditer(text))
    if closed:
        head, text = text[: closed[-1].start()], text[closed[-1].end() :]
        if not text.strip() and "<answer>" in head:  # the answer was put inside
            return head
    opened = OPENED.search(text)
    if opened:
        rest = text[opened.end() :]
        return text[: opened.start()] + (rest[rest.index("<answer>") :] if "<answer>" in rest else "")
    return text


def answer_part(text: str) -> str:
    """The part of a plain text that answers: behind thoughts, inside the last answer tag or box.

    Args:
        text: from ``plain``.
    """
    text = without_thoughts(text)
    for begins, ends in zip(ANSWERS, ANSWER_ENDS, strict=True):
        found = list(begins.finditer(text))
        if found:
            inner = text[found[-1].end() :]
            end = ends.search(inner)
            return inner[: end.start()] if end else inner
    boxed = list(BOXED.finditer(text))
    if boxed:
        return until_brace(text[boxed[-1].end() :])
    return text


def until_brace(text: str) -> str:
    """The text up to the brace that closes it."""
    depth = 1
    for i, character in enumerate(text):
        depth += (character == "{") - (character == "}")
        if not depth:
            return text[:i]
    return text


def without_markup(text: str) -> str:
    """Without tags, markdown, LaTeX, and the numbers of lists; ``<start>3</start>`` becomes "start 3"."""
    text = BRACKETED_TIME.sub(r" \1 ", text)
    text = TAG.sub(lambda tag: "\n" if tag[1] or not tag[2].startswith(LABELS) else f" {tag[2]} ", text)
    text = NAMED.sub(" ", NUMBERING.sub("\n", MARKUP.sub(" ", text)))
    return BULLET.sub("", text)


def conclusion(text: str) -> str:
    """What stands behind the last "final answer", "answer:" or the like; all of it where there is none."""
    found = list(CONCLUSION.finditer(text))
    return text[found[-1].end() :] if found else text


def without_quotes(text: str, is_time: Callable[[str], bool]) -> str:
    """Without quoted words, such as a query said again; quoted times stay.

    Args:
        text: plain text.
        is_time: tells whether the inside of a quotation is only about time.
    """

    def keep(match: re.Match) -> str:
        inner = match[1] or match[2] or ""
        return f" {inner} " if is_time(inner) else " "

    return QUOTED.sub(keep, text)
