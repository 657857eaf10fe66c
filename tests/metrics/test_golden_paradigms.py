"""Answers in free text and rewards: what the official code gives, and the right reading of every answer."""

import math

import pytest

from metrics import read_moments, rewards
from metrics.benchmarks.official_windows import PARSERS
from metrics.spans import is_valid

pytestmark = pytest.mark.golden

REWARDS = {
    "tiou": rewards.union_iou,
    "tgiou": rewards.union_giou,
    "ngiou": rewards.matched_giou,
    "twass": lambda p, g: rewards.transport_reward(p, g, beta=3.0),
    "twass1": rewards.transport_reward,
    "r2twass": rewards.squared_transport_reward,
    "r2twass1": lambda p, g: rewards.squared_transport_reward(p, g, beta=1.0),
    "tdirac": rewards.endpoint_reward,
    "tcgauss": rewards.centre_reward,
    "tbgauss": rewards.soft_endpoint_reward,
    "length_ratio_penalty": rewards.length_ratio_penalty,
    "precision_weight_iou": rewards.precision_weighted_iou,
}
"""TimeLens2's name of a reward -> ours."""
BAR = 120 / 125
"""Share of the unambiguous answers that have to be read rightly."""
EXACT = 1e-12


@pytest.fixture
def facts(golden):
    return golden("paradigms/rewards")


def test_paradigms_answers_are_read_rightly(golden):
    """An answer that is ambiguous is a matter of policy; it has to be read without a crash."""
    wrong, counted = [], 0
    for case in golden("paradigms/answers")["answers"]:
        found = read_moments(case["text"], case["duration"])
        wanted = [tuple(span) for span in case["spans"]]
        right = len(wanted) == len(found.windows) and all(
            a == pytest.approx(b, abs=1e-6) for a, b in zip(found.windows, wanted, strict=True)
        )
        if not wanted:
            right = right and found.rule == case["kind"]
        if right and case["kind"] == "point":
            right = list(found.points) == pytest.approx(case["points"])
        assert all(map(is_valid, found.windows))
        counted += not case.get("ambiguous")
        if not right and not case.get("ambiguous"):
            wrong.append((case["text"], wanted or case["kind"], found))
    assert len(wrong) <= (1 - BAR) * counted + 1e-9, wrong


def test_paradigms_answers_as_the_official_readers_take_them(golden):
    for case in golden("paradigms/answers")["answers"]:
        for name, expected in case["parsers"].items():
            if name not in NOT_A_POLICY:
                reader = NAMES.get(name, name)
                found = [list(window) for window in PARSERS[reader](case["text"]).windows]
                assert found == (expected or []), (name, case["text"])


NOT_A_POLICY = {
    "lmms_eval_charades_script": "a script beside the task; the task reads by lmms_eval_charades",
    "timelens_reward": "of a reward; what it does behind <answer> is compared with the completions of the rewards",
}
"""Readers that no official evaluator of ours follows."""
NAMES = {"lmms_eval_timelens": "timelens"}
"""Readers that do the same."""


def test_paradigms_rewards_of_sets(facts, close):
    for case in facts["timelens2"]["intervals"]:
        for name, expected in case["scores"].items():
            if isinstance(expected, dict):
                assert math.isfinite(REWARDS[name](case["prediction"], case["target"])), (name, case["id"])
            else:
                close(REWARDS[name](case["prediction"], case["target"]), expected, EXACT, f"{name} {case['id']}")
    for case in facts["timelens2"]["two_annotations"]:
        value = rewards.precision_weighted_iou(case["prediction"], case["span"], case["span2"])
        close(value, case["score"], EXACT)
    target = facts["timelens2"]["target_of_completions"]
    for case in facts["timelens2"]["completions"]:
        target_set = target if isinstance(target[0], list) else [target]
        close(rewards.transport_reward(case["spans"], target_set), case["scores"]["twass1"], EXACT, case["text"])


def test_paradigms_rewards_of_one_window(facts, close):
    for case in facts["timelens"]["iou"]:
        close(rewards.iou(case["a"], case["b"]), case["iou"], EXACT)
    for case in facts["timelens"]["completions"]:
        for target, expected in zip(facts["timelens"]["targets"], case["tiou"], strict=True):
            first = target[0] if isinstance(target[0], list) else target
            said = case["spans"][0] if case["spans"] else None
            value = rewards.iou(said, first) if said and said[0] < said[1] else 0.0
            close(value, expected, EXACT, case["text"])
        found = PARSERS["timelens_training"](case["answer"])
        assert [list(window) for window in found.windows] == case["spans"], case["text"]


def test_paradigms_rewards_of_boundaries(facts, close):
    for case in facts["time_r1"]["boundary_reward"]:
        prediction, target = case["prediction"], case["target"]
        close(rewards.iou(prediction, target), case["iou"], EXACT)
        close(rewards.boundary_weighted_iou(prediction, target, case["duration"]), case["reward"], EXACT)
    for name in ("xiaomi", "www_ye"):
        block = facts["time_r1"][name]
        for case in block["completions"]:
            said = case["spans"]
            value = rewards.iou(said, block["target"]) if said else 0.0
            close(value, case["iou"], EXACT, case["text"])
            if "iou_boundary" in case:
                value = rewards.boundary_weighted_iou(said, block["target"], block["duration"]) if said else 0.0
                close(value, case["iou_boundary"], EXACT, case["text"])
