"""What an answer has to tell, before a localizer says when."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from datamodules.markup import Text, Token, without
from datamodules.schema import DESCRIBED, Event, Turn
from datamodules.turns import sentence

Captions = Literal["query_focused", "query", "none"]
"""What an answer says of an event beside its time. ``query_focused``: the detailed caption, or the plain one where an
event has no detail. ``query``: a copy of the query. ``none``: nothing. Where events are to be described, their captions
stand in any case, and ``query_focused`` adds the details."""
TIMED = re.compile(r"[^.!?]*<[se]\d+>(?:[^.!?]|\.(?!\s|$))*[.!?]*\s*")
"""Pattern of a sentence that names a time."""
UNIT = r"(?:\s*-?\s*(?:seconds?|secs?|s)\b)?"
"""Pattern of a unit behind a time marker; whatever stands for the time brings its own."""


@dataclass(frozen=True)
class Telling:
    """The events that an answer names, and its words."""

    events: tuple[Event, ...]
    texts: tuple[str, ...]
    """One an event: what is said of it, as it was annotated but for blanks and a final full stop; may be empty."""
    rest: str = ""
    """What else the answer says, such as the option of a grounded question."""


def telling(turn: Turn, captions: Captions) -> Telling | None:
    """What the answer of a turn has to tell.

    Args:
        turn: with events, and with a literal answer or none. Of a literal answer to a question for times, the sentences
            that name them are left out: each localizer says its own way when the events are.
        captions: what is said of an event.

    Returns:
        None where the answer is to be taken literally, or to be generated.
    """
    described = turn.task in DESCRIBED
    if not turn.events or (turn.answer is not None and _literal(turn, described)):
        return None
    if described:
        texts = [_description(event, captions) for event in turn.events]
        return Telling(turn.events, tuple(texts))
    texts = tuple(_caption(event, turn.topic, captions) for event in turn.events)
    return Telling(turn.events, texts, without(TIMED, turn.answer or Text()).strip())


def _literal(turn: Turn, described: bool) -> bool:
    """Whether a given answer says more than its events do: a dialogue, or descriptions that the events do not have."""
    if described:
        return not any(event.caption or event.detail for event in turn.events)
    return turn.task == "dialogue" and any(token in turn.times for token in turn.answer.tokens)


def _description(event: Event, captions: Captions) -> str:
    """Of a task that asks for it. A detail stands behind the caption, or in its place where it repeats it."""
    caption, detail = _bare(event.caption), _bare(event.detail)
    if not detail or (captions != "query_focused" and caption):
        return caption
    return detail if caption.lower() in detail.lower() else f"{caption}. {sentence(detail).removesuffix('.')}"


def _caption(event: Event, topic: str, captions: Captions) -> str:
    """Of a task that asks for a time."""
    if captions == "none":
        return ""
    return _bare((event.detail or event.caption or topic) if captions == "query_focused" else (topic or event.caption))


def _bare(text: str) -> str:
    return text.strip().removesuffix(".")


def write_times(text: Text, times: Mapping[str, float], write: Callable[[float], str]) -> Text:
    """A text with its time markers replaced by what ``write`` makes of their seconds, and without units behind them."""
    pieces, behind = [], False
    for piece in text.pieces:
        is_time = isinstance(piece, Token) and piece in times
        if behind and not isinstance(piece, Token):
            piece = re.sub(rf"^{UNIT}", "", piece)
        pieces.append(write(times[piece]) if is_time else piece)
        behind = is_time
    return Text(*pieces)
