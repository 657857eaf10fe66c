"""Questions about a video with the windows that show the answer: NExT-GQA, ReXTime, and rows of one's own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from metrics.benchmarks.answers import Parsed, read_moments
from metrics.benchmarks.formats.files import Collector, FileError, describe, first_of, need, read, rows, table
from metrics.benchmarks.formats.stories import event_window
from metrics.benchmarks.formats.windows import windows, windows_at
from metrics.grounded_qa import from_fractions
from metrics.spans import is_number, is_valid

WINDOW_KEYS = ("window", "pred_relevant_windows", "pred", "span", "timestamp")
OPTION_KEYS = ("option", "prediction", "ans", "pred_ans", "choice")
TARGET_KEYS = ("relevant_windows", "gt", "span", "windows")


@dataclass
class Question:
    """An annotated question."""

    windows: tuple[tuple[float, float], ...]
    answer: object = None
    """The right answer, where the annotations hold it."""
    duration_s: float | None = None


def questions(path: Path | str, collector: Collector | None = None) -> dict[str, Question]:
    """Annotated questions by id: NExT-GQA's ``gsub_*.json`` ("video_qid"), or rows of ``qid`` and target windows.

    Raises:
        FileError: another layout, or a bad record.
    """
    collector = collector or Collector()
    content = read(path, collector)
    found: dict[str, Question] = {}
    if isinstance(content, list):
        for i, row in enumerate(rows(content, path, collector), 1):
            for name, question in collector.add(partial(row_question, row, f"{path}, record {i}")):
                if name in found:
                    raise FileError(f"{path}, record {i}: {name!r} is there twice; keep one of them")
                found[name] = question
        return found
    for video, entry in table(content, path).items():
        where = f"{path}, video {video!r}"
        for location in collector.add(partial(need, entry, ["location"], where, Mapping)):
            for name in location:
                for question in collector.add(partial(located, entry, name, where)):
                    found[f"{video}_{name}"] = question
    if not found:
        raise FileError(f"{path}: holds no question with a target window")
    return found


def located(entry: Mapping, question: str, where: str) -> Question:
    """A question of NExT-GQA, whose windows stand under ``location``."""
    spans, length = windows_at(entry["location"], [question], where), entry.get("duration")
    if not spans:
        raise FileError(f"{where}, question {question!r}: no target window")
    return Question(spans, None, float(length) if is_number(length) else None)


def row_question(row: Mapping, where: str) -> tuple[str, Question]:
    """A row with ``qid`` (or this project's ``id``), target windows and the right answer (``ans``)."""
    if "events" in row:
        spans = tuple(event_window(event, where) for event in need(row, ["events"], where, list))
        return str(need(row, ["id"], where)), Question(spans, row.get("answer"), row.get("duration_s"))
    spans = windows(need(row, TARGET_KEYS, where), where)
    name = str(need(row, ["qid", "id", "query_id"], where))
    return name, Question(spans, first_of(row, ("ans", "answer")), row.get("duration"))


@dataclass
class Answers:
    """Predicted windows and answers by question."""

    windows: dict[str, object]
    """Question -> (start, end), or None where nothing could be read."""
    options: dict[str, tuple[object, object]] | None
    """Question -> (right answer, predicted answer); None where the file holds none."""
    parsed: list[Parsed]
    fractions: int = 0
    """Windows that were fractions of their videos, and are seconds now."""


def question_answers(paths: Sequence[Path], asked: Mapping[str, Question]) -> Answers:
    """The answers to questions.

    Known layouts: NExT-GQA's two files, windows (``*_ground.json``: {"video_qid": [s, e]}) and answers (``*-res.json``:
    {"video_qid": {"answer", "prediction"}}); both in one as ``{"ground": {..}, "qa": {..}}``; this project's
    predictions, whose first span is the window; rows of ``qid`` with a window, an answer, or both (ReXTime). Where
    every window lies between 0 and 1 they are fractions of the videos.

    Args:
        paths: one file or two.
        asked: the annotated questions.

    Raises:
        FileError: none of these.
    """
    found = Answers({}, None, [])
    for path in paths:
        content = read(path)
        if isinstance(content, list):
            for i, row in enumerate(rows(content, path), 1):
                row_answer(row, f"{path}, record {i}", found, asked)
            continue
        content = table(content, path)
        if "ground" in content:
            add_windows(table(need(content, ["ground"], str(path)), f"{path}, 'ground'"), path, found)
            content = content.get("qa") or {}
        for name, row in content.items():
            if isinstance(row, dict):
                where = f"{path}, question {name!r}"
                found.options = found.options or {}
                found.options[name] = need(row, ["answer"], where), need(row, ["prediction"], where)
            else:
                add_windows({name: row}, path, found)
    valid = [window for window in found.windows.values() if is_valid(window)]
    if valid and all(window[0] >= 0 and window[1] <= 1 for window in valid):
        found.windows = {name: scaled(window, asked.get(name)) for name, window in found.windows.items()}
        found.fractions = len(valid)
    return found


def scaled(window: object, question: Question | None) -> object:
    """A window of fractions in seconds, rounded to 0.1 s as NExT-GQA's evaluation does."""
    if not is_valid(window) or question is None or not question.duration_s:
        return window
    return from_fractions(window, question.duration_s)


def add_windows(content: Mapping, path: Path, found: Answers) -> None:
    """Windows by question; one in text is read."""
    for name, span in content.items():
        if isinstance(span, str):
            found.parsed.append(read_moments(span))
            span = list(found.parsed[-1].windows[0]) if found.parsed[-1].windows else None
        if span is not None and not isinstance(span, list):
            raise FileError(f"{path}, question {name!r}: expected [start, end], got {describe(span)}")
        found.windows[name] = span


def row_answer(row: Mapping, where: str, found: Answers, asked: Mapping[str, Question]) -> None:
    """A row of this project's predictions, or one with a window, an answer or both."""
    own = "query_id" in row and "spans" in row
    name = str(need(row, ["query_id"] if own else ["qid", "id", "query_id"], where))
    if name in found.windows:
        raise FileError(f"{where}: {name!r} has an answer already; keep one of them")
    if own:
        spans = need(row, ["spans"], where, list)
        found.windows[name] = spans[0][:2] if spans else None  # without the score
        chosen = row.get("option")
    else:
        window = first_of(row, WINDOW_KEYS)
        if isinstance(window, list) and window and isinstance(window[0], list):
            window = window[0][:2]
        add_windows({name: window}, Path(where), found)
        chosen = first_of(row, OPTION_KEYS)
    right = asked[name].answer if name in asked else None
    if right is not None and (chosen is not None or own):
        found.options = found.options or {}
        found.options[name] = right, chosen
