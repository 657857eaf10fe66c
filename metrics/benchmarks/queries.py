"""This project's predictions against this project's queries: every task of a file, as an evaluation run scores it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from metrics.benchmarks.formats.answers import as_windows
from metrics.benchmarks.formats.files import FileError, by_id, each, need
from metrics.benchmarks.formats.stories import event_window
from metrics.benchmarks.result import Job, Result
from metrics.dense_captioning import localization_rows, localization_summary, video_soda_d
from metrics.dialogue import dialogue_bleu, dialogue_counts, dialogue_rows
from metrics.grounded_qa import grounded_qa_rows
from metrics.grounding import grounding_rows
from metrics.highlights import highlight_rows, highlight_scores
from metrics.means import Row
from metrics.moment_retrieval import Protocol, retrieval_rows
from metrics.moment_sets import set_row
from metrics.no_moments import no_moment_row
from metrics.spans import count_invalid, is_valid
from metrics.video_highlights import VIDEO_PRECISION, video_rows

FULL = Protocol({"full": None}, ranks=(), brief_recalls=())
"""mAP over all moments, whatever their length; R@k is already among the numbers of grounding."""
Scored = tuple[list[Row], dict[str, float]]
"""The values of each query, and counts."""


@dataclass(frozen=True)
class Asked:
    """A query and its answer."""

    query: Mapping
    """A line of queries.jsonl."""
    answer: Mapping | None
    """A line of predictions.jsonl; None: there is none."""

    @property
    def targets(self) -> list:
        """The windows of the events."""
        return [(event["start_s"], event["end_s"]) for event in self.query.get("events", ())]

    def windows(self, width: int = 2) -> list | None:
        """The first numbers of each predicted span; [] without an answer, None where it could not be read."""
        if self.answer is None or self.answer.get("rule", "") == "none":
            return []
        spans = [span[:width] for span in self.answer["spans"]]
        return None if not spans and self.answer.get("rule", "") is None else spans

    @property
    def said(self) -> list[str]:
        """The answers to the questions of a dialogue."""
        return list(self.answer.get("answers") or [self.answer.get("answer", "")]) if self.answer else []

    @property
    def references(self) -> list[str]:
        """What the questions of a dialogue should be answered."""
        return [turn["answer"] for turn in self.query["turns"]]

    @property
    def choice(self) -> tuple | None:
        """The right option and the chosen one."""
        if self.query.get("answer") is None:
            return None
        return self.query["answer"], None if self.answer is None else self.answer.get("option")

    @property
    def saliency(self) -> list | None:
        """The predicted saliency."""
        return (self.answer.get("saliency") or None) if self.answer else None


def report(predicted: Sequence[list | None], ranks: int | None = None) -> dict[str, float]:
    """n, unparsed and invalid; of each query the first windows are looked at."""
    used = [(windows or [])[:ranks] for windows in predicted]
    unparsed = sum(windows is None for windows in predicted)
    return {"n": len(predicted), "unparsed": unparsed, "invalid": count_invalid(used)}


def grounding(asked: Sequence[Asked]) -> Scored:
    """R@1 and mIoU."""
    predicted = [item.windows() for item in asked]
    return grounding_rows(predicted, [item.targets for item in asked]), report(predicted, ranks=1)


def ranked_moments(asked: Sequence[Asked]) -> Scored:
    """mAP of ranked windows."""
    predicted = [item.windows(3) for item in asked]
    rows = retrieval_rows(predicted, [item.targets for item in asked], protocol=FULL)
    return rows, report(predicted)


def moment_sets(asked: Sequence[Asked]) -> Scored:
    """Sets of moments, where some query has several or none."""
    predicted = [item.windows() if item.answer else None for item in asked]
    rows = [
        {**set_row(windows, item.targets), **no_moment_row(windows, item.targets)}
        for windows, item in zip(predicted, asked, strict=True)
    ]
    return rows, {"n": len(asked), "without_moment": sum(not item.targets for item in asked)}


def highlights(asked: Sequence[Asked]) -> Scored:
    """mAP and HIT@1 of QVHighlights."""
    saliency, ratings = [item.saliency for item in asked], [item.query["saliency"] for item in asked]
    counts = highlight_scores(saliency, ratings)
    return highlight_rows(saliency, ratings), {name: counts[name] for name in ("n", "missing", "invalid", "short")}


def labelled(name: str) -> Callable[[Sequence[Asked]], Scored]:
    """TVSum and YouTube Highlights."""

    def run(asked: Sequence[Asked]) -> Scored:
        """mAP over videos."""
        videos = [(item.saliency or [], item.query["saliency"], "all") for item in asked]
        rows = video_rows(videos, VIDEO_PRECISION[name])
        return rows, {"n": sum(map(bool, rows))}

    return run


def dense_captioning(asked: Sequence[Asked]) -> Scored:
    """Localisation and order of events, in percent."""
    predicted = [item.windows() for item in asked]
    rows = []
    located = localization_rows(predicted, [[item.targets] for item in asked])
    for row, windows, item in zip(located, predicted, asked, strict=True):
        percent = {name: 100 * value for name, value in row.items()}
        rows.append({**percent, "SODA_d": 100 * video_soda_d(windows, item.targets)})
    return rows, report(predicted)


def dialogue(asked: Sequence[Asked]) -> Scored:
    """Words shared with the reference answers; those of all together are in ``score_queries``."""
    said, references = [item.said for item in asked], [item.references for item in asked]
    return dialogue_rows(said, references), dialogue_counts(said, references)


def choices(asked: Sequence[Asked]) -> Scored:
    """Accuracy."""
    rows = [{"Acc": 100.0 * (item.choice[0] == item.choice[1])} for item in asked]
    return rows, {"n": len(asked), "unparsed": sum(item.choice[1] is None for item in asked)}


def evidence(asked: Sequence[Asked]) -> Scored:
    """Accuracy with IoP and IoU; a question without target windows has an answer at most."""
    names = [item.query["id"] for item in asked]
    windows = {name: (item.windows() or [None])[0] for name, item in zip(names, asked, strict=True)}
    answers = {name: item.choice for name, item in zip(names, asked, strict=True) if item.choice}
    rows = grounded_qa_rows(windows, {n: item.targets for n, item in zip(names, asked, strict=True)}, answers)
    for name, (right, chosen) in answers.items():
        rows[name] = {**rows[name], "Acc@QA": 100.0 * (right == chosen)}
    invalid = sum(window is not None and not is_valid(window) for window in windows.values())
    missing = sum(window is None for window in windows.values())
    return [rows[name] for name in names], {"n": len(asked), "missing": missing, "invalid": invalid}


TASKS: dict[str, tuple[Callable[[Sequence[Asked]], Scored], Callable[[Mapping], bool]]] = {
    "grounding": (grounding, lambda query: is_moment(query)),
    "moments": (ranked_moments, lambda query: is_moment(query)),
    "sets": (moment_sets, lambda query: query["task"] == "grounding" and "events" in query),
    "highlights": (highlights, lambda query: query["task"] == "grounding" and bool(query.get("saliency"))),
    "tvsum": (labelled("tvsum"), lambda query: is_labelled(query, "tvsum")),
    "youtube_highlights": (labelled("youtube_highlights"), lambda query: is_labelled(query, "youtube_highlights")),
    "dense_captioning": (dense_captioning, lambda query: query["task"] == "dense_captioning"),
    "dialogue": (dialogue, lambda query: has_references(query)),
    "qa": (choices, lambda query: query["task"] == "qa" and query.get("answer") is not None),
    "grounded_qa": (evidence, lambda query: query["task"] == "grounded_qa"),
}
"""Task -> how it is scored, and which queries it is about."""


def is_moment(query: Mapping) -> bool:
    """True for a moment to find."""
    return query["task"] == "grounding" and bool(query.get("events"))


def is_labelled(query: Mapping, source: str) -> bool:
    """True for a video of a data set of labelled clips."""
    return query["task"] == "highlights" and query.get("source") == source


def has_references(query: Mapping) -> bool:
    """True for a dialogue whose answers are known."""
    return query["task"] == "dialogue" and all(turn.get("answer") is not None for turn in query["turns"])


def score_queries(pairs: Sequence[tuple[Mapping, Mapping | None]]) -> Result:
    """Score answers to this project's queries.

    Args:
        pairs: records of queries.jsonl, each with its record of predictions.jsonl, or None without an answer.

    Returns:
        ``grounding/R1@0.5`` and so on of the tasks that have a query.
    """
    asked = [Asked(query, answer) for query, answer in pairs]
    several = any(item.query["task"] == "grounding" and len(item.query.get("events", [0])) != 1 for item in asked)
    rows: dict[str, dict] = {item.query["id"]: {} for item in asked}
    counts: dict[str, float] = {}
    for task, (run, about) in TASKS.items():
        chosen = [item for item in asked if about(item.query)]
        if not chosen or task == "sets" and not several:
            continue
        found, noticed = run(chosen)
        for item, row in zip(chosen, found, strict=True):
            rows[item.query["id"]] |= {f"{task}/{name}": value for name, value in row.items()}
        counts |= {f"{task}/{name}": value for name, value in noticed.items()}
    answered = {item.query["id"] for item in asked if item.answer is not None}
    talks = [item for item in asked if has_references(item.query)]
    grams = dialogue_bleu([item.said for item in talks], [item.references for item in talks])
    whole = {f"dialogue/{name}": value for name, value in grams.items()}
    return Result(rows, counts, summary, whole, answered=answered)


def summary(means: Mapping[str, float]) -> dict[str, float]:
    """The means, with F1 of the events of dense captioning."""
    prefix = "dense_captioning/"
    own = {name.removeprefix(prefix): value for name, value in means.items() if name.startswith(prefix)}
    scores = {name: value for name, value in means.items() if not name.startswith(prefix)}
    if own:
        scores |= {f"{prefix}{name}": value for name, value in localization_summary(own).items()}
        scores[f"{prefix}SODA_d"] = own["SODA_d"]
    return scores


def queries(job: Job) -> Result:
    """Predictions of this project's runs, also unfinished ones, against its query files; percent.

    Raises:
        FileError: another layout, or no query has an answer.
    """
    asked = by_id((checked(row, where) for path in job.annotated for where, row in placed(path)), job.annotated[0])
    answers = by_id((read_answer(row, where) for where, row in placed(job.predicted)), job.predicted)
    if not asked.keys() & answers.keys():
        raise FileError(f"{job.predicted}: none of the {len(asked)} queries has an answer in it")
    result = score_queries([(query, answers.get(name)) for name, query in asked.items()])
    missing = sum(name not in answers for name in asked)
    unknown = sum(name not in asked for name in answers)
    result.counts = {"n": len(asked), "missing": missing, "unknown": unknown, **result.counts}
    return result


def placed(path) -> list[tuple[str, Mapping]]:
    """The records of a file with their places."""
    return [(f"{path}, record {i}", row) for i, row in each(path)]


def checked(row: Mapping, where: str) -> tuple[str, Mapping]:
    """Id and record of a query; its events have windows."""
    need(row, ["task"], where, str)
    for event in row.get("events", ()):
        event_window(event, where)
    return need(row, ["id"], where, str), row


def read_answer(row: Mapping, where: str) -> tuple[str, Mapping]:
    """Query id and record of an answer; its spans are a list of windows."""
    as_windows(need(row, ["spans"], where), where)
    for key, kind in (("option", int), ("saliency", list), ("rule", str), ("answers", list)):
        if row.get(key) is not None:
            need(row, [key], where, kind)
    return need(row, ["query_id"], where, str), row
