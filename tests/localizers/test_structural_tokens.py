"""Structural tokens: writing events, pairing tokens with frames, and reading maps."""

import json
from dataclasses import replace
from random import Random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from datamodules.clip import Clip
from datamodules.schema import Event, Query, Turn
from localizers import StructuralTokens
from localizers.answer import Answer
from localizers.similarity_maps import clip_means, overlap, runs, segments
from localizers.structural_tokens import StructuralTargets
from localizers.structural_windows import covered, partition, transitions
from models.structural_head import StructuralHead

CLIP = Clip(20.0, frames=20, frames_per_s=1.0)
DOOR = Event(5.2, 11.7, "a man opens the door", detail="the man walks to the door and opens it")
GROUNDING = Query("q", "v", "grounding", "x")


def render(turn: Turn, clip: Clip = CLIP, **settings):
    return StructuralTokens(**settings).render(turn, clip, Random(0))


def test_a_detailed_caption_stands_before_its_token_and_background_around():
    rendered = render(Turn("When?", task="grounding", events=(DOOR,)))
    assert rendered.answer == "<tst>\nThe man walks to the door and opens it.<ent>\n<tst>"
    assert rendered.targets.events == ((5, 11),)
    assert rendered.targets.transitions == ((0, 5), (11, 19))


@pytest.mark.parametrize(
    ("settings", "answer"),
    [
        ({"captions": "query"}, "<tst>\nA man opens the door.<ent>\n<tst>"),
        ({"captions": "none"}, "<tst>\n<ent>\n<tst>"),
        ({"captions": "none", "transitions": "none", "rule": "cosine"}, "<ent>"),
        ({"transitions": "none", "rule": "cosine"}, "The man walks to the door and opens it.<ent>"),
    ],
)
def test_the_variants_of_the_ablation(settings, answer):
    assert render(Turn("When?", task="grounding", events=(DOOR,)), **settings).answer == answer


def test_a_query_without_captions_is_copied():
    turn = Turn("When?", task="grounding", events=(Event(0.0, 20.0),), topic="a man opens the door")
    assert render(turn).answer == "A man opens the door.<ent>"


def test_events_are_written_in_order_of_time():
    later, earlier = Event(12.0, 15.0, "b"), Event(2.0, 5.0, "a")
    rendered = render(Turn("?", task="dense_captioning", events=(later, earlier)))
    assert rendered.answer == "<tst>\nA.<ent>\n<tst>\nB.<ent>\n<tst>"
    assert rendered.targets.events == ((2, 5), (12, 15))


def test_nested_events_leave_the_outer_one_to_say_where_background_begins():
    turn = Turn("?", task="dense_captioning", events=(Event(0.0, 18.5, "a"), Event(3.0, 6.0, "b")))
    assert render(turn).answer == "A.<ent>\nB.<ent>"


def test_frames_follow_the_frame_rate():
    rendered = render(Turn("?", task="grounding", events=(Event(10.4, 23.4, "a"),)), Clip(40.0, 20, 0.5))
    assert rendered.targets.events == ((5, 11),)


def test_times_in_a_question_refer_to_frames():
    turn = Turn("What from <s0> to <e0>?", "A door.", times={"<s0>": 4.4, "<e0>": 60.0})
    rendered = render(turn)
    assert (rendered.question, rendered.answer) == ("What from <vid> to <vid>?", "A door.")
    assert rendered.moments == ((4.4, 4.4), (19.0, 19.0))
    assert rendered.targets is None


@pytest.mark.parametrize("token", ["<ent>", "<tst>"])
def test_a_token_in_a_text_is_text(token):
    said = f"a sign says {token}"
    answer = render(Turn("?", task="grounding", events=(Event(2.0, 5.0, said),))).answer
    assert answer.startswith("<tst>\nA sign says <")
    assert answer.tokens == ("<tst>", "<ent>", "<tst>")
    answer = render(Turn("?", f"{said}.")).answer
    assert (answer, answer.tokens) == (f"{said}.", ())


