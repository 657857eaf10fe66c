"""The evaluation log of VTimeLLM: answers on a clock from 00 to 99, about events (captioning) and moments (grounding).

A row has ``video_id``, ``task``, ``answer``; a grounding row also has ``info`` with ``sentence_id`` (and ``iou``).
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from metrics.benchmarks.annotations import Story
from metrics.benchmarks.answers import Parsed, parse_report, vtimellm_events, vtimellm_window
from metrics.benchmarks.event_captions import caption_scores
from metrics.benchmarks.files import FileError, describe, each, need, record
from metrics.grounding import grounding_scores
from metrics.records import mean
from metrics.soda import soda_scores
from metrics.spans import is_number

TASKS = ("captioning", "grounding")
THRESHOLDS = (0.3, 0.5, 0.7)


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
    """Scores of a log, all times 100.

    ``official``: the videos of the log are scored, IoU is the rounded one that the log holds (or, where it holds none,
    is computed and rounded). ``sound``: all annotated videos (sentences) count once the log has an answer of that
    task, and IoU is computed anew and exact.

    Args:
        log: rows; of several captioning answers about a video the last counts.
        stories: video -> annotation.
        policy: ``sound`` or ``official``.
        name: of the log, for messages.

    Returns:
        ``soda_c``, ``METEOR``, ``CIDEr`` if there are captioning answers; ``mIoU``, ``R1@0.3``, ``R1@0.5``,
        ``R1@0.7`` if there are grounding answers; and the counts.

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
            answers[task].append((f"{where}", row))
    if not any(answers.values()):
        raise FileError(f"{name}: no answer to an annotated video")
    metrics, counts = {}, {"n": 0, "missing": 0, "unparsed": 0, "invalid": 0, "unknown": unknown}
    for task, run in (("captioning", captioning), ("grounding", grounding)):
        if answers[task]:
            scores, found = run(answers[task], stories, policy)
            metrics |= scores
            counts |= {name: counts[name] + found.get(name, 0) for name in ("n", "missing", "unparsed", "invalid")}
            counts |= {f"{task}_{key}": value for key, value in found.items()}
    return metrics, counts


def captioning(answers: Sequence[tuple[str, Mapping]], stories: Mapping[str, Story], policy: str) -> tuple[dict, dict]:
    """SODA_c, METEOR and CIDEr of the captioning rows."""
    parsed = {
        row["video_id"]: vtimellm_events(row["answer"], stories[row["video_id"]].duration_s) for _, row in answers
    }
    predicted = {v: [(*w, text) for w, text in zip(p.windows, p.captions, strict=True)] for v, p in parsed.items()}
    videos = parsed if policy == "official" else stories
    references = [{video: stories[video].events for video in videos}]
    captions = caption_scores(predicted, references, policy=policy)
    soda = soda_scores(predicted, references, "c", "average", policy)["f1"]
    scores = {name: 100 * value for name, value in captions.items() if name.startswith(("METEOR", "CIDEr"))}
    counts = {
        "n": len(videos),
        "missing": len(stories) - len(parsed),
        "unparsed": sum(not p.windows for p in parsed.values()),
        "replaced": len(answers) - len(parsed),
    }
    return {"soda_c": 100 * soda, **scores}, counts


def grounding(answers: Sequence[tuple[str, Mapping]], stories: Mapping[str, Story], policy: str) -> tuple[dict, dict]:
    """mIoU and R1 of the grounding rows."""
    predicted: list[list | None] = []
    targets, parsed, ious = [], [], []
    seen = set()
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
        seen.add((row["video_id"], sentence))
        parsed.append(vtimellm_window(row["answer"]))
        predicted.append(list(parsed[-1].windows) or None)
        start, end, _ = story.events[sentence]
        targets.append([(start / story.duration_s, end / story.duration_s)])
    if policy == "official" and all(value is not None for value in ious):
        scores = {"mIoU": 100 * mean(ious)}
        scores |= {f"R1@{t:g}": 100 * mean(value >= t for value in ious) for t in THRESHOLDS}
        return scores, {"n": len(ious)}
    if policy == "official" and len(predicted) < len(ious):
        raise FileError("some grounding rows of the log hold an iou and some do not")
    return computed(predicted, targets, parsed, stories, seen, policy)


def computed(
    predicted: list, targets: list, parsed: Sequence[Parsed], stories: Mapping[str, Story], seen: set, policy: str
) -> tuple[dict, dict]:
    """Grounding scores from the texts; under ``sound`` sentences without an answer count 0."""
    every = {(video, i): event for video, story in stories.items() for i, event in enumerate(story.events)}
    lost = [key for key in every if key not in seen] if policy == "sound" else []
    targets = [*targets, *([every[key][:2]] for key in lost)]
    evaluator = "vtimellm" if policy == "official" else None
    scores = grounding_scores([*predicted, *([] for _ in lost)], targets, THRESHOLDS, evaluator=evaluator)
    counts = {name: scores.pop(name) for name in ("n", "unparsed", "invalid")}
    return scores, {**counts, "missing": len(lost), "parsing": parse_report(parsed)}
