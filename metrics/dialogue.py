"""Dialogues without a judge: how many words an answer shares with the reference, in what order.

Numbers, time markers and punctuation are left out, because times are written differently by every model. It says
little about whether an answer is right; for that, see ``evaluate.py dialogue``.
"""

import re
from collections.abc import Sequence

from torch import Tensor

from metrics.ngrams import bleu, rouge_l
from metrics.records import RecordMetric, mean

WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
TAG = re.compile(r"<[^<>\s]*>")


def words(text: str) -> str:
    """The words of a text in lower case, with single spaces between them."""
    return " ".join(WORD.findall(TAG.sub(" ", text).lower()))


def dialogue_scores(answers: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """ROUGE-L and BLEU of the answers of Q dialogues.

    Args:
        answers: Q lists, one text a turn; a turn without an answer (a list that is too short) scores 0.
        references: Q lists, one text a turn. A reference without words is not compared.

    Returns:
        ``ROUGE-L``, the mean over turns, ``BLEU-1`` and ``BLEU-4`` of all turns together, in percent; the counts ``n``
        (dialogues), ``turns`` (compared) and ``missing`` (of them, without an answer).
    """
    pairs = [
        (words(said[turn]) if turn < len(said) else None, words(reference))
        for said, expected in zip(answers, references, strict=True)
        for turn, reference in enumerate(expected)
    ]
    pairs = [(said, reference) for said, reference in pairs if reference]
    said, expected = [said or "" for said, _ in pairs], [[reference] for _, reference in pairs]
    grams = bleu(said, expected) if pairs else [0.0] * 4
    return {
        "ROUGE-L": 100 * mean(rouge_l(said, expected)),
        "BLEU-1": 100 * grams[0],
        "BLEU-4": 100 * grams[3],
        "n": len(references),
        "turns": len(pairs),
        "missing": sum(text is None for text, _ in pairs),
    }


class DialogueOverlap(RecordMetric):
    """``dialogue_scores`` over a data set; each dialogue counts once."""

    def update(self, query_ids: Sequence[str], answers: Sequence[Sequence[str]], references: Sequence) -> None:
        """Keep the answers of Q dialogues, one text a turn, and their references."""
        self.add(query_ids, answers, references)

    def compute(self) -> dict[str, Tensor]:
        """See ``dialogue_scores``."""
        rows = list(self.records().values())
        return self.tensors(dialogue_scores([row[0] for row in rows], [row[1] for row in rows]))
