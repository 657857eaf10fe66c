"""Seconds in free words: how answers are read that do not keep to the wording in which a model was trained."""

from localizers.written_spans import Found
from metrics import read_events, read_moments


def as_read(text: str, duration_s: float, dense: bool) -> list[Found]:
    """The spans that the words of an answer name; of a dense caption with what it says of each."""
    found = read_events(text, duration_s) if dense else read_moments(text, duration_s)
    captions = found.captions if dense else [""] * len(found.windows)
    return [
        Found(0, len(text), start_s, end_s, caption=caption)
        for (start_s, end_s), caption in zip(found.windows, captions, strict=True)
    ]
