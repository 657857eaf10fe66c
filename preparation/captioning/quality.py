"""Which answers of a model are taken, and why others are not."""

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping

from preparation.captioning.language import content_words, is_foreign, words
from preparation.captioning.rules import MARKUP, NOTHING, READER, REFUSAL, TASK, TIME

SHORTEST = 3
"""Words."""
OLD_SHARE = 0.8
"""Of the words that carry meaning, so many may be the query's."""
ECHO = 5
"""Words in a row that are the prompt's."""
TIMES_OVER, LARGEST_SHARE = 3, 0.5
"""A run of four words that comes so often, and makes up more of the text, is a model that goes round in circles."""
QUOTED = re.compile(r'"[^"]*"|“[^”]*”|«[^»]*»')
SENTENCE = re.compile(r"(?<=[.!?])\s+")
EMOJI_FROM = 0x2600
EMPTY = {"a refusal": REFUSAL, "says nothing": NOTHING}
"""Reason -> what is said then, whatever was asked for."""
BESIDE = {"speaks of the task or of pictures": TASK, "speaks of itself or to the reader": READER}
"""Reason -> what is said then, and does no harm in a text that another model reads."""


class Malformed(ValueError):
    """An answer that is not taken. ``reason`` is shared by many, ``detail`` is its own."""

    def __init__(self, reason: str, detail: str = ""):
        super().__init__(f"{reason} ({detail})" if detail else reason)
        self.reason, self.detail = reason, detail


def check_description(text: str, known: str = "") -> None:
    """Hold the long description of a clip against what would spoil what is made of it.

    Args:
        text: one line.
        known: what the data says; its language is allowed beside English.

    Raises:
        Malformed: it begins with a refusal, says nothing, is in another language, or goes round in circles.
    """
    said = _said(text)
    _check_words(text, known)
    _refuse(SENTENCE.split(said)[0], EMPTY)  # further on, "no other details" may be said of a wall


def check_detail(text: str, known: str = "", prompt: str = "") -> None:
    """Hold a detailed description of an event against everything that is wrong in one.

    Args:
        text: one line.
        known: what a user asks for, or the caption that the description goes with.
        prompt: what the model was told.

    Raises:
        Malformed: saying why.
    """
    said = _said(text)
    _check_words(text, known)
    _refuse(said, EMPTY | BESIDE)
    if written := [match[0] for match in TIME.finditer(said) if match[0].lower() not in known.lower()]:
        raise Malformed("a time is written out", written[0])
    if "?" in said:
        raise Malformed("asks something")
    if echo := _run_of(words(text), words(prompt)):
        raise Malformed("repeats the prompt", echo)
    found, old = content_words(text), content_words(known)
    if old and sum(word in old for word in found) > OLD_SHARE * len(found):
        raise Malformed("a copy of the query")


def check_reply(text: str, known: str = "") -> None:
    """Hold what an assistant says in a dialogue against refusals, markup and other languages. Raises Malformed."""
    check_plain(text)
    _refuse(_said(text), {"a refusal": REFUSAL})
    if is_foreign(_said(text)) and not is_foreign(known):
        raise Malformed("not in English")


def check_plain(answer: str) -> None:
    """Raise Malformed for an answer, with its line breaks, that is more than plain sentences."""
    if found := MARKUP.search(answer):
        raise Malformed("markup", found[0].strip())
    if emoji := [sign for sign in answer if ord(sign) >= EMOJI_FROM and unicodedata.category(sign) == "So"]:
        raise Malformed("markup", emoji[0])


def _check_words(text: str, known: str) -> None:
    if is_foreign(_said(text)) and not is_foreign(known):
        raise Malformed("not in English")
    found = words(text)
    if len(found) < SHORTEST:
        raise Malformed("says nothing", f"{len(found)} words")
    runs = Counter(zip(*(found[k:] for k in range(4)), strict=False))
    run, times = max(runs.items(), key=lambda item: item[1], default=((), 0))
    if times >= TIMES_OVER and times * len(run) > LARGEST_SHARE * len(found):
        raise Malformed("goes round in circles", " ".join(run))


def _said(text: str) -> str:
    """Without quotations, which are a sign or a shout in the scene, and with plain apostrophes."""
    return QUOTED.sub('""', text).replace("’", "'")


def _refuse(said: str, rules: Mapping[str, re.Pattern]) -> None:
    for reason, pattern in rules.items():
        if found := pattern.search(said):
            raise Malformed(reason, found[0].strip())


def _run_of(found: list[str], prompt: list[str]) -> str:
    """The first ``ECHO`` words in a row that are the prompt's; empty if there are none."""
    runs = {tuple(prompt[k : k + ECHO]) for k in range(len(prompt) - ECHO + 1)}
    echoes = (found[k : k + ECHO] for k in range(len(found) - ECHO + 1) if tuple(found[k : k + ECHO]) in runs)
    return " ".join(next(echoes, ()))
