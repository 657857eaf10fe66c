"""Dialogues without a judge: how many words an answer shares with the reference, in what order.

Numbers, time markers and punctuation are left out, because times are written differently by every model. It says
little about whether an answer is right; for that, see ``evaluate.py dialogue``.
"""

import re
from collections.abc import Sequence

from metrics.means import column_means, mean
from metrics.ngrams import bleu, rouge_l

WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
TAG = re.compile(r"<[^<>\s]*>")


def words(text: str) -> str:
    """The words of a text in lower case, with single spaces between them."""
    return " ".join(WORD.findall(TAG.sub(" ", text).lower()))


def dialogue_rows(answers: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> list[dict[str, float]]:
    """ROUGE-L of Q dialogues in percent, each the mean over its turns; nothing where no reference has words."""
    rows = []
    for said, expected in zip(answers, references, strict=True):
        pairs = compared([said], [expected])
        values = rouge_l([answer or "" for answer, _ in pairs], [[reference] for _, reference in pairs])
        rows.append({"ROUGE-L": 100 * mean(values)} if pairs else {})
    return rows


def dialogue_bleu(answers: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """BLEU-1 and BLEU-4 of all turns of Q dialogues together, in percent; nothing where no reference has words."""
    pairs = compared(answers, references)
    if not pairs:
        return {}
    grams = bleu([answer or "" for answer, _ in pairs], [[reference] for _, reference in pairs])
    return {"BLEU-1": 100 * grams[0], "BLEU-4": 100 * grams[3]}


def dialogue_counts(answers: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> dict[str, int]:
    """How many dialogues (``n``), ``turns`` that are compared, and how many of these have no answer (``missing``)."""
    pairs = compared(answers, references)
    return {"n": len(references), "turns": len(pairs), "missing": sum(answer is None for answer, _ in pairs)}


def compared(answers: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> list[tuple[str | None, str]]:
    """The words of each answer (None: there is none) and of its reference, turn by turn, where the latter has any."""
    pairs = [
        (words(said[turn]) if turn < len(said) else None, words(reference))
        for said, expected in zip(answers, references, strict=True)
        for turn, reference in enumerate(expected)
    ]
    return [(said, reference) for said, reference in pairs if reference]


def dialogue_scores(answers: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """ROUGE-L and BLEU of the answers of Q dialogues.

    Args:
        answers: Q lists, one text a turn; a turn without an answer (a list that is too short) scores 0.
        references: Q lists, one text a turn. A reference without words is not compared.

    Returns:
        ``ROUGE-L``, the mean over dialogues of the mean over their turns, ``BLEU-1`` and ``BLEU-4`` of all turns
        together, in percent, where there is something to compare; and ``dialogue_counts``.
    """
    means = column_means(dialogue_rows(answers, references))
    return {**means, **dialogue_bleu(answers, references), **dialogue_counts(answers, references)}
