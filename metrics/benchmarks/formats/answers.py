"""Predicted moments, from every layout in which they are passed around: windows, or the text of an answer."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from metrics.benchmarks.formats.files import FileError, describe, first_of, need, read, rows, table
from metrics.benchmarks.formats.harness import is_log, log_answers
from metrics.benchmarks.formats.moments import TEXT_KEYS, VIDEO_KEYS
from metrics.spans import is_number

SEPARATOR = ">>>"
ANSWER_KEYS = ("pred", "pred_relevant_windows", "timestamps", "timestamp", "predicted_times", "prediction", "response",
               "answers", "answer", "output", "pred_answer")  # fmt: skip
ID_KEYS = ("id", "qid", "query_id", "index", "anno_id", "annotation_id")
NUMERIC = re.compile(r"\s*[-+]?\d+(?:\.\d+)?\s*")


@dataclass
class Answer:
    """One predicted answer, and what it says it is an answer to."""

    where: str
    """File and place, for messages."""
    windows: list | None = None
    """As predicted, best first; None: null, or to be read from the text."""
    said: str | None = None
    """The text of the answer, where the windows have to be read from it."""
    id: str | None = None
    video: str | None = None
    text: str | None = None
    """The sentence it was asked for."""
    target: object = None
    """The annotation that the prediction file carries itself; None: it carries none."""
    rule: str | None = None
    """The rule by which this project read the windows."""
    own: bool = False
    """A line of this project's predictions.jsonl, whose id is that of the query."""
    duration_s: float | None = None
    from_text: int = 0
    """Windows whose numbers were written as text."""


def answers(path: Path | str) -> list[Answer]:
    """The answers of a prediction file.

    Known layouts: this project's predictions (also a folder of a run that goes on); ``{video: {query: {start, end,
    conf}}}``; ``{"video>>>query>>>span": {"timestamps"|"answers"} or text}`` (TimeLens, lmms-eval); lmms-eval's
    ``--log_samples`` and VLMEvalKit's tables; ``{qid: {timestamp, query, vid}}`` (TimeChat, VTG-LLM), also under
    ``results`` with ``video_id`` (DisTime); ``{"results": [{clip_uid, annotation_uid, query_idx, predicted_times}]}``
    (Ego4D); rows with a window, a list of windows, null, or text under one of ``ANSWER_KEYS``, which say what they
    answer by an id, or by video and sentence.

    Raises:
        FileError: none of these.
    """
    content = read(path)
    if isinstance(content, dict) and isinstance(content.get("results"), (list, Mapping)):
        content = content["results"]
    if isinstance(content, dict):
        return list(of_mapping(table(content, path), path))
    if is_log(content):
        return [Answer(**values) for values in log_answers(content, path)]
    found: list[Answer] = []
    for number, row in enumerate(rows(content, path), 1):
        where = f"{path}, record {number}"
        if row and all(SEPARATOR in key for key in row):
            found += of_mapping(row, path)
        elif "clip_uid" in row:
            found.append(ego4d_answer(row, where))
        else:
            found.append(own_answer(row, where) if is_own(row) else row_answer(row, where))
    return found


def is_own(row: Mapping) -> bool:
    """True for a line of this project's predictions.jsonl."""
    return "query_id" in row and ("spans" in row or not any(key in row for key in ANSWER_KEYS))


def own_answer(row: Mapping, where: str) -> Answer:
    """A line of this project's predictions.jsonl."""
    name, spans = need(row, ["query_id"], where, str), as_windows(need(row, ["spans"], where), where)
    read_by = row.get("rule", "")
    windows = None if not spans and read_by is None else spans
    rule = read_by if "rule" in row else ""
    return Answer(where, windows, id=name, rule=rule, own=True)


def of_mapping(content: Mapping, path: Path | str) -> Iterator[Answer]:
    """Answers by key: "video>>>query>>>span", a number of a query, or a video with its queries."""
    for key, value in content.items():
        where = f"{path}, {key!r:.80}"
        if SEPARATOR in key:
            yield keyed_answer(key, value, where)
        elif isinstance(value, dict) and {"timestamp", "timestamps"} & value.keys():
            yield row_answer({**value, "id": value.get("anno_id", key)}, where)
        else:
            for sentence, answer in table(value, f"{path}, video {key!r}").items():
                where = f"{path}, video {key!r}, query {sentence!r}"
                yield Answer(where, nested_windows(answer, where), video=key, text=sentence)


