"""Prediction files of the field, and this project's predictions.jsonl, read into what the metrics take."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from metrics.benchmarks.annotations import Moment, normal
from metrics.benchmarks.answers import Parsed, parse_report, timelens_windows
from metrics.benchmarks.files import FileError, by_id, describe, each, need, read, rows, table
from metrics.spans import is_number

Windows = list


@dataclass
class Predictions:
    """Answers by id, and what was noticed while reading them."""

    answers: dict[str, object] = field(default_factory=dict)
    unknown: int = 0
    """Answers to something that is not annotated; they are not scored."""
    parsing: dict = field(default_factory=dict)
    """Which parser rules matched, where answers were text."""
    names: tuple[str, ...] = ()
    """Every id in the file."""


def is_own(content: object) -> bool:
    """True for this project's predictions.jsonl."""
    return isinstance(content, list) and bool(content) and isinstance(content[0], Mapping) and "query_id" in content[0]


def own_windows(row: Mapping, where: str) -> Windows | None:
    """The spans of one of this project's predictions; None where the answer could not be read."""
    spans = as_windows(need(row, ["spans"], where), where)
    return None if not spans and row.get("rule", "") is None else spans


def as_windows(value: object, where: str) -> Windows:
    """A list of windows; what is in them is checked when they are scored.

    Raises:
        FileError: not a list of lists.
    """
    if not isinstance(value, list) or not all(isinstance(item, list) for item in value):
        raise FileError(f"{where}: expected a list of windows [[start, end], ...], got {describe(value)}")
    return value


def grounding(path: Path | str, moments: Sequence[Moment]) -> Predictions:
    """Windows, best first, for annotated moments.

    Known layouts: this project's predictions; ``{video: {query: {start, end, conf}}}``; rows with ``pred`` (a window,
    a list of windows, or null) or ``answer`` (text, read by the rules of TimeLens), found by ``id`` or else by video
    and sentence.

    Raises:
        FileError: none of these, or an id twice.
    """
    content = read(path)
    names = {moment.id for moment in moments}
    texts: dict[tuple[str, str], list[str]] = {}
    for moment in moments:
        texts.setdefault((moment.video, normal(moment.text)), []).append(moment.id)
    result = Predictions()
    if isinstance(content, Mapping):
        for video, answers in table(content, path).items():
            for sentence, answer in table(answers, f"{path}, video {video!r}").items():
                where = f"{path}, video {video!r}, query {sentence!r}"
                place(result, texts.get((video, normal(sentence)), []), nested_windows(answer, where), where)
        return result
    parsed: list[Parsed] = []
    for number, row in enumerate(rows(content, path), 1):
        where = f"{path}, record {number}"
        if "query_id" in row:
            name, windows = need(row, ["query_id"], where, str), own_windows(row, where)
            if "rule" in row:
                rule = row["rule"] if isinstance(row["rule"], str) else None
                parsed.append(Parsed(tuple(map(tuple, windows or [])), rule=rule))
            place(result, [name] if name in names else [], windows, where)
            continue
        name = str(row["id"]) if "id" in row else str(row.get("qid", ""))
        if name in names:
            targets = [name]
        else:
            video, text = row.get("vid", row.get("video")), row.get("query", row.get("sentence", ""))
            targets = texts.get((str(video), normal(str(text))), [])
        place(result, targets, row_windows(row, where, parsed), where)
    if parsed:
        result.parsing = parse_report(parsed)
    return result


def place(result: Predictions, targets: Sequence[str], answer: object, where: str) -> None:
    """Store an answer under every moment that it is for.

    Raises:
        FileError: such a moment has an answer already.
    """
    result.unknown += not targets
    for name in targets:
        if name in result.answers:
            raise FileError(f"{where}: {name!r} has an answer already; keep one of them")
        result.answers[name] = answer


def nested_windows(answer: object, where: str) -> Windows:
    """``{start, end, conf}``, or a list of these, best first."""
    items = answer if isinstance(answer, list) else [answer]
    if not all(isinstance(item, Mapping) for item in items):
        raise FileError(f"{where}: expected start, end and conf, got {describe(answer)}")
    return [[need(item, ["start"], where), need(item, ["end"], where)] for item in items]


def row_windows(row: Mapping, where: str, parsed: list[Parsed]) -> Windows | None:
    """The windows of a row; None for null or for text in which there is none."""
    if "pred" not in row and isinstance(row.get("answer"), str):
        parsed.append(timelens_windows(row["answer"]))
        return [list(window) for window in parsed[-1].windows] or None
    answer = need(row, ["pred", "pred_relevant_windows", "answer"], where)
    if answer is None:
        return None
    if isinstance(answer, list) and answer and not isinstance(answer[0], list):
        return [answer]
    return as_windows(answer, where)


