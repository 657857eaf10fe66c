"""What people ask, as queries."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from datamodules.names import VideoNames
from datamodules.query_files import read_queries
from datamodules.schema import Query, Question, Turn


def moment(text: str) -> Query:
    """When does this happen? Raises ValueError if there is no text."""
    return Question("moment", "-", "grounding", _words(text, "a query"))


def description() -> Query:
    """What happens, and when?"""
    return Question("description", "-", "dense_captioning")


def question(text: str, choices: str | Sequence[str] | None = None) -> Query:
    """A question in one's own words; with choices, which of them is right and where one sees it.

    Args:
        text: the question.
        choices: options, or text with ``|`` between them.

    Raises:
        ValueError: there is no text, or fewer than two options.
    """
    text = _words(text, "a question")
    if not choices:
        return Question("question", "-", "dialogue", turns=(Turn(text),))
    options = choices.split("|") if isinstance(choices, str) else choices
    return Question("question", "-", "grounded_qa", text, options=tuple(option.strip() for option in options))


def _words(text: str, what: str) -> str:
    if not text.strip():
        raise ValueError(f"{what} is empty")
    return text.strip()


def about(queries: Sequence[Query], videos: Sequence[str]) -> dict[str, list[Query]]:
    """Every query about every video, with ids that tell them apart: ``clip.q0``, ``clip.q1``, .."""
    return {
        video: [replace(query, id=f"{video}.q{number}", video=video) for number, query in enumerate(queries)]
        for video in videos
    }


def of_a_window(query: Query) -> Query:
    """A query as it is asked of a part of its video: nothing is said of where its answer lies.

    Raises:
        ValueError: the query names times, which are those of the whole video.
    """
    times = [turn.times for turn in query.turns if turn.times]
    if query.task in ("segment_captioning", "highlights") or times:
        raise ValueError(
            f"query {query.id}: {query.task} names times of the whole video, which is seen in windows; "
            "ask it with a window of 0 s"
        )
    kept = {"id": query.id, "video": query.video, "task": query.task, "text": query.text, "turns": query.turns}
    return Question(**kept, options=query.options)


def from_file(path: Path, videos: Sequence[str]) -> dict[str, list[Query]]:
    """Queries of a file, by video: records as ``evaluate.py benchmark`` takes them, or a text file of moments.

    Args:
        path: ``.jsonl`` with a record a line, each about the video that it names; or text, each line a moment to find
            in every video.
        videos: ids of those there are.

    Raises:
        ValueError: a bad line, a record about another video or one that cannot be asked (naming file and record).
    """
    if path.suffix != ".jsonl":
        lines = path.read_text(encoding="utf-8-sig").splitlines()
        if not (found := [moment(line) for line in lines if line.strip()]):
            raise ValueError(f"{path} holds no query")
        return about(found, videos)
    names, asked = VideoNames(videos), {video: [] for video in videos}
    for query in read_queries(path):
        if (video := names.find(query.video)) is None:
            remedy = names.remedy(query.video, f"there is {', '.join(videos[:3])}")
            raise ValueError(f"{path}: query {query.id!r} is about video {query.video!r}, which is not here; {remedy}")
        if query.task == "events":
            raise ValueError(f"{path}: query {query.id!r} is an 'events' record, which cannot be asked")
        asked[video].append(replace(query, video=video))
    return asked
