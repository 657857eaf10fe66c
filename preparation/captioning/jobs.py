"""The two things that models are asked to write: details of an event, and dialogues about a video."""

import json
import re
import unicodedata
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from datamodules.schema import Event, Query, Turn
from preparation.captioning.asking import Ask
from preparation.captioning.endpoint import Client
from preparation.captioning.quality import Malformed, check_description, check_detail, check_plain, check_reply
from preparation.captioning.requests import PROMPTS, Clip, Request
from preparation.features.decoding import Source

LONGEST_DETAIL = 100
"""Words. The prompt asks for 40 at most; far more is a model that did not do what it was told."""
TAG = re.compile(r"<[^<>\s][^<>]*>")
"""Time markers, and all the special tokens that must not reach a tokenizer as text."""
BROKEN = ("Cc", "Cs", "Co", "Cn")
"""Kinds of characters that are no text: control characters, halves of others, and those that there are not."""
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


@dataclass(frozen=True)
class Moment:
    """An event that a model learns to name."""

    event: Event
    task: str
    """Of the query, or of the turn of a dialogue."""
    known: str
    """What is said about it already: what a user asks for, or its caption."""


def moments(query: Query) -> list[Moment]:
    """The events that a model learns to name, in their order."""
    found = [Moment(event, query.task, query.text or event.caption) for event in query.events]
    for turn in filter(names_events, query.turns):
        said = turn.topic or TAG.sub("", turn.question)
        found += [Moment(event, turn.task, event.caption or said) for event in turn.events]
    return [replace(moment, known=moment.known.strip()) for moment in found]


def with_details(query: Query, details: Sequence[str]) -> Query:
    """The query with a detail for each of its ``moments``, beside its caption."""
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
    moment = moments(query)[number]
    event, known = moment.event, moment.known
    offset_s = source.start_s or 0.0
    end_s = offset_s + event.end_s if source.end_s is None else min(offset_s + event.end_s, source.end_s)
    clip = Clip(source.path, offset_s + event.start_s, end_s, frames, size)

    def run(ask: Ask) -> str:
        prompt = PROMPTS["caption"].replace("{seconds}", f"{event.end_s - event.start_s:.0f}")
        description = ask(Request("caption", vision, prompt, clip), lambda answer: read_description(answer, known))
        condense = _fill(PROMPTS["condense"], {"query": known, "description": description})
        return ask(Request("condense", text, condense), lambda answer: read_detail(answer, known))

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
    """The answer in one line, without the quotation marks around the whole of it.

    Args:
        answer: text of a model.
        markers: tags that it may hold.

    Raises:
        Malformed: it is empty, or holds what must not be taken for text.
    """
    text = " ".join(answer.split())
    if whole := re.fullmatch(r'"([^"]+)"|“([^“”]+)”', text):
        text = whole[1] or whole[2]
    if not text:
        raise Malformed("empty")
    if any(unicodedata.category(sign) in BROKEN or sign == "\ufffd" for sign in text):
        raise Malformed("half a character in it")
    if foreign := [tag for tag in TAG.findall(text) if tag not in markers]:
        raise Malformed("a tag in it", f"the tag {foreign[0][:40]}")
    return text


def read_description(answer: str, known: str = "") -> str:
    """A long description of a clip. Raises Malformed if it is none."""
    text = read_text(answer)
    check_description(text, known)
    return text


def read_detail(answer: str, known: str = "") -> str:
    """A condensed description of an event, of which ``known`` is said already. Raises Malformed if it is none."""
    text = read_text(answer)
    check_plain(answer)
    if (words := len(text.split())) > LONGEST_DETAIL:
        raise Malformed("too long", f"{words} words, asked for 40")
    check_detail(text, known, PROMPTS["condense"])
    return text


def read_dialogue(answer: str, events: Sequence[Event]) -> tuple[Turn, ...]:
    """Turns from the JSON that a model was asked for, alone or in a code fence.

    Raises:
        Malformed: it is not that JSON, a marker is unknown, a time is written out, no turn has a marker, or an answer
            is a refusal, in another language or in markup.
    """
    times = {f"<s{k}>": event.start_s for k, event in enumerate(events)}
    times |= {f"<e{k}>": event.end_s for k, event in enumerate(events)}
    fenced = re.search(r"```(?:json)?\s*\n(.*?)```", answer, re.DOTALL)
    try:
        found = json.loads(fenced[1] if fenced else answer)["turns"]
        pairs = [(read_text(turn["question"], times), read_text(turn["answer"], times)) for turn in found]
    except json.JSONDecodeError as error:
        raise Malformed("not JSON", error.msg) from None
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        if isinstance(error, Malformed):
            raise
        raise Malformed("not a list of turns", f"{type(error).__name__} {error}") from None
    known = " ".join(event.caption for event in events)  # a caption may speak of "10 seconds"
    turns = []
    for question, reply in pairs:
        text = f"{question} {reply}"
        if written := [match[0] for match in WRITTEN_TIME.finditer(TAG.sub("", text)) if match[0] not in known]:
            raise Malformed("a time is written out", written[0])
        check_reply(TAG.sub("", reply), known)
        turns.append(Turn(question, reply, times={tag: times[tag] for tag in dict.fromkeys(TAG.findall(text))}))
    if not any(turn.times for turn in turns):
        raise Malformed("no turn has a time marker")
    return tuple(turns)
