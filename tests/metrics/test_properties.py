"""What must hold for any input. Times are multiples of 1/4 s, so that shifting them is exact in floating point."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metrics.alignment import best_order_preserving_score
from metrics.benchmarks.event_captions import UNMATCHED
from metrics.dense_captioning import localization_scores
from metrics.grounded_qa import grounded_qa_scores
from metrics.grounding import grounding_scores
from metrics.highlights import highlight_scores
from metrics.modules import EventLocalization, TemporalGrounding
from metrics.moment_retrieval import brief, retrieval_scores
from metrics.ngrams import bleu, cider, common_subsequence, rouge_l
from metrics.soda import soda_scores
from metrics.spans import VARIANTS, iou, is_valid

quarters = st.integers(0, 2000).map(lambda n: n / 4)
windows = st.tuples(quarters, quarters).map(sorted).filter(lambda w: w[0] < w[1])
any_window = st.tuples(quarters, quarters).map(list)
stories = st.lists(windows, min_size=1, max_size=5)
junk = st.lists(st.one_of(st.floats(), st.none(), st.text(max_size=3), st.booleans()), max_size=4)
words = st.lists(st.sampled_from(["a", "man", "runs", "up", "the", "hill"]), min_size=1, max_size=8).map(" ".join)
quick = settings(max_examples=60, deadline=None)


def shifted(groups, seconds):
    return [[[start + seconds, end + seconds] for start, end in group] for group in groups]


@quick
@given(any_window, any_window)
def test_iou_is_symmetric_and_between_0_and_1(a, b):
    value = iou([a], [b])[0, 0]
    assert value == iou([b], [a])[0, 0] and 0 <= value <= 1


@quick
@given(windows, windows)
def test_iou_is_1_only_for_the_same_window(a, b):
    assert (iou([a], [b])[0, 0] == 1) == (a == b)
    for variant in VARIANTS:
        assert iou([a], [b], variant)[0, 0] == pytest.approx(iou([a], [b])[0, 0], abs=1e-6)


@quick
@given(st.lists(st.tuples(stories, stories), min_size=1, max_size=4), quarters)
def test_shifting_everything_changes_nothing(pairs, seconds):
    predicted, targets = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    moved = shifted(predicted, seconds), shifted(targets, seconds)
    assert grounding_scores(predicted, targets) == grounding_scores(*moved)
    files, moved_files = [[t] for t in targets], [[t] for t in moved[1]]
    assert localization_scores(predicted, files) == localization_scores(moved[0], moved_files)
    assert brief(retrieval_scores(predicted, targets)) == brief(retrieval_scores(*moved))


@quick
@given(st.lists(stories, min_size=1, max_size=4))
def test_a_perfect_prediction_scores_100(targets):
    unique = [[list(w) for w in dict.fromkeys(map(tuple, target))] for target in targets]
    scores = grounding_scores(unique, unique)
    assert all(scores[name] == 100 for name in ("R1@0.3", "R1@0.5", "R1@0.7", "mIoU"))
    assert localization_scores(unique, [[t] for t in unique])["F1"] == 1
    assert retrieval_scores(unique, unique)["full"]["MR-mAP"]["average"] == pytest.approx(100)
    events = {str(i): [(*w, "") for w in target] for i, target in enumerate(unique)}
    assert soda_scores(events, [events], "d")["f1"] == pytest.approx(1)
    answers = dict.fromkeys(events, (0, 0))
    first, spans = {k: e[0][:2] for k, e in events.items()}, {k: [w[:2] for w in e] for k, e in events.items()}
    assert grounded_qa_scores(first, spans, answers)["Acc@GQA"] == 100


@quick
@given(st.lists(st.tuples(stories, stories), min_size=1, max_size=3), st.lists(windows, min_size=3, max_size=3))
def test_a_worse_ranked_prediction_never_raises_recall_at_1(pairs, extra):
    predicted, targets = [p for p, _ in pairs], [t for _, t in pairs]
    longer = [[*p, e] for p, e in zip(predicted, extra, strict=False)]
    before, after = grounding_scores(predicted, targets, ranks=(1, 5)), grounding_scores(longer, targets, ranks=(1, 5))
    for t in ("0.3", "0.5", "0.7"):
        assert after[f"R1@{t}"] == before[f"R1@{t}"]
        assert after[f"R5@{t}"] >= before[f"R5@{t}"]
    scored = [[(*w, -float(i)) for i, w in enumerate(p)] for p in longer]
    shorter = [p[:-1] for p in scored]
    full = retrieval_scores(scored, targets)["full"]["MR-R1"]
    assert full == retrieval_scores(shorter, targets)["full"]["MR-R1"]


@quick
@given(st.lists(st.tuples(st.one_of(st.none(), st.lists(junk, max_size=3)), stories), min_size=1, max_size=4))
def test_junk_is_never_a_crash_nor_a_score(rows):
    predicted, targets = [row[0] for row in rows], [row[1] for row in rows]
    usable = any(is_valid(w) for p in predicted for w in p or [])
    scores = grounding_scores(predicted, targets)
    located = localization_scores(predicted, [[t] for t in targets])
    assert scores["n"] == len(rows) and all(math.isfinite(v) for v in (*scores.values(), *located.values()))
    if not usable:
        assert scores["mIoU"] == 0 and located["F1"] == 0
    metric = TemporalGrounding()
    metric.update([str(i) for i in range(len(rows))], predicted, targets)
    assert {name: float(value) for name, value in metric.compute().items()} == scores
    events = EventLocalization()
    events.update([str(i) for i in range(len(rows))], predicted, targets)
    assert float(events.compute()["F1"]) == pytest.approx(100 * located["F1"])


@quick
@given(st.integers(0, 5), st.integers(0, 5), st.randoms(use_true_random=False))
def test_order_preserving_matching_is_the_best_of_all(rows, columns, random):
    gains = np.array([[random.randint(0, 8) / 8 for _ in range(columns)] for _ in range(rows)]).reshape(rows, columns)

    def best(i: int, j: int) -> float:
        if i == rows or j == columns:
            return 0.0
        return max(best(i + 1, j), best(i, j + 1), gains[i, j] + best(i + 1, j + 1))

    assert best_order_preserving_score(gains) == pytest.approx(best(0, 0))


@quick
@given(st.lists(st.integers(0, 6), min_size=1, max_size=12), st.integers(0, 2**31))
def test_saliency_only_matters_by_its_order(saliency, seed):
    ratings = np.random.default_rng(seed).integers(0, 5, (len(saliency), 3))
    scores = highlight_scores([saliency], [ratings])
    assert scores == highlight_scores([[3 * value - 7 for value in saliency]], [ratings])
    assert all(0 <= value <= 100 for name, value in scores.items() if name.startswith("HL"))
    perfect = highlight_scores([ratings[:, 0]], [ratings[:, :1]])
    assert all(perfect[f"HL-min-{name}-mAP"] in (0, 100) for name in ("Fair", "Good", "VeryGood"))


@quick
@given(st.lists(st.tuples(words, words), min_size=1, max_size=5))
def test_text_scores_have_their_range(pairs):
    hypotheses, references = [a for a, _ in pairs], [[b] for _, b in pairs]
    assert all(0 <= value <= 10 + 1e-9 for value in cider(hypotheses, references))
    assert all(0 <= value <= 1 + 1e-9 for value in (*bleu(hypotheses, references), *rouge_l(hypotheses, references)))
    assert rouge_l(hypotheses, [[a] for a in hypotheses]) == pytest.approx([1.0] * len(pairs))
    assert cider([hypotheses[0]], [[hypotheses[0]]]) == [0.0]  # one document: its idf is 0
    assert rouge_l([hypotheses[0]], [[UNMATCHED]]) == [0.0]


@quick
@given(st.lists(st.sampled_from("abc"), max_size=9), st.lists(st.sampled_from("abc"), max_size=9))
def test_common_subsequence_by_its_definition(a, b):
    table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            table[i + 1][j + 1] = table[i][j] + 1 if x == y else max(table[i][j + 1], table[i + 1][j])
    assert common_subsequence(a, b) == table[-1][-1]
