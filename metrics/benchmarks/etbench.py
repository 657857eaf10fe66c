"""E.T. Bench: twelve tasks of event-level and time-sensitive video understanding, each per source.

A sample is a mapping with ``task``, ``source``, ``video``, ``a`` (the answer as text), and by task ``tgt`` (windows in
seconds), ``p`` and ``o`` (index of the right option, options), ``g`` (captions). Scores are fractions.

Source: Liu et al., E.T. Bench: Towards Open-Ended Event-Level Video-Language Understanding (2024).
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
from torch import Tensor

from metrics.benchmarks.answers import Parsed, etbench_events, etbench_windows
from metrics.benchmarks.event_captions import group_scores, matched_pairs
from metrics.benchmarks.options import Choice, choice_of_gvq, choice_of_rvq
from metrics.captions import tokenizer
from metrics.dense_captioning import precision_recall_f1, video_localization
from metrics.grounding import EVALUATORS, best_ious
from metrics.records import RecordMetric, check_policy, harmonic, mean
from metrics.similarity import pair_similarities
from metrics.spans import as_array, iou

Sample = Mapping
THRESHOLDS = (0.1, 0.3, 0.5, 0.7)
SECONDS = 1000
"""Seconds of a video that the official evaluation of EVS sees."""
FIRST_NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?")
DOMAINS = {
    "Acc(ref)": ("RAR", "ECA", "RVQ"),
    "F1(gnd)": ("TVG", "EPM", "TAL", "EVS", "VHD"),
    "F1(cap)": ("DVC_F1", "SLC_F1"),
    "Sim(cap)": ("DVC_Sim", "SLC_Sim"),
    "Rec(com)": ("TEM", "GVQ"),
}
HEADLINE = {"rar": "Acc", "eca": "Acc", "rvq": "Acc", "tem": "mRec", "gvq": "mRec"}
"""What a task reports as its one number; F1 for the others."""


def read_answer(parser: Callable[[str], Parsed], sample: Sample, policy: str) -> Parsed:
    """The answer ``a`` as windows, unless somebody has read it already (``parsed``).

    A malformed number ends the official evaluation; under ``sound`` it is unparsed.
    """
    if "parsed" in sample:
        return sample["parsed"]
    try:
        return parser(sample["a"])
    except ValueError:
        if policy == "official":
            raise
        return Parsed()


def first_window_ious(samples: Sequence[Sample], policy: str, several: bool) -> tuple[list[float], int]:
    """IoU of the first window of each answer with the (best) target, and how many answers have none.

    Args:
        samples: of TVG, EPM, GVQ (one target) or TEM (several).
        policy: ``official`` is float32.
        several: ``tgt`` is a list of windows.
    """
    ious, failed = [], 0
    for sample in samples:
        windows = read_answer(etbench_windows, sample, policy).windows[:1]
        targets = sample["tgt"] if several else [sample["tgt"]]
        failed += not windows
        ious.append(float(best_ious(windows, targets, EVALUATORS["etchat"] if policy == "official" else None).sum()))
    return ious, failed


def grounding(samples: Sequence[Sample], policy: str) -> dict[str, float]:
    """TVG and EPM. "F1@t" is in fact the share of answers whose first window reaches IoU t."""
    ious, failed = first_window_ious(samples, policy, several=False)
    shares = {f"F1@{t:g}": mean(value >= t for value in ious) for t in THRESHOLDS}
    return {"Total": len(samples), "Failed": failed, "mIoU": mean(ious), **shares, "F1": mean(shares.values())}


def event_memory(samples: Sequence[Sample], policy: str) -> dict[str, float]:
    """TEM: the first window against the best of several targets."""
    ious, failed = first_window_ious(samples, policy, several=True)
    shares = {f"R@{t:g}": mean(value >= t for value in ious) for t in THRESHOLDS}
    return {"Total": len(samples), "Failed": failed, "mIoU": mean(ious), **shares, "mRec": mean(shares.values())}


def action_localization(samples: Sequence[Sample], policy: str) -> dict[str, float]:
    """TAL: F1 of each answer, many to many, then the mean over answers."""
    variant = "float32" if policy == "official" else "exact"
    rows, failed = [], 0
    for sample in samples:
        windows = read_answer(etbench_windows, sample, policy).windows
        failed += not windows
        if not windows:
            rows.append([0.0] * len(THRESHOLDS))
            continue
        overlaps = iou(windows, as_array(sample["tgt"]), variant)
        rows.append([many_to_many_f1(overlaps >= overlaps.dtype.type(t)) for t in THRESHOLDS])
    shares = {f"F1@{t:g}": mean(row[i] for row in rows) for i, t in enumerate(THRESHOLDS)}
    return {"Total": len(samples), "Failed": failed, **shares, "F1": mean(shares.values())}


def many_to_many_f1(hits: np.ndarray) -> float:
    """F1 of the shares of predictions (rows) and targets (columns) that take part in a hit."""
    return harmonic(float(hits.any(axis=1).mean()), float(hits.any(axis=0).mean()))


def summary(samples: Sequence[Sample], policy: str) -> dict[str, float]:
    """EVS: F1 of covered seconds. ``official`` leaves failed answers out and sees 1000 seconds of a video."""
    scores, failed = [], 0
    for sample in samples:
        windows = read_answer(etbench_windows, sample, policy).windows
        failed += not windows
        if windows:
            scores.append(covered_f1(windows, sample["tgt"], SECONDS if policy == "official" else None))
        elif policy == "sound":
            scores.append(0.0)
    return {"Total": len(samples), "Failed": failed, "F1": mean(scores) if scores else 0.0}


def covered_f1(predicted: Sequence, target: Sequence, seconds: int | None) -> float:
    """F1 of the whole seconds that two sets of windows cover; ends are rounded half to even."""
    size = seconds or int(max(window[1] for window in (*predicted, *target))) + 1
    masks = np.zeros((2, size), dtype=bool)
    for mask, windows in zip(masks, (predicted, target), strict=True):
        for start, end in windows:
            mask[max(round(start), 0) : max(round(end), 0)] = True
    common = int((masks[0] & masks[1]).sum())
    return harmonic(common / int(masks[0].sum()), common / int(masks[1].sum())) if common else 0.0


def highlight(samples: Sequence[Sample], policy: str) -> dict[str, float]:
    """VHD: is the first number of the answer inside a window of any annotator? "F1" is an accuracy."""
    hits, failed = [], 0
    for sample in samples:
        match = FIRST_NUMBER.search(sample["a"])
        failed += match is None
        windows = sample["tgt"]
        if windows and isinstance(windows[0][0], Sequence):
            windows = [window for annotator in windows for window in annotator]
        hits.append(match is not None and any(start <= float(match[0]) <= end for start, end in windows))
    return {"Total": len(samples), "Failed": failed, "F1": mean(hits)}


def captioning(samples: Sequence[Sample], policy: str) -> dict[str, float]:
    """DVC and SLC: localisation F1 and caption scores.

    ``sound``: every sample counts and a failed one scores 0 everywhere. ``official``: samples are keyed by video, so
    that a later one replaces an earlier one; failures scale F1 and nothing else.
    """
    official = policy == "official"
    failed, stories = 0, {}
    for i, sample in enumerate(samples):
        answer = read_answer(partial(etbench_events, official=official), sample, policy)
        failed += not answer.windows
        if answer.windows or not official:
            events = [(*window, text) for window, text in zip(answer.windows, answer.captions, strict=True)]
            target = [(*window, text) for window, text in zip(sample["tgt"], sample["g"], strict=True)]
            stories[sample["video"] if official else i] = (events, target)
    parsed = list(stories.values())
    found = [
        video_localization([e[:2] for e in events], [[e[:2] for e in target]], THRESHOLDS, policy)
        for events, target in parsed
    ]
    names = [f"{t:g}" for t in THRESHOLDS]
    scale = (len(samples) - failed) / len(samples) if official else 1.0
    table = precision_recall_f1(found, names) if found else {}
    shares = {
        f"F1@{name}": harmonic(table.get(f"Precision@{name}", 0.0) * scale, table.get(f"Recall@{name}", 0.0) * scale)
        for name in names
    }
    groups = [matched_pairs(events, [target], t, policy) for t in THRESHOLDS for events, target in parsed]
    rows = group_scores(groups)
    names = ("Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4", "METEOR", "Rouge-L", "CIDEr")
    captions = {name.replace("Rouge-L", "ROUGE_L"): mean(row[name] for row in rows) if rows else 0.0 for name in names}
    tokens = tokenizer()(text for group in groups for pair in group for text in pair)
    values = iter(pair_similarities([(tokens[a], tokens[b]) for group in groups for a, b in group]))
    similarity = [mean(next(values) for _ in group) if group else 0.0 for group in groups]
    if not official:
        captions["CIDEr(video idf)"] = captions.pop("CIDEr")
    captions["SentSim"] = mean(similarity) if similarity else 0.0
    return {"Total": len(samples), "Failed": failed, **shares, "F1": mean(shares.values()), **captions}


def option_accuracy(samples: Sequence[Sample], policy: str) -> dict[str, float]:
    """RAR, ECA and RVQ. ``official`` gives a wrong letter a second chance by similarity, ``sound`` does not."""
    sound = policy == "sound"
    choices = [own_choice(row) or choice_of_rvq(row["a"], row["o"], row["p"], final=sound) for row in samples]
    hits = [choice.option == sample["p"] for choice, sample in zip(choices, samples, strict=True)]
    return {"Total": len(samples), "Failed": sum(not choice.letter for choice in choices), "Acc": mean(hits)}


def own_choice(sample: Sample) -> Choice | None:
    """The option that this project has read from an answer of its own; None: it is still to be read."""
    return None if sample.get("option") is None else Choice(sample["option"], letter=True)


def grounded_question(samples: Sequence[Sample], policy: str) -> dict[str, float]:
    """GVQ: the option must be right, then the first window counts; over all samples."""
    official = policy == "official"
    choices = [own_choice(sample) or choice_of_gvq(sample["a"], sample["o"], official) for sample in samples]
    hits = [choice.option == sample["p"] for choice, sample in zip(choices, samples, strict=True)]
    ious, _ = first_window_ious(samples, policy, several=False)
    windows = [read_answer(etbench_windows, sample, policy).windows for sample in samples]
    failed = sum(c.option is None or (hit and not w) for c, hit, w in zip(choices, hits, windows, strict=True))
    ious = [value if hit else 0.0 for value, hit in zip(ious, hits, strict=True)]
    shares = {f"R@{t:g}": mean(value >= t for value in ious) for t in THRESHOLDS}
    total = {"Total": len(samples), "Failed": failed, "mIoU": mean(ious)}
    return {**total, **shares, "mRec": mean(shares.values()), "Acc": mean(hits)}


TASKS: dict[str, Callable[[Sequence[Sample], str], dict[str, float]]] = {
    "rar": option_accuracy,
    "eca": option_accuracy,
    "rvq": option_accuracy,
    "tvg": grounding,
    "epm": grounding,
    "tal": action_localization,
    "evs": summary,
    "vhd": highlight,
    "dvc": captioning,
    "slc": captioning,
    "tem": event_memory,
    "gvq": grounded_question,
}


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
    if not samples:
        raise ValueError("no E.T. Bench sample to score")
    groups: dict[str, dict[str, list[Sample]]] = {}
    for sample in samples:
        if sample["task"] not in TASKS:
            raise ValueError(f"unknown E.T. Bench task {sample['task']!r}; known: {', '.join(TASKS)}")
        groups.setdefault(sample["task"], {}).setdefault(sample["source"], []).append(sample)
    results = {
        task: {source: TASKS[task](rows, policy) for source, rows in sources.items()}
        for task, sources in groups.items()
    }
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
    return {"per_task_source": results, "task_means": means, "domains": domains}


class ETBench(RecordMetric):
    """``etbench_scores`` over a data set, as the flat task and domain means; each sample counts once."""

    def update(self, query_ids: Sequence[str], samples: Sequence[Sample]) -> None:
        """Keep Q answered samples.

        Args:
            query_ids: Q ids.
            samples: Q records with ``a``, the answer.
        """
        self.add(query_ids, samples)

    def compute(self) -> dict[str, Tensor]:
        """The task means (``TVG``, ``DVC_F1``, ..) and the domain means (``F1(gnd)``, ..), fractions."""
        samples = [row[0] for row in self.records().values()]
        scores = etbench_scores(samples, self.policy) if samples else {"task_means": {}, "domains": {}}
        return self.tensors({**scores["task_means"], **scores["domains"], "n": len(samples)})
