"""The evaluation log of VTimeLLM: answers on a clock from 00 to 99, about events (captioning) and moments (grounding).

A row has ``video_id``, ``task``, ``answer``; a grounding row also has ``info`` with ``sentence_id`` (and ``iou``).
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from metrics.benchmarks.answers import Parsed, parse_report
from metrics.benchmarks.event_captions import caption_rows
from metrics.benchmarks.formats.files import FileError, by_id, describe, each, need, record
from metrics.benchmarks.formats.stories import Story, stories
from metrics.benchmarks.official_events import vtimellm_events
from metrics.benchmarks.official_windows import vtimellm_window
from metrics.benchmarks.result import Job, Result
from metrics.grounding import grounding_rows
from metrics.means import Row, column_means
from metrics.soda import soda_by_video
from metrics.spans import is_number, is_valid

TASKS = ("captioning", "grounding")
THRESHOLDS = (0.3, 0.5, 0.7)
COUNTS = ("n", "missing", "unparsed", "invalid")
Answered = Sequence[tuple[str, Mapping]]
"""Place and row of each answer."""


def vtimellm_log(job: Job) -> Result:
    """A log of VTimeLLM's evaluation: SODA_c, METEOR, CIDEr and grounding, all times 100."""
    pairs = [(v, story) for path in job.annotated for v, story in stories(path, job.collector).items()]
    rows, counts = log_rows(read_log(job.predicted), by_id(pairs, job.annotated[0]), job.policy, str(job.predicted))
    return Result(rows, counts, evaluator="vtimellm" if job.official else None)


def read_log(path: Path | str) -> list[Mapping]:
    """Rows of a VTimeLLM log; this project's predictions, whose answers have the same wording, become such rows.

    The number at the end of a grounding query's id, as in "video/grounding/3", is that of its sentence.

    Raises:
        FileError: a bad record.
    """
    log = []
    for number, row in each(path):
        if "video_id" not in row and "query_id" in row:
            where = f"{path}, record {number}"
            task, sentence = need(row, ["task"], where, str), need(row, ["query_id"], where, str).rpartition("/")[2]
            info = {"sentence_id": int(sentence)} if sentence.isdecimal() else {}
            names = {"video_id": need(row, ["video"], where), "answer": need(row, ["answer"], where)}
            row = {**names, "task": "captioning" if task == "dense_captioning" else task, "info": info}
        log.append(row)
    return log


def log_scores(
    log: Sequence[Mapping], stories: Mapping[str, Story], policy: str, name: str = "log"
) -> tuple[dict[str, float], dict]:
    """Scores of a log, all times 100, and counts: the means of ``log_rows``."""
    rows, counts = log_rows(log, stories, policy, name)
    return column_means(rows.values()), counts


def log_rows(
    log: Sequence[Mapping], stories: Mapping[str, Story], policy: str, name: str = "log"
) -> tuple[dict[str, Row], dict]:
    """The values of each video and each sentence of a log, all times 100, and counts.

    ``official``: the videos of the log are scored, IoU is the rounded one that the log holds (or, where it holds none,
    is computed and rounded). ``sound``: all annotated videos (sentences) count once the log has an answer of that
    task, and IoU is computed anew and exact.

    Args:
        log: rows; of several captioning answers about a video the last counts.
        stories: video -> annotation.
        policy: ``sound`` or ``official``.
        name: of the log, for messages.

    Returns:
        ``soda_c``, ``METEOR``, ``CIDEr`` by video; ``mIoU``, ``R1@0.3``, ``R1@0.5``, ``R1@0.7`` by sentence.

    Raises:
        FileError: a row without its keys, an unknown task, or no answer to an annotated video.
    """
    answers: dict[str, list[tuple[str, Mapping]]] = {task: [] for task in TASKS}
    unknown = 0
    for number, row in enumerate(log, 1):
        where = f"{name}, record {number}"
        task, video = need(row, ["task"], where, str), need(row, ["video_id"], where, str)
        if task not in TASKS:
            raise FileError(f"{where}: unknown task {task!r}; known: {', '.join(TASKS)}")
        need(row, ["answer"], where, str)
        known = video in stories
        unknown += not known
        if known and math.isnan(stories[video].duration_s):
            raise FileError(f"{where}: the annotation of {video!r} has no duration, which the clock of the log needs")
        if known:
            answers[task].append((where, row))
    if not any(answers.values()):
        raise FileError(f"{name}: no answer to an annotated video")
    rows: dict[str, Row] = {}
    counts = {**dict.fromkeys(COUNTS, 0), "unknown": unknown}
    for task, run in (("captioning", captioning), ("grounding", grounding)):
        if answers[task]:
            own, found = run(answers[task], stories, policy)
            rows |= own
            counts |= {key: counts[key] + found.get(key, 0) for key in COUNTS}
            counts |= {f"{task}_{key}": value for key, value in found.items()}
    return rows, counts