def events(path: Path | str, known: Sequence[str]) -> Predictions:
    """Predicted events by video: lists of (start, end, caption); None where nothing could be read.

    Known layouts: this project's predictions; ``{video: [{timestamp, sentence}]}`` (``caption`` for ``sentence`` as in
    TimeChat), also under ``results``.

    Raises:
        FileError: none of these, or a bad record.
    """
    content = read(path)
    if isinstance(content, Mapping) and isinstance(content.get("results"), Mapping):
        content = content["results"]
    if is_own(content):
        numbered = [(f"{path}, record {i}", row) for i, row in enumerate(rows(content, path), 1)]
        asked = [(where, row) for where, row in numbered if row.get("task") == "dense_captioning"]
        pairs = [(need(row, ["video"], where, str), own_events(row, where)) for where, row in asked]
    else:
        pairs = []
        for video, items in table(content, path).items():
            if not isinstance(items, list):
                raise FileError(f"{path}, video {video!r}: expected a list of events, got {describe(items)}")
            pairs.append((video, [event(item, f"{path}, video {video!r}, event {i}") for i, item in enumerate(items)]))
    found = by_id(pairs, path)
    kept = {video: found[video] for video in known if video in found}
    return Predictions(kept, len(found) - len(kept), names=tuple(found))


def own_events(row: Mapping, where: str) -> list | None:
    """The events of one of this project's dense captioning predictions."""
    spans, captions = own_windows(row, where), need(row, ["captions"], where, list)
    if spans is None:
        return None
    if not all(isinstance(text, str) for text in captions):
        raise FileError(f"{where}: 'captions' must hold text")
    if len(spans) != len(captions):
        raise FileError(f"{where}: {len(spans)} spans for {len(captions)} captions")
    if any(len(span) not in (2, 3) for span in spans):
        raise FileError(f"{where}: a span must be [start, end] or [start, end, score]")
    return [(*span[:2], text) for span, text in zip(spans, captions, strict=True)]


def event(item: object, where: str) -> tuple:
    """``{timestamp: [start, end], sentence}`` as (start, end, caption); times are checked when they are scored."""
    times, caption = need(item, ["timestamp"], where, list), need(item, ["sentence", "caption"], where, str)
    if len(times) != 2:
        raise FileError(f"{where}: timestamp must be [start, end], got {describe(times)}")
    return (*times, caption)


def submission(path: Path | str) -> list[tuple[str, Mapping]]:
    """Moment-DETR submissions with their ``qid``, or this project's predictions with ``query_id`` in the same form.

    Raises:
        FileError: another layout.
    """
    pairs = []
    for number, row in each(path):
        where = f"{path}, record {number}"
        if "query_id" in row:
            record = {"pred_relevant_windows": own_windows(row, where)}
            if row.get("saliency"):
                record["pred_saliency_scores"] = need(row, ["saliency"], where, list)
            pairs.append((str(row["query_id"]), record))
            continue
        name = str(need(row, ["qid", "vid"], where))
        if "pred_relevant_windows" in row:
            as_windows(row["pred_relevant_windows"], where)
        scores = row.get("pred_saliency_scores")
        if scores is not None and not isinstance(scores, list):
            raise FileError(f"{where}: pred_saliency_scores must be a list, got {describe(scores)}")
        if not {"pred_relevant_windows", "pred_saliency_scores"} & set(row):
            raise FileError(f"{where}: neither 'pred_relevant_windows' nor 'pred_saliency_scores'")
        pairs.append((name, row))
    return pairs


def saliency_list(scores: object) -> list | None:
    """Scores as floats; a value that is no number becomes NaN, so that it is counted as invalid."""
    if scores is None:
        return None
    return [float(score) if is_number(score) else float("nan") for score in scores]


def question_answers(path: Path | str) -> tuple[dict[str, object], dict[str, tuple[object, object]] | None]:
    """NExT-GQA predictions: "video_qid" -> window in seconds, and -> (right answer, predicted answer) or None.

    Known layouts: ``{"ground": {..}, "qa": {..}}``; this project's predictions, whose query ids are "video_qid" and
    whose first span is the window.

    Raises:
        FileError: none of these.
    """
    content = read(path)
    if is_own(content):
        found = {}
        for i, row in enumerate(rows(content, path), 1):
            where = f"{path}, record {i}"
            name, windows = need(row, ["query_id"], where, str), own_windows(row, where)
            if name in found:
                raise FileError(f"{where}: {name!r} has an answer already; keep one of them")
            found[name] = windows[0][:2] if windows else None  # without the score
        return found, None
    ground = table(need(table(content, path), ["ground"], str(path)), f"{path}, 'ground'")
    for name, span in ground.items():
        if span is not None and not isinstance(span, list):
            raise FileError(f"{path}, question {name!r}: expected [start, end], got {describe(span)}")
    answers = content.get("qa")
    if answers is None:
        return dict(ground), None
    right = {}
    for name, row in table(answers, f"{path}, 'qa'").items():
        where = f"{path}, question {name!r}"
        right[name] = need(row, ["answer"], where), need(row, ["prediction"], where)
    return dict(ground), right
