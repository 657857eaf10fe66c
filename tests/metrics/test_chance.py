"""Constant and random windows score what the metrics of moments say; answers that repeat themselves are known."""

from random import Random

import numpy as np
import pytest

from metrics.chance import DRAWS, GRID, collapse, constant_window, random_window
from metrics.grounded_qa import grounded_qa_scores
from metrics.grounding import grounding_scores

TARGETS = [np.array(t) for t in ([[0.1, 0.3]], [[0.12, 0.31]], [[0.5, 0.9], [0.0, 0.2]], [[0.6, 0.65]])]


def scores(window, evidence: bool) -> dict[str, float]:
    """Of one window for all queries, by the metrics themselves."""
    windows, targets = [[tuple(window)]] * len(TARGETS), [t.tolist() for t in TARGETS]
    if not evidence:
        return grounding_scores(windows, targets)
    return grounded_qa_scores({k: w[0] for k, w in enumerate(windows)}, dict(enumerate(targets)))


@pytest.mark.parametrize("evidence", [False, True])
def test_each_measure_has_its_best_constant_window(evidence):
    grid = [(a / GRID, b / GRID) for a in range(GRID) for b in range(a + 1, GRID + 1)]
    every = [scores(window, evidence) for window in grid]
    found = constant_window(TARGETS, evidence)
    assert len(found) == (6 if evidence else 4)
    for name, value in found.items():
        assert value == pytest.approx(max(each[name] for each in every)), name


@pytest.mark.parametrize("evidence", [False, True])
def test_random_windows_are_the_mean_of_draws(evidence):
    random, each = Random(0), []
    for _ in range(DRAWS):
        windows = [tuple(sorted((random.random(), random.random()))) for _ in TARGETS]
        targets = [t.tolist() for t in TARGETS]
        each.append(
            grounded_qa_scores(dict(enumerate(windows)), dict(enumerate(targets)))
            if evidence
            else grounding_scores([[window] for window in windows], targets)
        )
    for name, value in random_window(TARGETS, evidence).items():
        assert value == pytest.approx(np.mean([one[name] for one in each])), name
    assert random_window(TARGETS, seed=1) != random_window(TARGETS)


def test_more_queries_than_are_compared_at_once():
    many = TARGETS * 600
    assert constant_window(many) == pytest.approx(constant_window(TARGETS))


def test_collapse_is_the_share_of_the_commonest_window():
    assert collapse([]) == 0
    assert collapse([(0.1, 0.2)]) == 100
    assert collapse([(0.1, 0.2, 0.9), (0.11, 0.21, 0.1), (0.3, 0.4, 1.0), (0.5, 1.0, 1.0)]) == 50
    assert collapse([(0.0, 1.0), (-0.2, 1.3)]) == 100  # what leaves the video lies at its ends
    rng = np.random.default_rng(0)
    assert collapse(np.sort(rng.random((2000, 2)), axis=1)) < 3
