"""Structural tokens: writing events, pairing tokens with frames, and reading maps."""

import json
from dataclasses import replace
from random import Random

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
from localizers.structural_windows import covered, partition

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
        ({"captions": "none", "transitions": "none"}, "<ent>"),
        ({"transitions": "none"}, "The man walks to the door and opens it.<ent>"),
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
    assert rendered.references == (4, 19)
    assert rendered.targets is None


def test_times_in_an_answer_become_events():
    times = {"<s0>": 3.0, "<e0>": 6.0, "<s1>": 10.0, "<e1>": 12.0}
    answer = "It happens from <s0> to <e0> and from <s1> to <e1>. Nice."
    rendered = render(Turn("When?", answer, times=times), transitions="none")
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
    whole = decoded(torch.zeros(2, 4), ("A", "<tst>"), legacy=True)
    assert whole.spans == ((0.0, 20.0, 1.0),)


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