def keyed_answer(key: str, value: object, where: str) -> Answer:
    """``"video>>>query>>>span": {"timestamps": [[s, e]], "answers": text}``, or the text alone.

    Raises:
        FileError: the key or the value is of another kind.
    """
    parts = key.split(SEPARATOR)
    if len(parts) < 3:
        raise FileError(f"{where}: expected 'video>>>query>>>span'")
    try:
        target = json.loads(parts[-1].replace("(", "[").replace(")", "]"))
    except (ValueError, RecursionError):
        raise FileError(f"{where}: no target window in {parts[-1]!r:.60}") from None
    about = {"video": parts[0], "text": SEPARATOR.join(parts[1:-1]), "target": target}
    if isinstance(value, str):
        return Answer(where, said=value, **about)
    length = value.get("duration") if isinstance(value, dict) else None
    about["duration_s"] = float(length) if is_number(length) else None
    if isinstance(value, dict) and "timestamps" in value:
        return Answer(where, as_windows(value["timestamps"], where), **about)
    return Answer(where, said=need(value, ["answers"], where, str), **about)


def row_answer(row: Mapping, where: str) -> Answer:
    """A row with an answer under one of ``ANSWER_KEYS``.

    Raises:
        FileError: it has none, or what stands there is no window, list of windows or text.
    """
    value = need(row, ANSWER_KEYS, where)
    name, video = first_of(row, ID_KEYS), first_of(row, VIDEO_KEYS)
    text = first_of(row, [key for key in TEXT_KEYS if key != "answer"])
    length = row.get("duration")
    found = Answer(
        where,
        id=None if name is None else str(name),
        video=None if video is None else str(video),
        text=text if isinstance(text, str) else None,
        duration_s=float(length) if is_number(length) else None,
    )
    if isinstance(value, str):
        found.said = value
    elif value is not None:
        single = isinstance(value, list) and bool(value) and not isinstance(value[0], (list, str))
        pair = (
            isinstance(value, list)
            and bool(value)
            and all(isinstance(item, str) and NUMERIC.fullmatch(item) for item in value)
        )
        if isinstance(value, list) and not pair and value and all(isinstance(item, str) for item in value):
            found.said = "\n".join(value)
            return found
        found.windows = [value] if single or pair else as_windows(value, where)
        found.windows, found.from_text = as_numbers(found.windows)
    return found


def ego4d_answer(row: Mapping, where: str) -> Answer:
    """A result of Ego4D NLQ."""
    parts = [str(need(row, [key], where)) for key in ("clip_uid", "annotation_uid", "query_idx")]
    return Answer(where, as_windows(need(row, ["predicted_times"], where), where), id="/".join(parts))


def as_windows(value: object, where: str) -> list:
    """A list of windows; what is in them is checked when they are scored.

    Raises:
        FileError: not a list of lists.
    """
    if not isinstance(value, list) or not all(isinstance(item, list) for item in value):
        raise FileError(f"{where}: expected a list of windows [[start, end], ...], got {describe(value)}")
    return value


def as_numbers(windows: Sequence) -> tuple[list, int]:
    """Windows with numbers for numbers that were written as text, and how many windows had some."""
    found, count = [], 0
    for window in windows:
        texts = isinstance(window, list) and any(isinstance(time, str) for time in window)
        if texts and all(is_number(time) or isinstance(time, str) and NUMERIC.fullmatch(time) for time in window):
            window, count = [float(time) for time in window], count + 1
        found.append(window)
    return found, count


def nested_windows(answer: object, where: str) -> list:
    """``{start, end, conf}``, or a list of these, best first."""
    items = answer if isinstance(answer, list) else [answer]
    if not all(isinstance(item, dict) for item in items):
        raise FileError(f"{where}: expected start, end and conf, got {describe(answer)}")
    return [[need(item, ["start"], where), need(item, ["end"], where)] for item in items]
