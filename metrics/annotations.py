"""Annotation files of the field, read into what the metrics take. Windows are (start, end) in seconds."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from metrics.files import FileError, by_id, describe, need, read, rows, table
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


def normal(text: str) -> str:
    """A sentence for comparison: case, outer spaces and the final full stop do not count."""
    return " ".join(text.lower().split()).removesuffix(".").strip()


def is_query_file(content: object) -> bool:
    """True for records of this project: ``id``, ``video``, ``task``."""
    return isinstance(content, list) and bool(content) and {"id", "video", "task"} <= set(content[0])


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
    if row["task"] != "grounding":
        return None
    windows = tuple(window((need(e, ["start_s"], where), need(e, ["end_s"], where)), where) for e in row["events"])
    return Moment(row["id"], row["video"], row.get("text", ""), windows, row.get("duration_s") or math.nan)


def charades_video(video: str, entry: Mapping, path: Path | str) -> list[Moment]:
    """The moments of one Charades-STA video."""
    where = f"{path}, video {video!r}"
    items = need(entry, ["annotations"], where)
    return [
        Moment(
            f"{video}/grounding/{i}",
            video,
            need(item, ["label"], where),
            (window(need(item, ["segment"], where), where),),
            entry.get("duration", math.nan),
        )
        for i, item in enumerate(items)
    ]


def charades_text(path: Path) -> list[Moment]:
    """The moments of a Charades-STA text file."""
    found, count = [], {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
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
    if not found:
        raise FileError(f"{path}: the file is empty")
    return found


def row_moment(row: Mapping, number: int, where: str) -> Moment:
    """A row with ``vid``, ``query`` and ``gt`` (one window or several)."""
    target = need(row, ["gt", "relevant_windows", "timestamp"], where)
    several = isinstance(target, Sequence) and bool(target) and isinstance(target[0], Sequence)
    windows = tuple(window(item, where) for item in (target if several else [target]))
    name = str(row.get("id", row.get("qid", number)))
    video, text = need(row, ["vid", "video", "video_id"], where), need(row, ["query", "sentence", "text"], where)
    return Moment(name, str(video), str(text), windows, row.get("duration", math.nan))


def story_moments(video: str, story: Story) -> list[Moment]:
    """Every event of a story as a moment to find."""
    return [
        Moment(f"{video}/grounding/{i}", video, text, ((start, end),), story.duration_s)
        for i, (start, end, text) in enumerate(story.events)
    ]


def stories(path: Path | str) -> dict[str, Story]:
    """Dense captioning annotations by video.

    Known layouts: this project's queries; ``{video: {timestamps, sentences, duration}}``; TimeChat's list (also under
    ``annotations``) of ``image_id``, ``segments`` and ``pure_cap``, whose sentences are split at ". ".

    Raises:
        FileError: none of these, or a bad record.
    """
    content = read(path)
    if isinstance(content, Mapping) and isinstance(content.get("annotations"), list):
        content = content["annotations"]
    if is_query_file(content):
        wanted = [row for row in content if row["task"] == "dense_captioning"]
        pairs = [(row["video"], query_story(row, f"{path}, query {row['id']!r}")) for row in wanted]
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
    events = [((event["start_s"], event["end_s"]), event.get("caption", "")) for event in row["events"]]
    return Story(tuple((*window(w, where), text) for w, text in events), row.get("duration_s") or math.nan)


def plain_story(entry: object, where: str) -> Story:
    """``{timestamps, sentences, duration}``."""
    if not isinstance(entry, Mapping):
        raise FileError(f"{where}: expected timestamps and sentences, got {describe(entry)}")
    windows, sentences = need(entry, ["timestamps"], where), need(entry, ["sentences"], where)
    if len(windows) != len(sentences):
        raise FileError(f"{where}: {len(windows)} timestamps for {len(sentences)} sentences")
    events = ((*window(w, where), str(text)) for w, text in zip(windows, sentences, strict=True))
    return Story(tuple(events), entry.get("duration", math.nan))


def timechat_story(row: Mapping, where: str) -> tuple[str, Story]:
    """``{image_id, segments, pure_cap}``; a full stop is added to each sentence."""
    windows = need(row, ["segments"], where)
    sentences = [text.strip() + "." for text in str(need(row, ["pure_cap"], where)).split(". ")]
    if len(windows) != len(sentences):
        raise FileError(f"{where}: {len(windows)} segments for {len(sentences)} sentences of pure_cap")
    events = ((*window(w, where), text) for w, text in zip(windows, sentences, strict=True))
    return str(need(row, ["image_id"], where)), Story(tuple(events), row.get("duration", math.nan))


def questions(path: Path | str) -> dict[str, tuple[tuple[float, float], ...]]:
    """NExT-GQA ``gsub_*.json``: "video_qid" -> target windows.

    Raises:
        FileError: another layout, or a bad window.
    """
    found = {}
    for video, entry in table(read(path), path).items():
        where = f"{path}, video {video!r}"
        if not isinstance(entry, Mapping):
            raise FileError(f"{where}: expected an object with 'location', got {describe(entry)}")
        location = need(entry, ["location"], where)
        if not isinstance(location, Mapping):
            raise FileError(f"{where}: 'location' must be an object of questions, got {describe(location)}")
        for question, windows in location.items():
            key = f"{video}_{question}"
            found[key] = tuple(window(item, f"{where}, question {question!r}") for item in windows)
            if not found[key]:
                raise FileError(f"{where}, question {question!r}: no target window")
    if not found:
        raise FileError(f"{path}: holds no question with a target window")
    return found


def labelled_videos(path: Path | str) -> dict[str, Mapping]:
    """TVSum or YouTube Highlights: video -> row with ``label`` (clips x annotators) and ``domain``.

    Raises:
        FileError: another layout, or labels that are no table of numbers.
    """
    pairs = []
    for i, row in enumerate(rows(read(path), path), 1):
        where = f"{path}, record {i}"
        label = need(row, ["label", "saliency_scores"], where)
        if not label or not all(isinstance(clip, list) and clip and all(map(is_number, clip)) for clip in label):
            raise FileError(f"{where}: 'label' must hold a list of numbers for each clip")
        video = str(need(row, ["vid", "qid", "video"], where))
        pairs.append((video, {"label": label, "domain": str(row.get("domain", "all"))}))
    return by_id(pairs, path)
