"""CIDEr, BLEU and ROUGE-L of tokenised sentences. Pure Python, no Java.

A sentence is a string of tokens with single spaces between them. N pairs of a hypothesis and its references.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache

from metrics.means import mean

ORDER = 4
"""Longest n-gram."""
SIGMA = 6.0
"""Width of CIDEr's length penalty, in bigrams."""


@lru_cache(maxsize=65536)
def ngrams(sentence: str) -> tuple[Counter, ...]:
    """Counts of the n-grams of a sentence, for n = 1 .. 4."""
    words = sentence.split()
    return tuple(Counter(zip(*(words[i:] for i in range(n)), strict=False)) for n in range(1, ORDER + 1))


def document_frequency(documents: Sequence[Sequence[str]]) -> Counter:
    """How many documents hold each n-gram.

    Args:
        documents: each one a list of sentences.
    """
    frequency: Counter = Counter()
    for sentences in documents:
        frequency.update({gram for sentence in sentences for counts in ngrams(sentence) for gram in counts})
    return frequency


class Idf:
    """Inverse document frequencies, and the tf-idf vectors of sentences under them.

    Args:
        documents: each one a list of sentences; an n-gram that none of them holds counts as held by one.
    """

    def __init__(self, documents: Sequence[Sequence[str]]):
        self.frequency: Mapping[tuple, int] = document_frequency(documents)
        self.log_documents = math.log(len(documents)) if documents else 0.0
        self.vectors: dict[str, tuple[list[dict], list[float], int]] = {}

    def weight(self, gram: tuple[str, ...]) -> float:
        """ln(documents) - ln(documents that hold the n-gram)."""
        return self.log_documents - math.log(max(1, self.frequency[gram]))

    def vector(self, sentence: str) -> tuple[list[dict], list[float], int]:
        """tf-idf weights for n = 1 .. 4, their norms, and the number of bigrams."""
        if sentence not in self.vectors:
            weights = [
                {
                    gram: tf * (self.log_documents - math.log(max(1, self.frequency[gram])))
                    for gram, tf in counts.items()
                }
                for counts in ngrams(sentence)
            ]
            norms = [math.sqrt(sum(weight * weight for weight in row.values())) for row in weights]
            self.vectors[sentence] = weights, norms, ngrams(sentence)[1].total()
        return self.vectors[sentence]

    def similarity(self, hypothesis: str, reference: str) -> float:
        """Mean over n of the clipped cosine, times a Gaussian of the difference in length; from 0 to 1."""
        ours, our_norms, our_length = self.vector(hypothesis)
        theirs, their_norms, their_length = self.vector(reference)
        cosines = 0.0
        for a, b, norm_a, norm_b in zip(ours, theirs, our_norms, their_norms, strict=True):
            if norm_a and norm_b:
                cosines += sum(min(a[gram], b[gram]) * b[gram] for gram in a.keys() & b.keys()) / (norm_a * norm_b)
        return cosines / ORDER * math.exp(-((our_length - their_length) ** 2) / (2 * SIGMA**2))


def cider(hypotheses: Sequence[str], references: Sequence[Sequence[str]], idf: Idf | None = None) -> list[float]:
    """CIDEr of each pair, on its scale of 0 to 10.

    Args:
        hypotheses: N sentences.
        references: N lists of sentences.
        idf: document frequencies; None: the references of these N pairs are the documents, so that a single pair,
            or pairs that all share their references, score 0.

    Returns:
        N scores; the score of a corpus is their mean.

    Source: Vedantam et al., CIDEr (2015), with the clipping and the length penalty of CIDEr-D and n = 1 .. 4.
    """
    idf = idf or Idf(references)
    return [
        10 * mean(idf.similarity(hypothesis, reference) for reference in group)
        for hypothesis, group in zip(hypotheses, references, strict=True)
    ]


def bleu(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """Corpus BLEU-1 .. BLEU-4 with the closest reference length.

    Args:
        hypotheses: N sentences.
        references: N lists of sentences.

    Source: Papineni et al., BLEU (2002), with the smoothing constants of the COCO caption evaluation.
    """
    small, tiny = 1e-9, 1e-15  # no division by zero; the values decide the last digits
    guesses, correct = [0] * ORDER, [0] * ORDER
    length = closest = 0
    for hypothesis, group in zip(hypotheses, references, strict=True):
        words = len(hypothesis.split())
        length += words
        closest += min((abs(len(text.split()) - words), len(text.split())) for text in group)[1]
        for n, counts in enumerate(ngrams(hypothesis)):
            guesses[n] += max(0, words - n)
            allowed = [ngrams(text)[n] for text in group]
            correct[n] += sum(min(count, max(row[gram] for row in allowed)) for gram, count in counts.items())
    scores, product = [], 1.0
    ratio = (length + tiny) / (closest + small)
    penalty = math.exp(1 - 1 / ratio) if ratio < 1 else 1.0
    for n in range(ORDER):
        product *= (correct[n] + tiny) / (guesses[n] + small)
        scores.append(product ** (1 / (n + 1)) * penalty)
    return scores


def common_subsequence(a: Sequence[str], b: Sequence[str]) -> int:
    """Length of the longest common subsequence, one machine operation a word (Hyyrö, 2004)."""
    positions: dict[str, int] = {}
    for i, word in enumerate(a):
        positions[word] = positions.get(word, 0) | 1 << i
    full = (1 << len(a)) - 1
    row = full
    for word in b:
        matches = row & positions.get(word, 0)
        row = ((row + matches) | (row - matches)) & full
    return len(a) - row.bit_count()


@lru_cache(maxsize=65536)
def rouge_l_pair(hypothesis: str, references: tuple[str, ...]) -> float:
    """ROUGE-L of one hypothesis: best precision and best recall over its references."""
    words = hypothesis.split(" ")
    lengths = [(common_subsequence(text.split(" "), words), len(text.split(" "))) for text in references]
    precision = max(common for common, _ in lengths) / len(words)
    recall = max(common / length for common, length in lengths)
    return (1 + 1.2**2) * precision * recall / (recall + 1.2**2 * precision) if precision and recall else 0.0


def rouge_l(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """ROUGE-L of each pair, the F-measure with beta = 1.2.

    Args:
        hypotheses: N sentences.
        references: N lists of sentences.

    Source: Lin, ROUGE (2004).
    """
    return [rouge_l_pair(text, tuple(group)) for text, group in zip(hypotheses, references, strict=True)]
