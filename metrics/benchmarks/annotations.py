"""Annotation files of the field, read into what the metrics take. Windows are (start, end) in seconds."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from metrics.benchmarks.files import FileError, by_id, describe, need, read, read_text, rows, table
from metrics.spans import is_number, is_valid

CHARADES_LINE = re.compile(r"(\S+) (\S+) (\S+)##(.*)")


@dataclass(frozen=True)
class Moment:
    """A described moment of a video."""

    id: str
    video: str
    text: str
    windows: tuple[tuple[float, float], ...]
    duration_s: float = math.nan


@dataclass(frozen=True)
class Story:
    """The events of a video: (start, end, caption)."""

    events: tuple[tuple[float, float, str], ...]
    duration_s: float = math.nan


def window(value: object, where: str) -> tuple[float, float]:
    """A target window.

    Raises:
        FileError: not two finite numbers in order.
    """
    if not is_valid(value) or len(value) != 2:
        raise FileError(f"{where}: a target window must be two numbers in order, got {describe(value)}")
    return float(value[0]), float(value[1])


def windows_at(row: object, keys: Sequence[str], where: str) -> tuple[tuple[float, float], ...]:
    """The target windows under the first of the keys that a record has.

    Raises:
        FileError: no such key, no list, or a window that is none.
    """
    return tuple(window(item, where) for item in need(row, keys, where, list))


def duration(row: Mapping, where: str, key: str = "duration") -> float:
    """The length of the video of a record in seconds; NaN where it says nothing.

    Raises:
        FileError: it is no positive number.
    """
    value = row.get(key)
    if value is not None and not (is_number(value) and value > 0):
        raise FileError(f"{where}: {key!r} must be seconds, got {describe(value)}")
    return math.nan if value is None else float(value)


def normal(text: str) -> str:
    """A sentence for comparison: case, outer spaces and the final full stop do not count."""
    return " ".join(text.lower().split()).removesuffix(".").strip()


def is_query_file(content: object) -> bool:
    """True for records of this project: ``id``, ``video``, ``task``."""
    first = content[0] if isinstance(content, list) and content else None
    return isinstance(first, Mapping) and {"id", "video", "task"} <= first.keys()


def moments(path: Path | str) -> list[Moment]:
    """Grounding annotations.

    Known layouts: this project's queries (one a line); ``{video: {timestamps, sentences, duration}}`` (ActivityNet
    Captions); ``{"database": {video: {annotations: [{label, segment}]}}}`` (Charades-STA); Charades-STA text lines
    ``VIDEO start end##sentence``; rows with ``vid``, ``query`` and ``gt``.

    Raises:
        FileError: none of these, or a bad record.
    """
    if Path(path).suffix == ".txt":
        return charades_text(Path(path))
    content = read(path)
    if is_query_file(content):
        found = [query_moment(row, f"{path}, record {i}") for i, row in enumerate(rows(content, path), 1)]
        found = [moment for moment in found if moment]
    elif isinstance(content, Mapping) and isinstance(content.get("database"), Mapping):
        found = [m for video, entry in content["database"].items() for m in charades_video(video, entry, path)]
    elif isinstance(content, Mapping):
        found = [m for video, story in stories(path).items() for m in story_moments(video, story)]
    else:
        found = [row_moment(row, i, f"{path}, record {i}") for i, row in enumerate(rows(content, path), 1)]
    if not found:
        raise FileError(f"{path}: holds no moment to find")
    by_id(((moment.id, moment) for moment in found), path)
    return found


def query_moment(row: Mapping, where: str) -> Moment | None:
    """One of this project's queries; None for another task."""
    if need(row, ["task"], where) != "grounding":
        return None
    name, video = need(row, ["id"], where, str), need(row, ["video"], where, str)
    windows = tuple(event_window(event, where) for event in need(row, ["events"], where, list))
    return Moment(name, video, str(row.get("text", "")), windows, duration(row, where, "duration_s"))


def event_window(event: object, where: str) -> tuple[float, float]:
    """The window of an event of one of this project's queries."""
    return window((need(event, ["start_s"], where), need(event, ["end_s"], where)), where)


def charades_video(video: str, entry: object, path: Path | str) -> list[Moment]:
    """The moments of one Charades-STA video."""
    where = f"{path}, video {video!r}"
    found = []
    for i, item in enumerate(need(entry, ["annotations"], where, list)):
        text, target = need(item, ["label"], where, str), window(need(item, ["segment"], where), where)
        found.append(Moment(f"{video}/grounding/{i}", video, text, (target,), duration(entry, where)))
    return found


