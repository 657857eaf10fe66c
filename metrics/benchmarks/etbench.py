"""E.T. Bench: twelve tasks of event-level and time-sensitive video understanding, each per source.

A sample is a mapping with ``task``, ``source``, ``video``, ``a`` (the answer as text), and by task ``tgt`` (windows in
seconds), ``p`` and ``o`` (index of the right option, options), ``g`` (captions). Scores are fractions.

Source: Liu et al., E.T. Bench: Towards Open-Ended Event-Level Video-Language Understanding (2024).
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from metrics.benchmarks.answers import Parsed, read_moments
from metrics.benchmarks.etbench_captions import caption_rows, caption_summary
from metrics.benchmarks.official_windows import etbench_windows
from metrics.benchmarks.options import Choice, choice_of_gvq, choice_of_rvq
from metrics.grounding import EVALUATORS, best_ious
from metrics.means import Row, column_means, harmonic, mean
from metrics.moment_sets import length, merged
from metrics.policies import check_policy
from metrics.spans import as_array, iou

Sample = Mapping
THRESHOLDS = (0.1, 0.3, 0.5, 0.7)
SECONDS = 1000
"""Seconds of a video that the official evaluation of EVS sees."""
FIRST_NUMBER = re.compile(r"[-+]?(?:\d+(?:\.\d+)?|\.\d+)")
DOMAINS = {
    "Acc(ref)": ("RAR", "ECA", "RVQ"),
    "F1(gnd)": ("TVG", "EPM", "TAL", "EVS", "VHD"),
    "F1(cap)": ("DVC_F1", "SLC_F1"),
    "Sim(cap)": ("DVC_Sim", "SLC_Sim"),
    "Rec(com)": ("TEM", "GVQ"),
}
HEADLINE = {"rar": "Acc", "eca": "Acc", "rvq": "Acc", "tem": "mRec", "gvq": "mRec"}
"""What a task reports as its one number; F1 for the others."""


@dataclass(frozen=True)
class Rows:
    """The values of each sample of one task and source."""

    rows: Sequence[Row]
    """One a sample, or a video where the official code keeps one; empty where it enters no mean."""
    failed: int
    """Answers in which nothing could be read."""


def windows_of(sample: Sample, policy: str) -> Parsed:
    """The windows of an answer, unless somebody has read it already (``parsed``).

    Raises:
        ValueError: under ``official``, a malformed number, which ends the official evaluation.
    """
    if "parsed" in sample:
        return sample["parsed"]
    if policy == "official":
        return etbench_windows(sample["a"])
    return read_moments(sample["a"], sample.get("duration"))


def first_iou(sample: Sample, policy: str, several: bool) -> tuple[float, bool]:
    """IoU of the first window of an answer with the (best) target, and whether there is a window."""
    windows = windows_of(sample, policy).windows[:1]
    targets = sample["tgt"] if several else [sample["tgt"]]
    rules = EVALUATORS["etbench"] if policy == "official" else None
    return float(best_ious(windows, targets, rules).sum()), bool(windows)


def first_window(samples: Sequence[Sample], policy: str, name: str, several: bool) -> Rows:
    """TVG, EPM (``F1``; in fact the share whose first window reaches an IoU) and TEM (``R``, several targets)."""
    found = [first_iou(sample, policy, several) for sample in samples]
    rows = [{"mIoU": value, **{f"{name}@{t:g}": float(value >= t) for t in THRESHOLDS}} for value, _ in found]
    return Rows(rows, sum(not read for _, read in found))


def action_localization(samples: Sequence[Sample], policy: str) -> Rows:
    """TAL: F1 of each answer, many to many, then the mean over answers."""
    official = policy == "official"
    rows, failed = [], 0
    for sample in samples:
        windows = windows_of(sample, policy).windows
        failed += not windows
        values = [0.0] * len(THRESHOLDS)
        if windows:
            overlaps = iou(windows, as_array(sample["tgt"]), "float32" if official else "exact")
            values = [many_to_many_f1(overlaps, overlaps.dtype.type(t)) for t in THRESHOLDS]
        rows.append({f"F1@{t:g}": value for t, value in zip(THRESHOLDS, values, strict=True)})
    return Rows(rows, failed)


def many_to_many_f1(overlaps: np.ndarray, threshold: float) -> float:
    """F1 of the shares of predictions (rows) and targets (columns) whose best overlap reaches the threshold.

    The shares have the precision of the overlaps. A NaN is the best overlap of its row and reaches nothing.
    """
    best = [overlaps.max(axis=axis) >= threshold for axis in (1, 0)]
    return harmonic(*(float(overlaps.dtype.type(hits.sum()) / overlaps.dtype.type(len(hits))) for hits in best))


def summary(samples: Sequence[Sample], policy: str) -> Rows:
    """EVS: F1 of covered seconds. ``official`` leaves failed answers out and sees 1000 seconds of a video."""
    rows, failed = [], 0
    for sample in samples:
        windows = windows_of(sample, policy).windows
        failed += not windows
        if windows:
            rows.append({"F1": covered_f1(windows, sample["tgt"], SECONDS if policy == "official" else None)})
        else:
            rows.append({"F1": 0.0} if policy == "sound" else {})
    return Rows(rows, failed)


def covered_f1(predicted: Sequence, target: Sequence, seconds: int | None) -> float:
    """F1 of the whole seconds that two sets of windows cover; ends are rounded half to even."""
    size = seconds or int(max(window[1] for window in target)) + 2
    beyond = 0  # predicted seconds behind the last target, which a wild answer may have millions of
    masks = np.zeros((2, size), dtype=bool)
    for mask, windows in zip(masks, (predicted, target), strict=True):
        for start, end in windows:
            mask[max(round(start), 0) : max(round(end), 0)] = True
    if seconds is None:
        beyond = length(merged([(max(round(start), size), round(end)) for start, end in predicted]))
    common = int((masks[0] & masks[1]).sum())
    return harmonic(common / (int(masks[0].sum()) + beyond), common / int(masks[1].sum())) if common else 0.0


def highlight(samples: Sequence[Sample], policy: str) -> Rows:
    """VHD: is the moment of the answer inside a window of any annotator? "F1" is an accuracy.

    ``official``: the moment is the first number of the answer, whatever it counts.
    """
    rows, failed = [], 0
    for sample in samples:
        moment = moment_of(sample, policy)
        failed += moment is None
        windows = sample["tgt"]
        if windows and isinstance(windows[0][0], Sequence):
            windows = [window for annotator in windows for window in annotator]
        hit = moment is not None and any(start <= moment <= end for start, end in windows)
        rows.append({"F1": float(hit)})
    return Rows(rows, failed)


def moment_of(sample: Sample, policy: str) -> float | None:
    """The moment that an answer names: a point, or the middle of its first window."""
    if policy == "official":
        match = FIRST_NUMBER.search(sample["a"])
        return float(match[0]) if match else None
    parsed = read_moments(sample["a"], sample.get("duration"))
    if parsed.windows:
        return sum(parsed.windows[0]) / 2
    return parsed.points[0] if parsed.points else None


def option_accuracy(samples: Sequence[Sample], policy: str) -> Rows:
    """RAR, ECA and RVQ. ``official`` gives a wrong letter a second chance by similarity, ``sound`` does not."""
    sound = policy == "sound"
    choices = [own_choice(row) or choice_of_rvq(row["a"], row["o"], row["p"], final=sound) for row in samples]
    rows = [{"Acc": float(c.option == sample["p"])} for c, sample in zip(choices, samples, strict=True)]
    return Rows(rows, sum(not choice.letter for choice in choices))


def own_choice(sample: Sample) -> Choice | None:
    """The option that this project has read from an answer of its own; None: it is still to be read."""
    return None if sample.get("option") is None else Choice(sample["option"], letter=True)


def grounded_question(samples: Sequence[Sample], policy: str) -> Rows:
    """GVQ: the option must be right, then the first window counts; over all samples."""
    rows, failed = [], 0
    for sample in samples:
        choice = own_choice(sample) or choice_of_gvq(sample["a"], sample["o"], policy == "official")
        hit = choice.option == sample["p"]
        value, read = first_iou(sample, policy, several=False) if hit else (0.0, True)
        failed += choice.option is None or not read
        shares = {f"R@{t:g}": float(value >= t) for t in THRESHOLDS}
        rows.append({"mIoU": value, **shares, "Acc": float(hit)})
    return Rows(rows, failed)


def captioning(samples: Sequence[Sample], policy: str) -> Rows:
    """DVC and SLC: localisation and caption scores of each video, see ``etbench_captions``."""
    return Rows(*caption_rows(samples, policy, THRESHOLDS))


TASK_ROWS: dict[str, Callable[[Sequence[Sample], str], Rows]] = {
    "rar": option_accuracy,
    "eca": option_accuracy,
    "rvq": option_accuracy,
    "tvg": partial(first_window, name="F1", several=False),
    "epm": partial(first_window, name="F1", several=False),
    "tal": action_localization,
    "evs": summary,
    "vhd": highlight,
    "dvc": captioning,
    "slc": captioning,
    "tem": partial(first_window, name="R", several=True),
    "gvq": grounded_question,
}


def task_summary(task: str, means: Mapping[str, float], scale: float = 1.0) -> dict[str, float]:
    """The numbers of a task from the means of its samples' values.

    Args:
        task: a key of ``TASK_ROWS``.
        means: of each column.
        scale: of precision and recall of captions; the official code lowers them by its failures.
    """
    if task in ("dvc", "slc"):
        return caption_summary(means, THRESHOLDS, scale)
    scores = dict(means) or ({"F1": 0.0} if task == "evs" else {})
    for name, head in (("F1", "F1"), ("R", "mRec")):
        shares = [scores[f"{name}@{t:g}"] for t in THRESHOLDS if f"{name}@{t:g}" in scores]
        if shares:
            scores[head] = mean(shares)
    return scores


def task_scores(task: str, samples: Sequence[Sample], policy: str) -> dict[str, float]:
    """``Total``, ``Failed`` and the numbers of a task over samples of one source."""
    found = TASK_ROWS[task](samples, policy)
    scale = caption_scale(found, samples, policy)
    means = column_means(found.rows)
    return {"Total": len(samples), "Failed": found.failed, **task_summary(task, means, scale)}


def caption_scale(found: Rows, samples: Sequence[Sample], policy: str) -> float:
    """The official factor of precision and recall of captions: videos that were read / samples."""
    return sum(map(bool, found.rows)) / len(samples) if policy == "official" else 1.0


TASKS: dict[str, Callable[[Sequence[Sample], str], dict[str, float]]] = {
    task: partial(task_scores, task) for task in TASK_ROWS
}


def grouped(samples: Sequence[Sample]) -> dict[str, dict[str, list[Sample]]]:
    """Task -> source -> samples.

    Raises:
        ValueError: no sample, or an unknown task.
    """
    if not samples:
        raise ValueError("no E.T. Bench sample to score")
    groups: dict[str, dict[str, list[Sample]]] = {}
    for sample in samples:
        if sample["task"] not in TASK_ROWS:
            raise ValueError(f"unknown E.T. Bench task {sample['task']!r}; known: {', '.join(TASK_ROWS)}")
        groups.setdefault(sample["task"], {}).setdefault(sample["source"], []).append(sample)
    return groups


def overview(results: Mapping[str, Mapping[str, Mapping[str, float]]]) -> tuple[dict[str, float], dict[str, float]]:
    """The task means and the domain means of task -> source -> scores."""
    means = {}
    for task, sources in results.items():
        if task in ("dvc", "slc"):
            means[f"{task.upper()}_F1"] = mean(row["F1"] for row in sources.values())
            means[f"{task.upper()}_Sim"] = mean(row["SentSim"] for row in sources.values())
        else:
            means[task.upper()] = mean(row[HEADLINE.get(task, "F1")] for row in sources.values())
    domains = {
        name: mean(means[task] for task in tasks)
        for name, tasks in DOMAINS.items()
        if all(task in means for task in tasks)
    }
    return means, domains


def etbench_scores(samples: Sequence[Sample], policy: str = "sound") -> dict[str, dict]:
    """All scores of a set of answers.

    Args:
        samples: E.T. Bench records with answers.
        policy: ``sound`` or ``official``.

    Returns:
        ``per_task_source``: task -> source -> scores; ``task_means``: the unweighted mean over the sources of each
        task that is there; ``domains``: the means over their tasks, where all of these are there.

    Raises:
        ValueError: no sample, or an unknown task.
    """
    check_policy(policy)
    results = {
        task: {source: TASKS[task](rows, policy) for source, rows in sources.items()}
        for task, sources in grouped(samples).items()
    }
    means, domains = overview(results)
    return {"per_task_source": results, "task_means": means, "domains": domains}
