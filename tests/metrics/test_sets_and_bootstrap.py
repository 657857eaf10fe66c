"""Sets of moments, queries without any, and intervals: what must hold whatever the numbers are."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metrics import (
    intervals,
    moved,
    no_moment_row,
    no_moment_scores,
    paired,
    retrieval_row,
    rewards,
    set_row,
    union_iou,
)
from metrics.benchmarks.vue_tr import official_row

times = st.floats(0, 100).map(lambda value: round(value, 1))
windows = st.lists(
    st.tuples(times, st.floats(0.1, 20)).map(lambda pair: (pair[0], round(pair[0] + pair[1], 1))), max_size=5
)


def cut(listed: list) -> list:
    """The same seconds in other windows."""
    return [part for start, end in listed for part in ((start, (start + end) / 2), ((start + end) / 2, end))]


@given(windows, windows)
def test_the_union_does_not_depend_on_how_it_is_cut(p, g):
    value = union_iou(p, g)
    assert 0 <= value <= 1 and value == pytest.approx(union_iou(g, p)) == pytest.approx(union_iou(cut(p), g[::-1]))
    assert union_iou(p, p) == pytest.approx(1)


@given(windows, windows)
def test_sets_score_within_their_bounds(p, g):
    row = set_row(p, g)
    assert all(0 <= value <= 100 + 1e-9 for value in row.values())
    assert row["EtF1"] <= 100 * (len(p) == len(g)) and row["C-Acc"] == 100 * (len(p) == len(g))
    assert set_row(g, g)["tF1@0.7"] == pytest.approx(100)
    for reward in (rewards.union_iou, rewards.transport_reward, rewards.squared_transport_reward):
        assert 0 <= reward(p, g) <= 1
    assert -1 <= rewards.union_giou(p, g) <= 1


@given(windows.filter(bool), st.floats(0.5, 50))
def test_farther_is_worse(p, shift):
    near, far = ([(start + k * shift, end + k * shift) for start, end in p] for k in (1, 2))
    assert rewards.wasserstein1(near, p) == pytest.approx(shift, rel=1e-6, abs=1e-6)
    assert rewards.transport_reward(far, p) <= rewards.transport_reward(near, p) <= 1
    assert rewards.wasserstein2(near, p) == pytest.approx(shift, rel=1e-6, abs=1e-6)


def test_a_second_answer_to_one_moment_finds_nothing():
    """Best assignment: the window that fits best takes the target, whichever is said first."""
    row = set_row([(0, 4), (0, 10)], [(0, 10)])
    assert (row["tR@0.5"], row["tP@0.5"], row["C-Acc"], row["EtF1"]) == (100, 50, 0, 0)


def test_unread_answers_are_never_right():
    assert set_row(None, [])["C-Acc"] == set_row(None, [])["tIoU"] == 0
    assert no_moment_row(None, []) == {"RefusalAcc": 0, "FalseAlarm": 0}
    assert retrieval_row(None, [(0, 1)]) == {"IoU": 0, "Precision": 0, "Recall": 0}
    scores = no_moment_scores([None, [], [(0, 1)]], [[], [(0, 1)], [(0, 1)]])
    assert scores == {"RefusalAcc": 0, "FalseAlarm": 0, "FalseRefusal": 50, "n": 3, "n_without": 1}


@given(windows.filter(bool), windows.filter(bool))
def test_the_mean_is_the_area_under_the_curve(p, g):
    """VUE-TR's areas over 101 thresholds are the means, up to their step, where times are whole seconds."""
    p, g = ([(float(int(a)), float(int(b) + 1)) for a, b in listed] for listed in (p[:1], g[:1]))
    ours, official = retrieval_row(p, g), official_row(p, g)
    assert all(official[name] == pytest.approx(ours[name], abs=1.01) for name in ours)


ROWS = {f"q{i}": {"mIoU": float(i % 7), "R1": 100.0 * (i % 2)} for i in range(60)}


def test_intervals_hold_the_value_and_depend_on_the_seed_only():
    first, second = intervals(ROWS, count=300), intervals(dict(reversed(ROWS.items())), count=300)
    assert first == second != intervals(ROWS, count=300, seed=1)
    for name, (low, high) in first.items():
        assert low < sum(row[name] for row in ROWS.values()) / len(ROWS) < high
    wide = intervals(dict(list(ROWS.items())[:10]), count=300)["mIoU"]
    assert wide[1] - wide[0] > first["mIoU"][1] - first["mIoU"][0]
    assert intervals({"q": {"mIoU": 5.0}})["mIoU"] == (5.0, 5.0)


def test_intervals_follow_the_summary_and_its_strata():
    ratio = intervals(ROWS, lambda means: {"ratio": means["R1"] / means["mIoU"]}, count=200)
    assert set(ratio) == {"ratio"}
    groups = {name: str(int(row["R1"])) for name, row in ROWS.items()}
    low, high = intervals(ROWS, count=200, strata=groups)["R1"]
    assert low == high == 50  # within a group all are alike


def test_pairs_cancel_what_both_share():
    other = {name: {**row, "mIoU": row["mIoU"] - 0.1} for name, row in ROWS.items()}
    pair = paired(ROWS, other, count=300)["mIoU"]
    assert pair["low"] == pytest.approx(0.1) == pytest.approx(pair["high"]) and pair["above"] == 1
    assert paired(ROWS, other, count=300)["R1"]["difference"] == 0 and not moved(ROWS, other, "R1")
    assert len(moved(ROWS, other, "mIoU")) == len(ROWS)
    with pytest.raises(ValueError, match="no query in common"):
        paired(ROWS, {"z": {"mIoU": 1.0}})
