"""Grounded question answering with ranked windows: VideoMind and its CG-Bench mode.

S ranked windows of a sample. Windows are (start, end) in seconds.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from metrics.grounding import EVALUATORS, best_ious, recall_scores
from metrics.records import RecordMetric, check_policy, mean

Windows = Sequence[Sequence[float]]
CGBENCH_THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5)


def nncore_iop(predicted: Windows, targets: Windows, exact: bool) -> np.ndarray:
    """(S,) best share of each predicted window that lies in a target; 0 for a point."""
    dtype = np.float64 if exact else np.float32
    p = np.array([window[:2] for window in predicted], dtype=dtype).reshape(-1, 1, 2)
    g = np.array([window[:2] for window in targets], dtype=dtype).reshape(1, -1, 2)
    overlap = np.maximum(0, np.minimum(p[..., 1], g[..., 1]) - np.maximum(p[..., 0], g[..., 0]))
    with np.errstate(divide="ignore", invalid="ignore"):
        share = (overlap / (p[..., 1] - p[..., 0])).astype(np.float64)
    return np.where(np.isfinite(share), share, 0.0).max(axis=1)


def set_iou(predicted: Windows, targets: Windows) -> float:
    """CG-Bench: overlap of two sets of windows, pair by pair, so that windows that overlap each other count twice."""
    first = ([window[:2] for window in windows] for windows in (predicted, targets))
    p, g = (np.array(windows, dtype=np.float32).reshape(-1, 2) for windows in first)
    ends = np.minimum(p[:, None, 1], g[None, :, 1]) - np.maximum(p[:, None, 0], g[None, :, 0])
    overlap = np.maximum(ends, 0).sum()
    with np.errstate(divide="ignore", invalid="ignore"):
        value = overlap / ((p[:, 1] - p[:, 0]).sum() + (g[:, 1] - g[:, 0]).sum() - overlap)
    return float(value) if math.isfinite(value) else 0.0


def option_letter(response: str, options: int) -> str | None:
    """The option that a response names: the first letter of its first word; None where that is no option."""
    words = response.strip().split()
    word = without_brackets(words[0]) if words else ""
    letter = word[:1].upper()
    return letter if letter and 0 <= ord(letter) - ord("A") < options else None


def without_brackets(word: str) -> str:
    """The word without brackets and full stops."""
    return word.translate(str.maketrans("", "", "()[]."))


def videomind_scores(
    samples: Sequence[Mapping], policy: str = "sound", cgbench: bool = False, confidence: float | None = None
) -> dict[str, dict[str, float]]:
    """VideoMind: ranked windows by IoU and IoP, answers by letter; or the CG-Bench mode.

    Args:
        samples: ``pred`` (ranked windows), ``span`` (targets), ``conf``; ``response``, ``ans``, ``options`` where
            there is a question; ``grounder_success`` False is only counted.
        policy: ``official`` is float32; ``sound`` is float64.
        cgbench: compare the set of the first window (and of all with a confidence above ``confidence``) with the set
            of targets, at 0.1 .. 0.5.
        confidence: see ``cgbench``.

    Returns:
        ``grounding_iou``, ``grounding_iop`` and ``qa``, in percent; ``qa`` has ``Acc`` and the share that is right
        and has IoU (IoP) of at least 0.5; in CG-Bench mode ``rec@IoU``, ``long-acc`` and ``acc@IoU``.

    Source: Liu et al., VideoMind (2025); Chen et al., CG-Bench (2025).
    """
    exact = check_policy(policy) == "sound"
    rules = None if exact else EVALUATORS["videomind"]
    tables: dict[str, list[np.ndarray]] = {"grounding_iou": [], "grounding_iop": []}
    for sample in samples:
        predicted, targets = sample["pred"], sample["span"]
        if cgbench:
            extra = zip(predicted[1:], sample["conf"][1:], strict=False)
            chosen = [*predicted[:1], *(w for w, c in extra if confidence is not None and c > confidence)]
            tables["grounding_iou"].append(np.array([set_iou(chosen, targets)]))
        else:
            tables["grounding_iou"].append(best_ious(predicted, targets, rules))
            tables["grounding_iop"].append(nncore_iop(predicted, targets, exact))
    failed = sum(not sample.get("grounder_success", True) for sample in samples)
    thresholds, ranks = (CGBENCH_THRESHOLDS, (1,)) if cgbench else ((0.3, 0.5, 0.7), (1, 3, 5))
    results = {}
    for name, rows in tables.items():
        if not rows:
            continue
        results[name] = {"n": len(rows), "failed": failed, **recall_scores(rows, thresholds, ranks)}
        results[name]["mean"] = 100 * mean(row[0] if len(row) else 0.0 for row in rows)
    if cgbench:
        results["grounding_iou"]["rec@IoU"] = mean(results["grounding_iou"][f"R1@{t:g}"] for t in thresholds)
    results["qa"] = videomind_answers(samples, tables, cgbench)
    return results


def videomind_answers(samples: Sequence[Mapping], tables: Mapping[str, list[np.ndarray]], cgbench: bool) -> dict:
    """The ``qa`` table of ``videomind_scores``, over the samples with a response."""
    rows = []
    for i, sample in enumerate(samples):
        if sample.get("response") is None:
            continue
        letter = option_letter(sample["response"], len(sample["options"]))
        first = {name: float(values[i][0]) for name, values in tables.items() if values and len(values[i])}
        rows.append((letter is None, letter == sample["ans"].upper(), first))
    scores: dict[str, float] = {"n": len(rows), "failed": sum(row[0] for row in rows)}
    accuracy = 100 * mean(row[1] for row in rows)
    if cgbench:
        hits = [[right and first["grounding_iou"] >= t for t in CGBENCH_THRESHOLDS] for _, right, first in rows]
        return {**scores, "long-acc": accuracy, "acc@IoU": 100 * mean(mean(row) for row in hits)}
    scores["Acc"] = accuracy
    for name in ("IoU", "IoP"):
        key = f"grounding_{name.lower()}"
        scores[f"Acc_{name}>=0.5"] = 100 * mean(right and first.get(key, 0.0) >= 0.5 for _, right, first in rows)
    return scores


class VideoMind(RecordMetric):
    """``videomind_scores`` over a data set; each sample counts once.

    Args:
        policy: ``sound`` or ``official``.
        cgbench: the CG-Bench mode.
        confidence: of a window that counts beside the first one in CG-Bench mode.
    """

    def __init__(self, policy: str = "sound", cgbench: bool = False, confidence: float | None = None, **kwargs):
        super().__init__(policy, **kwargs)
        self.cgbench, self.confidence = cgbench, confidence

    def update(self, query_ids: Sequence[str], samples: Sequence[Mapping]) -> None:
        """Keep Q answered samples.

        Args:
            query_ids: Q ids.
            samples: Q records as in ``videomind_scores``.
        """
        self.add(query_ids, samples)

    def compute(self) -> dict[str, Tensor]:
        """``grounding_iou/R1@0.5``, ``grounding_iop/mean``, ``qa/Acc`` and so on in percent, and the count ``n``."""
        samples = [row[0] for row in self.records().values()]
        tables = videomind_scores(samples, self.policy, self.cgbench, self.confidence) if samples else {}
        scores = {f"{table}/{name}": value for table, row in tables.items() for name, value in row.items()}
        return self.tensors(scores | {"n": len(samples)})