def captioning(answers: Answered, stories: Mapping[str, Story], policy: str) -> tuple[dict[str, Row], dict]:
    """SODA_c, METEOR and CIDEr of the captioning rows, by video."""
    parsed = {
        row["video_id"]: vtimellm_events(row["answer"], stories[row["video_id"]].duration_s) for _, row in answers
    }
    predicted = {v: [(*w, text) for w, text in zip(p.windows, p.captions, strict=True)] for v, p in parsed.items()}
    videos = parsed if policy == "official" else stories
    references = [{video: stories[video].events for video in videos}]
    soda = soda_by_video(predicted, references, "c", policy=policy)
    rows = {}
    for video, row in caption_rows(predicted, references, policy=policy).items():
        captions = {name: 100 * value for name, value in row.items() if name.startswith(("METEOR", "CIDEr"))}
        rows[f"{video}/captioning"] = {"soda_c": 100 * soda[video][2], **captions}
    counts = {
        "n": len(videos),
        "missing": len(stories) - len(parsed),
        "unparsed": sum(not p.windows for p in parsed.values()),
        "replaced": len(answers) - len(parsed),
    }
    return rows, counts


def grounding(answers: Answered, stories: Mapping[str, Story], policy: str) -> tuple[dict[str, Row], dict]:
    """IoU and R1 of the grounding rows, by sentence."""
    predicted: list[list | None] = []
    targets, parsed, ious, names = [], [], [], []
    for where, row in answers:
        info = record(row.get("info") or {}, where)
        ious.append(info.get("iou"))
        if not (ious[-1] is None or is_number(ious[-1])):
            raise FileError(f"{where}: 'iou' must be a number, got {describe(ious[-1])}")
        if ious[-1] is not None and policy == "official":
            continue
        story, sentence = stories[row["video_id"]], need(info, ["sentence_id"], where)
        if not isinstance(sentence, int) or not 0 <= sentence < len(story.events):
            raise FileError(f"{where}: sentence_id {sentence!r} is not in the annotation of {row['video_id']!r}")
        names.append((row["video_id"], sentence))
        parsed.append(vtimellm_window(row["answer"]))
        predicted.append(list(parsed[-1].windows) or None)
        start, end, _ = story.events[sentence]
        targets.append([(start / story.duration_s, end / story.duration_s)])
    if policy == "official" and all(value is not None for value in ious):
        rows = [{"mIoU": 100 * v, **{f"R1@{t:g}": 100.0 * (v >= t) for t in THRESHOLDS}} for v in ious]
        return {f"record {i}": row for i, row in enumerate(rows, 1)}, {"n": len(ious)}
    if policy == "official" and len(predicted) < len(ious):
        raise FileError("some grounding rows of the log hold an iou and some do not")
    every = {(video, i): event for video, story in stories.items() for i, event in enumerate(story.events)}
    lost = [key for key in every if key not in set(names)] if policy == "sound" else []
    rows = scored([*predicted, *([] for _ in lost)], [*targets, *([every[key][:2]] for key in lost)], policy)
    keys = [f"{video}/grounding/{sentence}" for video, sentence in (*names, *lost)]
    if len(set(keys)) < len(keys):
        keys = [f"{key} ({i})" for i, key in enumerate(keys, 1)]  # a sentence that was asked several times
    return dict(zip(keys, rows, strict=True)), {"n": len(rows), **read_counts(predicted, parsed), "missing": len(lost)}


def scored(predicted: list, targets: list, policy: str) -> list[Row]:
    """``grounding_rows`` by the rules of a policy."""
    return grounding_rows(predicted, targets, THRESHOLDS, evaluator="vtimellm" if policy == "official" else None)


def read_counts(predicted: Sequence[list | None], parsed: Sequence[Parsed]) -> dict:
    """What was noticed while reading."""
    return {
        "unparsed": sum(windows is None for windows in predicted),
        "invalid": sum(bool(windows) and not is_valid(windows[0]) for windows in predicted),
        "parsing": parse_report(parsed),
    }
