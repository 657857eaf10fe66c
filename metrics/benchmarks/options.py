"""Which option of a multiple-choice question does an answer name? The rules of E.T. Bench."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from metrics.similarity import embed

BRACKETS = re.compile(r"\(([A-Za-z])\)")
AFTER_LETTER = ".,) "
STATED = re.compile(r"\banswer is\W*([A-Z])(?!\w|\s+\w)")
"""Pattern of the option that an answer ends with; "the answer is A dog" names none."""
OPENING = "best option:"


@dataclass(frozen=True)
class Choice:
    """The option that an answer names."""

    option: int | None
    """None: the answer is empty."""
    letter: bool
    """The answer names some letter, of an option or not."""


def index_of(letter: str) -> int:
    """A -> 0."""
    return ord(letter.upper()) - ord("A")


def cleaned(answer: str, official: bool = False) -> str:
    """The answer in lower case without "best option:" at its start, and without opening brackets.

    Args:
        answer: free text.
        official: keep blanks and line breaks at the end, which hide a letter that stands alone.
    """
    text = answer.lower() if official else answer.lower().strip()
    return text.removeprefix(OPENING).lstrip().lstrip("(").lstrip()


def leading_letter(answer: str, official: bool = False) -> int | None:
    """The letter of an answer that is one, or begins with one and a full stop, comma, space or bracket.

    An answer that begins with the article "A " is read as option A.
    """
    answer = cleaned(answer, official)
    if not answer or (len(answer) > 1 and answer[1] not in AFTER_LETTER):
        return None
    return index_of(answer[0])


def stated_letter(answer: str) -> int | None:
    """The letter behind the last "answer is", as MeCo's answers end: "Therefore, the answer is (D)."."""
    found = STATED.findall(answer)
    return index_of(found[-1]) if found else None


def written(option: object) -> str:
    """The text of an option; a window [a, b] is written "a - b"."""
    return f"{option[0]} - {option[1]}" if isinstance(option, (list, tuple)) else str(option)


def most_similar(answer: str, options: Sequence, official: bool = False) -> int | None:
    """The option, written as "(A) text", with the highest sentence similarity to the whole answer."""
    answer = cleaned(answer, official)
    if not answer:
        return None
    vectors = embed([answer, *(f"({chr(ord('A') + i)}) {written(option)}" for i, option in enumerate(options))])
    return int((vectors[1:] @ vectors[0]).argmax())


def choose(
    answer: str, options: Sequence, letters: Sequence[int | None], accept: Sequence[int], official: bool = False
) -> Choice:
    """The first acceptable letter, else the most similar option."""
    named = [index for index in letters if index is not None]
    for index in named:
        if index in accept:
            return Choice(index, letter=True)
    return Choice(most_similar(answer, options, official), letter=bool(named))


def choice_of_rvq(answer: str, options: Sequence, right: int, final: bool) -> Choice:
    """RAR, ECA, RVQ: the first "(X)", else a leading letter, else one behind "answer is", else the most similar option.

    Args:
        answer: free text.
        options: the options; windows are written as "a - b".
        right: index of the right option.
        final: a letter of an option is the choice, right or wrong. The official code takes a wrong letter for no
            letter and goes on to the similarity, so that a wrong answer gets a second chance; it knows no "answer is".
    """
    bracket = BRACKETS.search(answer)
    letters = [
        index_of(bracket[1]) if bracket else None,
        leading_letter(answer, not final),
        stated_letter(answer) if final else None,
    ]
    return choose(answer, options, letters, range(len(options)) if final else [right], not final)


def choice_of_gvq(answer: str, options: Sequence, official: bool = False) -> Choice:
    """GVQ: a leading letter of an option is final, else one behind "answer is", else the most similar option.

    ``official`` knows no "answer is".
    """
    letters = [leading_letter(answer, official), None if official else stated_letter(answer)]
    return choose(answer, options, letters, range(len(options)), official)
