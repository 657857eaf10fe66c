"""Grounded question answering: is the answer right, and is it read off the right moment?

IoP is the share of the predicted window that lies in the target. Windows are (start, end) in seconds.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from metrics.means import Row, column_means, mean
from metrics.policies import check_policy
from metrics.spans import Windows, is_valid

THRESHOLDS = (0.3, 0.5)
QUESTION_TYPES = {
    "CW": "Why",
    "CH": "How",
    "TN": "Bef&Aft",
    "TC": "When",
    "DC": "Cnt",
    "DL": "Loc",
    "DO": "Other",
}
"""Question types of NExT-QA under the names of its evaluator."""


def signed_overlap(target: Sequence[float], predicted: Sequence[float]) -> tuple[float, float]:
    """IoU and IoP of two windows, negative by the gap between them where they do not meet.

    A point (start = end) has IoU 0, and IoP 1 where it lies in the target, ends included. An inverted window has
    IoP 0.

    Args:
        target: (start, end).
        predicted: (start, end); of more than two numbers the first and the last count.

    Source: Xiao et al., Can I Trust Your Answer? (NExT-GQA, 2024).
    """
    start, end = predicted[0], predicted[-1]
    if start == end:
        return 0.0, 1.0 if target[0] <= start <= target[1] else 0.0
    overlap = min(target[1], end) - max(target[0], start)
    hull = max(target[1], end) - min(target[0], start)
    return overlap / hull if hull else 0.0, overlap / (end - start) if end > start else 0.0


def best_overlap(targets: Windows, predicted: Sequence[float]) -> tuple[float, float]:
    """The best IoU and the best IoP over the target windows, each on its own, and at least 0."""
    rows = [(0.0, 0.0), *(signed_overlap(target, predicted) for target in targets)]
    return max(row[0] for row in rows), max(row[1] for row in rows)


def from_fractions(window: Sequence[float], duration_s: float) -> list[float]:
    """A window of fractions of a video in seconds, rounded to 0.1 s as the NExT-GQA evaluation does."""
    return [float(value) for value in np.round(np.asarray(window, dtype=float) * duration_s, 1)]


def same_answer(answer: object, prediction: object, policy: str) -> bool:
    """Equality; under ``sound`` the option 1 and the text "1" are the same."""
    return answer == prediction or (policy == "sound" and prediction is not None and str(answer) == str(prediction))


def grounded_qa_rows(
    windows: Mapping[str, Sequence[float] | None],
    targets: Mapping[str, Windows],
    answers: Mapping[str, tuple[object, object]] | None = None,
    policy: str = "sound",
) -> dict[str, Row]:
    """Question -> ``Acc@GQA``, ``mIoP``, ``IoP@0.3``, ``mIoU`` and so on in percent, as in ``grounded_qa_scores``.

    ``Acc@QA`` is not among them. A question without target windows has an answer at most: its row is empty.
    """
    official = check_policy(policy) == "official"
    questions = [key for key in targets if windows.get(key) is not None or not official]
    if not questions:
        raise ValueError("no question of the annotations has a predicted window")
    rows: dict[str, Row] = {}
    for key in questions:
        window = windows.get(key)
        if not targets[key]:
            rows[key] = {}
            continue
        iou = iop = 0.0
        if window is not None and (official or is_valid(window)):
            # a third number is a score, which the official code takes for the end
            iou, iop = best_overlap(targets[key], window if official else window[:2])
        if official and answers and iop >= 0.5 and key not in answers:
            raise ValueError(f"question {key!r} has a window but no answer; the official evaluator stops there")
        right = bool(answers) and key in answers and iop >= 0.5 and same_answer(*answers[key], policy)
        row = {"Acc@GQA": 100.0 * right} if answers or official else {}
        for name, value in (("IoP", iop), ("IoU", iou)):
            row[f"m{name}"] = 100 * value
            row |= {f"{name}@{t:g}": 100.0 * (value >= t) for t in THRESHOLDS}
        rows[key] = row
    return rows


def grounded_qa_scores(
    windows: Mapping[str, Sequence[float] | None],
    targets: Mapping[str, Windows],
    answers: Mapping[str, tuple[object, object]] | None = None,
    policy: str = "sound",
) -> dict[str, float]:
    """NExT-GQA: IoP, IoU and the share of questions that are answered rightly with IoP of at least 0.5.

    ``sound``: every question counts, one without a window has IoU and IoP 0, and so has an invalid window; without
    any answers there is no Acc@QA and no Acc@GQA. Acc@QA needs no window: it is over all questions, and under
    ``official`` it is there only if each of them has an answer. ``official``: questions without a window are left out;
    without answers Acc@GQA is 0. A question without a target window counts for Acc@QA only.

    Args:
        windows: question -> predicted (start, end); None or absent: no answer.
        targets: question -> target windows.
        answers: question -> (right answer, predicted answer).
        policy: ``sound`` or ``official``.

    Returns:
        ``Acc@QA``, ``Acc@GQA``, ``mIoP``, ``IoP@0.3``, ``IoP@0.5``, ``mIoU``, ``IoU@0.3``, ``IoU@0.5`` in percent;
        counts ``n`` (questions in the mean), ``missing`` and ``invalid``.

    Raises:
        ValueError: no question to score; or, under ``official``, a well grounded question without an answer.

    Source: Xiao et al., NExT-GQA (2024).
    """
    official = check_policy(policy) == "official"
    rows = grounded_qa_rows(windows, targets, answers, policy)
    scores = column_means(rows.values())
    if answers and (not official or targets.keys() <= answers.keys()):
        scores["Acc@QA"] = question_accuracy(answers, dict.fromkeys(targets, "all"), policy)["Acc"]
    found = [windows.get(key) for key in rows]
    invalid = sum(window is not None and not official and not is_valid(window) for window in found)
    return {**scores, "n": len(rows), "missing": sum(window is None for window in found), "invalid": invalid}


def question_accuracy(
    answers: Mapping[str, tuple[object, object]], types: Mapping[str, str], policy: str = "sound"
) -> dict[str, float]:
    """Acc@QA over the typed questions, also per type and per group C(ausal), T(emporal), D(escriptive), in percent.

    Args:
        answers: question -> (right answer, predicted answer).
        types: question -> type; TP counts as TN.
        policy: ``sound``: a question without an answer is wrong; ``official``: it is an error.

    Returns:
        ``Acc``, ``Acc_C``, ``Acc_T``, ``Acc_D`` and one entry a type under the names of ``QUESTION_TYPES``.

    Raises:
        ValueError: under ``official``, a question without an answer.
    """
    right: dict[str, list[bool]] = {}
    for key, kind in types.items():
        if key not in answers and policy == "official":
            raise ValueError(f"question {key!r} has no predicted answer; the official evaluator stops there")
        correct = key in answers and same_answer(*answers[key], policy)
        kind = "TN" if kind == "TP" else kind
        for name in ("Acc", f"Acc_{kind[0]}", QUESTION_TYPES.get(kind, kind)):
            right.setdefault(name, []).append(correct)
    return {name: 100 * mean(values) for name, values in right.items()}