def charades_text(path: Path) -> list[Moment]:
    """The moments of a Charades-STA text file."""
    found, count = [], {}
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if not line.strip():
            continue
        match = CHARADES_LINE.fullmatch(line.strip())
        try:
            times = float(match[2]), float(match[3])
        except (TypeError, ValueError):
            raise FileError(f"{path}, line {number}: expected 'VIDEO start end##sentence', got {line[:60]!r}") from None
        index = count[match[1]] = count.get(match[1], -1) + 1
        name = f"{match[1]}/grounding/{index}"
        found.append(Moment(name, match[1], match[4], (window(times, f"{path}, line {number}"),)))
    return found


def row_moment(row: Mapping, number: int, where: str) -> Moment:
    """A row with ``vid``, ``query`` and ``gt`` (one window or several)."""
    target = need(row, ["gt", "relevant_windows", "timestamp"], where)
    several = isinstance(target, Sequence) and bool(target) and isinstance(target[0], Sequence)
    windows = tuple(window(item, where) for item in (target if several else [target]))
    name = str(row.get("id", row.get("qid", number)))
    video, text = need(row, ["vid", "video", "video_id"], where), need(row, ["query", "sentence", "text"], where)
    return Moment(name, str(video), str(text), windows, duration(row, where))


def story_moments(video: str, story: Story) -> list[Moment]:
    """Every event of a story as a moment to find."""
    return [
        Moment(f"{video}/grounding/{i}", video, text, ((start, end),), story.duration_s)
        for i, (start, end, text) in enumerate(story.events)
    ]


def stories(path: Path | str) -> dict[str, Story]:
    """Dense captioning annotations by video.

    Known layouts: this project's queries; ``{video: {timestamps, sentences, duration}}``; TimeChat's list (also under
    ``annotations``) of ``image_id``, ``segments`` and ``pure_cap``, whose sentences are split at ". ", or ``caption``,
    whose sentences of more than 5 characters are split at ".".

    Raises:
        FileError: none of these, or a bad record.
    """
    content = read(path)
    if isinstance(content, Mapping) and isinstance(content.get("annotations"), list):
        content = content["annotations"]
    if is_query_file(content):
        numbered = [(f"{path}, record {i}", row) for i, row in enumerate(rows(content, path), 1)]
        wanted = [(w, row) for w, row in numbered if need(row, ["task"], w) == "dense_captioning"]
        pairs = [(need(row, ["video"], where, str), query_story(row, where)) for where, row in wanted]
    elif isinstance(content, list):
        pairs = [timechat_story(row, f"{path}, record {i}") for i, row in enumerate(rows(content, path), 1)]
    else:
        entries = table(content, path).items()
        pairs = [(video, plain_story(entry, f"{path}, video {video!r}")) for video, entry in entries]
    if not pairs:
        raise FileError(f"{path}: holds no video with events")
    return by_id(pairs, path)


def query_story(row: Mapping, where: str) -> Story:
    """One of this project's dense captioning queries."""
    events = need(row, ["events"], where, list)
    found = ((*event_window(event, where), str(event.get("caption", ""))) for event in events)
    return Story(tuple(found), duration(row, where, "duration_s"))


def plain_story(entry: object, where: str) -> Story:
    """``{timestamps, sentences, duration}``."""
    windows, sentences = windows_at(entry, ["timestamps"], where), need(entry, ["sentences"], where, list)
    return story(windows, sentences, duration(entry, where), where)


def story(windows: Sequence[tuple], sentences: Sequence[str], duration_s: float, where: str) -> Story:
    """Windows and their sentences.

    Raises:
        FileError: not one sentence a window.
    """
    if len(windows) != len(sentences):
        raise FileError(f"{where}: {len(windows)} windows for {len(sentences)} sentences")
    events = ((*span, str(text)) for span, text in zip(windows, sentences, strict=True))
    return Story(tuple(events), duration_s)


def timechat_story(row: Mapping, where: str) -> tuple[str, Story]:
    """``{image_id, segments, pure_cap}`` or, for ActivityNet, ``caption``; a full stop is added to each sentence."""
    text = need(row, ["pure_cap", "caption"], where, str)
    pieces = text.split(". ") if "pure_cap" in row else [piece for piece in text.split(".") if len(piece) > 5]
    sentences = [piece.strip() + "." for piece in pieces]
    windows = windows_at(row, ["segments"], where)
    return str(need(row, ["image_id"], where)), story(windows, sentences, duration(row, where), where)


def questions(path: Path | str) -> dict[str, tuple[tuple[float, float], ...]]:
    """NExT-GQA ``gsub_*.json``: "video_qid" -> target windows.

    Raises:
        FileError: another layout, or a bad window.
    """
    found = {}
    for video, entry in table(read(path), path).items():
        where = f"{path}, video {video!r}"
        location = need(entry, ["location"], where, Mapping)
        for question in location:
            key = f"{video}_{question}"
            found[key] = windows_at(location, [question], where)
            if not found[key]:
                raise FileError(f"{where}, question {question!r}: no target window")
    if not found:
        raise FileError(f"{path}: holds no question with a target window")
    return found
