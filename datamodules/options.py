"""Multiple choice: how options are written into a question, and which one an answer names."""

import re
from string import ascii_uppercase as LETTERS

from datamodules.schema import Query

OPTION = r"\W*([A-Z])(?!\w|\s+\w)"
"""Pattern of the letter of an option; "A dog" names none: the letter stands alone, or has a mark behind it."""


def written_options(query: Query) -> dict[str, str]:
    """The options of a multiple-choice question, by the names that templates have for them."""
    options = list(zip(LETTERS, query.options, strict=False))
    return {
        "options": "\n".join(f"{letter}. {option}" for letter, option in options),
        "options in one line": " ".join(f"({letter}) {option}" for letter, option in options),
    }


def chosen(answer: str, options: int) -> int | None:
    """Place of the option whose letter an answer begins with, or names behind "answer is"; None: of none."""
    found = re.search(rf"\banswer is{OPTION}", answer) or re.match(OPTION, answer)
    place = LETTERS.index(found[1]) if found else options
    return place if place < options else None