def test_times_in_an_answer_become_events():
    times = {"<s0>": 3.0, "<e0>": 6.0, "<s1>": 10.0, "<e1>": 12.0}
    answer = "It happens from <s0> to <e0> and from <s1> to <e1>. Nice."
    rendered = render(Turn("When?", answer, times=times), transitions="none", rule="qvhighlights")
    assert rendered.answer == "It happens.<ent>\nNice.<ent>"
    assert rendered.targets.events == ((3, 6), (10, 12))


def test_more_events_than_tokens_in_a_literal_answer_are_refused():
    with pytest.raises(ValueError, match="2 events"):
        render(Turn("?", "A.<ent>", events=(DOOR, DOOR)))


@given(
    st.lists(st.tuples(st.floats(0, 30), st.floats(0, 30)), min_size=1, max_size=4).map(
        lambda spans: [(min(s), max(s)) for s in spans]
    )
)
def test_windows_always_cover_frames_of_the_video(windows):
    for window in windows:
        first, last = covered(window, 20)
        assert 0 <= first <= last <= 19


@given(st.lists(st.integers(1, 5), min_size=2, max_size=8))
def test_the_strict_partition_has_no_gap_and_no_overlap(lengths):
    ends = [sum(lengths[: i + 1]) for i in range(len(lengths))]
    windows = [(end - length, end - 0.5) for end, length in zip(ends, lengths, strict=True)][::2]
    frames = ends[-1]
    events, between = partition(windows, frames)
    used = sorted([*events, *between.values()])
    assert used[0][0] == 0
    assert used[-1][1] == frames - 1
    assert all(a[1] + 1 == b[0] for a, b in zip(used, used[1:], strict=False))


def test_the_partition_of_events_that_overlap():
    """Nested ones keep their frames, a frame that two touch is the earlier one's, background is what none covers."""
    events, between = partition([(2.0, 12.4), (4.0, 6.0), (12.5, 14.0), (12.6, 12.8), (17.2, 18.0)], 20)
    assert events == [(2, 12), (4, 6), (13, 14), (12, 13), (17, 18)]
    assert between == {0: (0, 1), 4: (15, 16), 5: (19, 19)}


@given(st.lists(st.tuples(st.floats(0, 30), st.floats(0.1, 30)), min_size=1, max_size=6))
def test_a_partition_leaves_no_frame_out(spans):
    windows = sorted((start, start + length) for start, length in spans)
    events, between = partition(windows, 25)
    stretches = [*events, *between.values()]
    assert {frame for first, last in stretches for frame in range(first, last + 1)} == set(range(25))
    covered_by_events = {frame for first, last in events for frame in range(first, last + 1)}
    assert all(covered_by_events.isdisjoint(range(first, last + 1)) for first, last in between.values())


def test_gaps_are_held_against_the_thresholds_in_single_precision_as_released():
    """In double precision it is the other way round."""
    assert set(transitions([(5.0, 30.1), (32.1, 40.0)], 41)) == {0}
    assert set(transitions([(5.0, 30.3), (32.3, 40.0)], 41)) == {0, 1}


@given(st.lists(st.booleans(), min_size=1, max_size=30))
def test_runs_cover_what_is_kept(keep):
    covered_frames = {i for first, last in runs(torch.tensor(keep)) for i in range(first, last + 1)}
    assert covered_frames == {i for i, kept in enumerate(keep) if kept}


def test_suppressed_segments_are_gone_unless_as_released():
    maps = torch.tensor([[0.0, 0.0, 1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.99, 0.0, 0.0]])
    assert len(segments(maps, [True, True], 10.0, "qvhighlights")) == 1
    legacy = segments(maps, [True, True], 10.0, "qvhighlights", legacy=True)
    assert [s.score > 0 for s in legacy] == [True, False]
    assert overlap(*legacy) >= 0.7


def test_the_argmax_rule_gives_every_frame_to_one_token():
    maps = torch.tensor([[0.1, 0.9, 0.9, 0.1], [0.9, 0.1, 0.1, 0.9]])
    assert [(s.start, s.end) for s in segments(maps, [True, False], 10.0, "argmax")] == [(1.0, 3.0)]


