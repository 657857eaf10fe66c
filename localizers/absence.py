"""An answer that the moment asked for does not happen: how all localizers write it, and how it is read."""

import re

from metrics import read_moments

NO_MOMENT = "The event does not happen in the video."
NONE = "none"
"""Reading rule of an answer that says so: it has no spans, and is not unparsed."""


def says_none(text: str) -> bool:
    """Whether an answer without times says that its moment does not happen, in words or by an empty list."""
    said = text.strip()
    return said in (NO_MOMENT, "[]") or (re.search(r"[^\W\d_]", said) is not None and read_moments(said).rule == NONE)
