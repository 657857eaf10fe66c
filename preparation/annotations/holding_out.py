"""A few questions about videos that are then not trained on, to validate with while training runs."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from random import Random

from datamodules.leakage import source_video
from datamodules.schema import MARKER, Event, Query


def hold_out(queries: Sequence[Query], count: int, seed: int = 0) -> tuple[list[Query], list[Query]]:
    """Take videos out of training data until there are questions enough about them.

    Args:
        queries: training data.
        count: questions wanted.
        seed: chooses the videos.

    Returns:
        what is left to train on, and the questions.

    Raises:
        ValueError: nothing would be left.
    """
    videos = sorted({source_video(query.video) for query in queries})
    Random(f"{seed}/hold_out").shuffle(videos)
    of_video: dict[str, list[Query]] = {}
    for query in queries:
        of_video.setdefault(source_video(query.video), []).append(query)
    held, asked = set(), []
    for video in videos:
        if len(asked) >= count:
            break
        held.add(video)
        asked += [question for query in of_video[video] for question in questions(query)]
    if len(held) == len(videos):
        raise ValueError(
            f"--hold_out {count}: there are {len(asked)} questions in all, and none would be left to train on"
        )
    return [query for query in queries if source_video(query.video) not in held], asked[:count]


def questions(query: Query) -> list[Query]:
    """A training record as questions that can be scored: one a described moment; as it is, where there is none."""
    if query.task == "events":
        found = [(event.caption, event) for event in query.events]
    elif query.task == "dialogue":
        found = list(moments(query))
    else:
        found = []
    return [
        replace(query, id=f"{query.id}.{number}", task="grounding", text=text, events=(event,), turns=())
        for number, (text, event) in enumerate(found)
    ] or [query]


def moments(query: Query) -> Iterator[tuple[str, Event]]:
    """What a dialogue says about moments: a turn that names two times in its question and none in its answer describes
    one, and one that grounds a topic finds one.
    """
    for turn in query.turns:
        marks = sorted(turn.times[mark] for mark in set(MARKER.findall(turn.question)))
        if turn.task == "grounding" and turn.topic and len(turn.events) == 1:
            yield turn.topic, turn.events[0]
        elif len(marks) == 2 and marks[0] < marks[1] and turn.answer and not MARKER.search(turn.answer):
            yield turn.answer.strip().removesuffix("."), Event(*marks)
