"""The two things that models are asked to write: details of an event, and dialogues about a video."""

import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from datamodules.schema import Event, Query, Turn
from preparation.captioning.asking import Ask
from preparation.captioning.endpoint import Client
from preparation.captioning.requests import PROMPTS, Clip, Request
from preparation.features.decoding import Source

LONGEST_DETAIL = 100
"""Words. The prompt asks for 40 at most; far more is a model that did not do what it was told."""
TAG = re.compile(r"<[^<>\s][^<>]*>")
"""Time markers, and all the special tokens that must not reach a tokenizer as text."""
WRITTEN_TIME = re.compile(
    r"\d+:\d\d|\d\s*%|\b\d+(\.\d+)?\s*(s|secs?|seconds?|mins?|minutes?)\b|\b(frame|second|minute)s?\s+\d", re.IGNORECASE
)


@dataclass(frozen=True)
class Job:
    """One result, and the requests that lead to it."""

    where: str
    """Query, and the place in it, for messages."""
    steps: Mapping[str, Client]
    """Its requests, in order, and who answers them."""
    run: Callable[[Ask], Any]


def moments(query: Query) -> list[tuple[Event, str]]:
    """The events that a model learns to name, each with what is said about it already."""
    found = [(event, query.text if query.task == "grounding" else event.caption) for event in query.events]
    for turn in filter(names_events, query.turns):
        found += [(event, event.caption or turn.topic or TAG.sub("", turn.question)) for event in turn.events]
    return found


def with_details(query: Query, details: Sequence[str]) -> Query:
    """The query with a detail for each of its ``moments``."""
    left = iter(details)
    own, *turns = (
        tuple(replace(event, detail=next(left)) for event in events)
        for events in (query.events, *(turn.events for turn in filter(names_events, query.turns)))
    )
    rest = iter(turns)
    return replace(
        query,
        events=own,
        turns=tuple(replace(turn, events=next(rest)) if names_events(turn) else turn for turn in query.turns),
    )


def names_events(turn: Turn) -> bool:
    """False where the events are in the question."""
    return turn.task != "segment_captioning"


def detail_job(query: Query, number: int, source: Source, vision: Client, text: Client, frames: int, size: int) -> Job:
    """Describe one event in detail: a vision-language model sees its clip, a text model condenses what it says.

    Args:
        query: the annotation.
        number: which of its ``moments``.
        source: the video.
        vision: the vision-language model.
        text: the text model.
        frames: pictures of the clip.
        size: longer side of a picture in pixels.

    Source: MeCo, query-focused captioning: clips of events are captioned in detail, and the captions condensed to what
    the query does not say.
    """
    event, known = moments(query)[number]
    offset_s = source.start_s or 0.0
    end_s = offset_s + event.end_s if source.end_s is None else min(offset_s + event.end_s, source.end_s)
    clip = Clip(source.path, offset_s + event.start_s, end_s, frames, size)

    def run(ask: Ask) -> str:
        prompt = PROMPTS["caption"].replace("{seconds}", f"{event.end_s - event.start_s:.0f}")
        description = ask(Request("caption", vision, prompt, clip), read_text)
        about = {"query": known, "description": description}
        return ask(Request("condense", text, _fill(PROMPTS["condense"], about)), read_detail)

    return Job(f"query {query.id!r}, event {number}", {"caption": vision, "condense": text}, run)


def dialogue_jobs(query: Query, text: Client) -> list[Job]:
    """Two dialogues about the events of a video.

    Source: VTimeLLM, stage 3: a language model plays an assistant that sees the video, two dialogues a video.
    """
    events = sorted(query.events, key=lambda event: event.span)
    lines = "\n".join(f"<s{k}> to <e{k}>: {event.caption}" for k, event in enumerate(events))

    def run(ask: Ask, wording: str) -> tuple[Turn, ...]:
        prompt = _fill(wording, {"events": lines})
        return ask(Request("dialogue", text, prompt), lambda answer: read_dialogue(answer, events))

    return [
        Job(f"query {query.id!r}, dialogue {k}", {"dialogue": text}, lambda ask, wording=wording: run(ask, wording))
        for k, wording in enumerate(PROMPTS["dialogues"])
    ]


def _fill(prompt: str, values: Mapping[str, str]) -> str:
    """Put values into a prompt, all at once: braces in a value stay as they are."""
    return re.sub("|".join(rf"\{{{name}\}}" for name in values), lambda match: values[match[0][1:-1]], prompt)


def read_text(answer: str, markers: Collection[str] = ()) -> str:
    """The answer in one line.

    Args:
        answer: text of a model.
        markers: tags that it may hold.

    Raises:
        ValueError: it is empty, or holds what must not be taken for text.
    """
    text = " ".join(answer.split())
    if not text:
        raise ValueError("empty")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError("half a character in it")
    if foreign := [tag for tag in TAG.findall(text) if tag not in markers]:
        raise ValueError(f"the tag {foreign[0][:40]} in it")
    return text


def read_detail(answer: str) -> str:
    """A condensed description. Raises ValueError if it is no text or too long."""
    text = read_text(answer)
    if (words := len(text.split())) > LONGEST_DETAIL:
        raise ValueError(f"{words} words, asked for 40")
    return text


def read_dialogue(answer: str, events: Sequence[Event]) -> tuple[Turn, ...]:
    """Turns from the JSON that a model was asked for, alone or in a code fence.

    Raises:
        ValueError: it is not that JSON, a marker is unknown, a time is written out, or no turn has a marker.
    """
    times = {f"<s{k}>": event.start_s for k, event in enumerate(events)}
    times |= {f"<e{k}>": event.end_s for k, event in enumerate(events)}
    fenced = re.search(r"```(?:json)?\s*\n(.*?)```", answer, re.DOTALL)
    try:
        found = json.loads(fenced[1] if fenced else answer)["turns"]
        pairs = [(read_text(turn["question"], times), read_text(turn["answer"], times)) for turn in found]
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON ({error.msg})") from None
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a list of turns ({type(error).__name__} {error})") from None
    known = " ".join(event.caption for event in events)  # a caption may speak of "10 seconds"
    turns = []
    for question, reply in pairs:
        text = f"{question} {reply}"
        if written := [match[0] for match in WRITTEN_TIME.finditer(TAG.sub("", text)) if match[0] not in known]:
            raise ValueError(f"a time is written out ({written[0]})")
        turns.append(Turn(question, reply, times={tag: times[tag] for tag in dict.fromkeys(TAG.findall(text))}))
    if not any(turn.times for turn in turns):
        raise ValueError("no turn has a time marker")
    return tuple(turns)