def test_a_fixed_threshold_on_the_cosine_looks_at_nothing_else():
    maps = torch.tensor([[0.1, 0.62, 0.9, 0.7, 0.3, 0.8], [1.0, 1.0, 1.0, 1.0, 1.0, 1.0]])
    found = segments(maps, [True, False], 10.0, "cosine", threshold=0.6)
    assert [(s.start, s.end, pytest.approx(s.score)) for s in found] == [(1, 4, 0.9), (5, 6, 0.8)]
    assert segments(maps, [True, False], 10.0, "cosine", threshold=0.95) == []


@pytest.mark.parametrize("rule", ["argmax", "charades", "etbench", "qvhighlights"])
def test_an_event_that_fills_the_video_has_a_flat_map(rule):
    flat = torch.full((1, 6), 0.5)
    found = segments(flat, [True], 10.0, rule)
    assert [(s.start, s.end) for s in found] == [(0, 6 if rule in ("argmax", "qvhighlights") else 5)]
    assert segments(flat, [True], 10.0, rule, legacy=True) == [] or rule == "argmax"


def test_the_last_frame_belongs_to_a_segment_unless_as_released():
    maps = torch.tensor([[0.0, 1.0, 1.0, 1.0, 0.0, 0.0]])
    spans = [segments(maps, [True], 10.0, "qvhighlights", legacy=legacy)[0] for legacy in (False, True)]
    assert [(s.start, s.end) for s in spans] == [(1, 4), (1, 3)]


@pytest.mark.parametrize("rule", ["argmax", "charades", "etbench"])
def test_rules_of_competition_need_transition_tokens(rule):
    with pytest.raises(ValueError, match=f"rule {rule} lets tokens compete .* choose rule qvhighlights or cosine"):
        StructuralTokens(transitions="none", rule=rule)


def test_the_bound_of_the_temperature_lets_it_come_back():
    head = StructuralHead(4, max_scale=20.0)
    head.logit_scale.data.fill_(5.0)  # e^5 = 148
    head.scale.backward()
    assert head.scale.item() == pytest.approx(20.0)
    assert head.logit_scale.grad.item() == pytest.approx(20.0)
    head.logit_scale.data -= 0.1
    assert head.scale.item() == pytest.approx(20.0 * np.exp(-0.1))


class Plain(torch.nn.Module):
    """States are vectors as they are."""

    scale = torch.tensor(2.0)

    def frames(self, states):
        return states

    tokens = frames


@pytest.mark.parametrize("joint", [False, True])
@pytest.mark.parametrize("symmetric", [False, True])
def test_the_forms_of_the_loss_by_value(joint, symmetric):
    """Two events and a transition over four frames, written out (MeCo, Eq. 2 and the sentence behind it)."""
    states = torch.randn(1, 10, 3, generator=torch.Generator().manual_seed(0))
    frames, predicting = states[0, 1:5], states[0, [5, 6, 8]]
    labels = torch.tensor([[-100] * 6 + [7, 8, 3, 7]])
    frame_mask = torch.zeros(1, 10, dtype=torch.bool)
    frame_mask[:, 1:5] = True
    targets = ((StructuralTargets(((0, 1), (3, 3)), ((1, 2),)),),)
    batch = SimpleNamespace(labels=labels, frame_mask=frame_mask, blocks=None, targets=targets)
    given = {"before_norm": states, "before_last_layer": states}
    localizer = StructuralTokens(joint=joint, symmetric=symmetric)
    loss = localizer.loss(Plain(), given, batch, {"<ent>": 7, "<tst>": 8})["grounding"].item()

    events, transition = predicting[[0, 2]], predicting[1]
    right = {0: (events[0], [0, 1]), 1: (events[1], [3]), 2: (transition, [1, 2])}
    each = [
        -np.mean([(2 * frames @ token).log_softmax(0)[frame].item() for frame in inside])
        for token, inside in right.values()
    ]
    expected = np.mean(each) if joint else (np.mean(each[:2]) + each[2]) / 2
    if symmetric:
        tokens = torch.stack([token for token, _ in right.values()])
        owners = {0: [0], 1: [0, 2], 2: [2], 3: [1]}
        back = [-np.mean([(2 * tokens @ frames[f]).log_softmax(0)[j].item() for j in js]) for f, js in owners.items()]
        expected = (expected + np.mean(back)) / 2
    assert loss == pytest.approx(expected, abs=1e-6)


