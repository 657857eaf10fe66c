"""Grounded question answering with ranked windows: VideoMind and its CG-Bench mode.

S ranked windows of a sample. Windows are (start, end) in seconds.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from metrics.grounding import EVALUATORS, best_ious, recall_row
from metrics.means import column_means, mean
from metrics.moment_sets import union_iou
from metrics.policies import check_policy
from metrics.spans import Windows, as_array

CGBENCH_THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5)


def nncore_iop(predicted: Windows, targets: Windows, exact: bool) -> np.ndarray:
    """(S,) best share of each predicted window that lies in a target; 0 for a point. float32 unless exact."""
    dtype = np.float64 if exact else np.float32
    p = np.array([window[:2] for window in predicted], dtype=dtype).reshape(-1, 1, 2)
    g = np.array([window[:2] for window in targets], dtype=dtype).reshape(1, -1, 2)
    overlap = np.maximum(0, np.minimum(p[..., 1], g[..., 1]) - np.maximum(p[..., 0], g[..., 0]))
    with np.errstate(divide="ignore", invalid="ignore"):
        share = overlap / (p[..., 1] - p[..., 0])
    return np.where(np.isfinite(share), share, dtype(0)).max(axis=1)


def set_iou(predicted: Windows, targets: Windows) -> np.float32:
    """CG-Bench: overlap of two sets of windows, pair by pair, so that windows that overlap each other count twice."""
    first = ([window[:2] for window in windows] for windows in (predicted, targets))
    p, g = (np.array(windows, dtype=np.float32).reshape(-1, 2) for windows in first)
    ends = np.minimum(p[:, None, 1], g[None, :, 1]) - np.maximum(p[:, None, 0], g[None, :, 0])
    overlap = np.maximum(ends, 0).sum()
    with np.errstate(divide="ignore", invalid="ignore"):
        value = overlap / ((p[:, 1] - p[:, 0]).sum() + (g[:, 1] - g[:, 0]).sum() - overlap)
    return value if math.isfinite(value) else np.float32(0)


def option_letter(response: str, options: int, policy: str = "sound") -> str | None:
    """The option that a response names: the first letter of its first word; None where that is no option.

    ``official`` splits at single blanks and takes off round brackets and full stops only: "[A]" names nothing.
    """
    words = response.split(" ") if policy == "official" else response.split()
    marks = "()." if policy == "official" else "()[]."
    letter = words[0].translate(str.maketrans("", "", marks))[:1].upper() if words else ""
    return letter if len(letter) == 1 and 0 <= ord(letter) - ord("A") < options else None


def sample_overlaps(
    sample: Mapping, policy: str, cgbench: bool = False, confidence: float | None = None
) -> dict[str, np.ndarray]:
    """``IoU`` and ``IoP`` of the ranked windows of a sample; in CG-Bench mode one ``IoU`` of sets."""
    exact = policy == "sound"
    predicted, targets = sample["pred"], sample["span"]
    if cgbench:
        extra = zip(predicted[1:], sample["conf"][1:], strict=False)
        chosen = [*predicted[:1], *(w for w, c in extra if confidence is not None and c > confidence)]
        return {"IoU": np.array([union_iou(chosen, targets) if exact else set_iou(chosen, targets)])}
    ious = best_ious(predicted, targets, None if exact else EVALUATORS["videomind"])
    return {"IoU": ious, "IoP": nncore_iop(as_array(predicted) if exact else predicted, targets, exact)}


def videomind_rows(
    samples: Sequence[Mapping], policy: str = "sound", cgbench: bool = False, confidence: float | None = None
) -> list[dict[str, dict[str, float]]]:
    """Table -> values of each sample in percent, see ``videomind_scores``; a table that it does not enter is absent."""
    check_policy(policy)
    thresholds, ranks = (CGBENCH_THRESHOLDS, (1,)) if cgbench else ((0.3, 0.5, 0.7), (1, 3, 5))
    rows = []
    for sample in samples:
        row: dict[str, dict[str, float]] = {}
        found = sample_overlaps(sample, policy, cgbench, confidence) if "pred" in sample and "span" in sample else {}
        for name, values in found.items():
            top = 100 * float(values[0]) if len(values) else 0.0
            row[f"grounding_{name.lower()}"] = {**recall_row(values, thresholds, ranks), "mean": top}
        if cgbench and row:
            table = row["grounding_iou"]
            table["rec@IoU"] = mean(table[f"R1@{t:g}"] for t in thresholds)
        if sample.get("response") is not None and sample.get("options"):
            row["qa"] = answer_row(sample, found, policy, cgbench)
        rows.append(row)
    return rows


def answer_row(sample: Mapping, found: Mapping[str, np.ndarray], policy: str, cgbench: bool) -> dict[str, float]:
    """The ``qa`` values of a sample."""
    letter = option_letter(sample["response"], len(sample["options"]), policy)
    right = letter == sample["ans"].upper()

    def reaches(name: str, threshold: float) -> float:
        return 100.0 * (right and bool((found.get(name, np.zeros(0))[:1] >= threshold).any()))

    if cgbench:
        return {"long-acc": 100.0 * right, "acc@IoU": mean(reaches("IoU", t) for t in CGBENCH_THRESHOLDS)}
    return {"Acc": 100.0 * right, "Acc_IoU>=0.5": reaches("IoU", 0.5), "Acc_IoP>=0.5": reaches("IoP", 0.5)}


def videomind_scores(
    samples: Sequence[Mapping], policy: str = "sound", cgbench: bool = False, confidence: float | None = None
) -> dict[str, dict[str, float]]:
    """VideoMind: ranked windows by IoU and IoP, answers by letter; or the CG-Bench mode.

    Args:
        samples: ``pred`` (ranked windows), ``span`` (targets), ``conf``; ``response``, ``ans``, ``options`` where
            there is a question; ``grounder_success`` False is only counted.
        policy: ``official`` is float32, thresholds too; ``sound`` is float64, and windows that overlap count once.
        cgbench: compare the set of the first window (and of all with a confidence above ``confidence``) with the set
            of targets, at 0.1 .. 0.5.
        confidence: see ``cgbench``.

    Returns:
        ``grounding_iou``, ``grounding_iop`` and ``qa``, in percent; ``qa`` has ``Acc`` and the share that is right
        and has IoU (IoP) of at least 0.5; in CG-Bench mode ``rec@IoU``, ``long-acc`` and ``acc@IoU``.

    Source: Liu et al., VideoMind (2025); Chen et al., CG-Bench (2025).
    """
    rows = videomind_rows(samples, policy, cgbench, confidence)
    results: dict[str, dict[str, float]] = {}
    grounder_failed = sum(not sample.get("grounder_success", True) for sample in samples)
    for table in ("grounding_iou", "grounding_iop", "qa"):
        own = [row[table] for row in rows if table in row]
        if own:
            results[table] = {"n": len(own), "failed": grounder_failed, **column_means(own)}
    answered = [sample for sample, row in zip(samples, rows, strict=True) if "qa" in row]
    letters = [option_letter(sample["response"], len(sample["options"]), policy) for sample in answered]
    empty = {"n": 0, "Acc": math.nan} if not cgbench else {"n": 0, "long-acc": math.nan}
    results["qa"] = {**results.get("qa", empty), "failed": letters.count(None)}
    return results