def decoded(maps_states, tokens, query=GROUNDING, **settings):
    torch.manual_seed(0)
    localizer = StructuralTokens(**settings)
    head = localizer.head(4)
    frames = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
    answer = Answer("A door.<ent>", tokens, {"before_norm": frames}, {"before_last_layer": maps_states})
    return localizer.decode(query, answer, CLIP, head.eval().requires_grad_(False))


def test_an_answer_without_event_tokens_is_unparsed():
    found = decoded(torch.zeros(2, 4), ("A", "<tst>"))
    assert (found.spans, found.rule) == ((), None)
    for rule in ("charades", "qvhighlights"):
        assert decoded(torch.zeros(2, 4), ("A", "<tst>"), legacy=True, rule=rule).spans == ((0.0, 20.0, 1.0),)
    assert decoded(torch.zeros(2, 4), ("A", "<tst>"), legacy=True, rule="etbench").spans == ()


def test_a_map_of_nan_is_unparsed_and_says_so():
    with pytest.warns(UserWarning, match="NaN"):
        found = decoded(torch.full((2, 4), torch.nan), ("A", "<ent>"))
    assert (found.spans, found.rule) == ((), None)


def test_saliency_of_clips_is_the_mean_of_their_frames():
    """At one frame a second and clips of two seconds: means of pairs, as released."""
    assert clip_means([1.0, 3.0, 5.0, 7.0], 2, 2.0) == [2.0, 6.0]
    assert clip_means([1.0, 3.0], 3, 0.5) == [1.0, 1.0, 3.0]
    assert clip_means([1.0, 3.0, 5.0], 2, 2.0) == [2.0, 2.5]  # half of the last clip has no frame


def test_saliency_of_clips_keeps_ties_and_what_is_next_to_nothing():
    """Clips of 2 s and a frame every 5 s: the 1st and 2nd, 4th and 5th, 6th and 7th lie within a frame, .."""
    scores = np.random.default_rng(0).random(30)
    means = clip_means(scores, 75, 2 / 5)
    assert all(means[5 * k] == means[5 * k + 1] and means[5 * k + 3] == means[5 * k + 4] for k in range(15))
    assert clip_means([0.9, 0.1, 1e-18, 3e-18], 2, 2.0) == pytest.approx([0.5, 2e-18], rel=1e-9)


def test_an_event_has_spans_in_seconds_and_saliency_a_frame():
    found = decoded(torch.randn(2, 4, generator=torch.Generator().manual_seed(1)), ("A", "<ent>"))
    assert found.spans
    assert all(0 <= start < end <= 20 for start, end, _ in found.spans)
    assert len(found.saliency) == 20
    assert sum(found.saliency) == pytest.approx(1.0, abs=1e-5)


def test_each_event_has_its_map_as_a_strip():
    state = torch.randn(3, 4, generator=torch.Generator().manual_seed(1))
    found = decoded(state, ("<tst>", "A", "<ent>"))
    (strip,) = found.strips
    assert strip.label == "<ent> A door." and len(strip.scores) == 20
    assert max(range(20), key=strip.scores.__getitem__) == max(range(20), key=found.saliency.__getitem__)
    assert json.loads(found.to_json())["strips"][0]["scores"] == list(strip.scores)
    assert decoded(torch.zeros(2, 4), ("A", "<tst>")).strips == ()


def test_saliency_has_the_clips_of_the_query():
    state = torch.randn(2, 4, generator=torch.Generator().manual_seed(1))
    frames = decoded(state, ("A", "<ent>")).saliency
    clips = decoded(state, ("A", "<ent>"), replace(GROUNDING, clip_s=2.0)).saliency
    pairs = torch.tensor(frames).view(10, 2).mean(1).tolist()
    assert clips == pytest.approx(pairs, abs=1e-6)


def test_an_instant_of_a_dialogue_is_one_frame():
    """The released code trains on one frame there."""
    turn = Turn("?", "It jumps at <s0> to <e0>.", times={"<s0>": 3.5, "<e0>": 3.5})
    made = StructuralTokens().render(turn, Clip(10.0, 10, 1.0), Random(0))
    ((first, last),) = made.targets.events
    assert first <= 3 <= last <= first + 1
