"""Frames that are not evenly spaced: every localizer writes and reads times by those of its frames."""

from dataclasses import replace
from random import Random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_round_trip import PerfectExpert, PerfectTokens, expert_spans, text_spans, token_spans

from datamodules.chat import chat_format
from datamodules.clip import Clip
from datamodules.dialogue import Dialogue
from datamodules.schema import Event, Query, Turn, Video
from localizers import SentenceMatching, StructuralTokens, TemporalExpert, TextTimestamps
from localizers.answer import Answer
from models.checkpoints import load_tokenizer
from models.structural_head import StructuralHead
from models.temporal_head import HeadOutput, TemporalHead

SLOWING = np.array([*range(10), *range(10, 70, 6)], dtype=float)
"""Of 20 frames: one a second, and then one in six; the video lasts 70 s."""
DURATION_S = 70.0
QUERY = Query("q", "v", "grounding", "x")


def video(times_s: np.ndarray, duration_s: float = DURATION_S) -> Video:
    return Video("v", duration_s, times_s, np.zeros((len(times_s), 4), np.float16))


def clip(times_s: np.ndarray = SLOWING, duration_s: float = DURATION_S) -> Clip:
    return Clip.of(video(times_s, duration_s), duration_s)


def found(first: int, last: int) -> Turn:
    """An event from one frame to another."""
    return Turn("When?", task="grounding", events=(Event(SLOWING[first], SLOWING[last]),), topic="x")


@pytest.mark.parametrize(
    "times_s",
    [
        np.arange(20) * 3.5,
        (np.arange(20) + 0.5) * 3.5,  # as the made-up world has them
        np.trunc(np.linspace(0, 699, 20)) / 10,  # chosen from ten pictures a second
        np.array([*range(19), 18.97]),
        np.zeros(20),
    ],
)
def test_evenly_spaced_frames_are_as_they_were(times_s):
    even = clip(times_s)
    assert even.even
    assert (even.even_s(12.345), even.true_s(12.345)) == (12.345, 12.345)


def test_repeated_pictures_share_the_time_for_which_they_are_shown():
    """A slide show at one frame a second: each picture stands for the seconds that it is on the screen."""
    slides = clip(np.array([0.0] * 10 + [10.0] * 4 + [14.0] * 6), 20.0)
    assert slides.even
    pictures = clip(np.array([0.0, 0.0, 10.0, 14.0]), 16.0)
    np.testing.assert_allclose(pictures.shown_s, [0, 5, 10, 14])


def test_ticks_go_on_with_the_frames():
    times_s = np.array([*np.linspace(0, 10, 50, endpoint=False), *np.linspace(10, 100, 50)])
    axis, localizer = clip(times_s, 100.0), TextTimestamps()
    events = (Event(times_s[30], times_s[60]),)
    rendered = localizer.render(Turn("When?", task="grounding", events=events), axis, Random(0))
    assert rendered.answer == "From 30 to 61."  # 30 and 60 of 99 steps
    (span,) = localizer.decode(QUERY, Answer(rendered.answer), axis).spans
    np.testing.assert_allclose(span[:2], (times_s[30], times_s[60]), atol=2.0)
    asked = localizer.render(Turn("What from <s0>?", "x", times={"<s0>": times_s[30]}), axis, Random(0))
    assert asked.question == "What from 30?"


@pytest.mark.parametrize(("first", "last"), [(2, 5), (8, 12), (12, 19)])
def test_structural_tokens_belong_to_the_frames_of_their_times(first, last):
    localizer = StructuralTokens(transitions="partition")
    rendered = localizer.render(found(first, last), clip(), Random(0))
    assert rendered.targets.events == ((first, last),)
    assert rendered.targets.transitions[0] == (0, first - 1)
    asked = localizer.render(Turn("At <s0>?", "x", times={"<s0>": SLOWING[last]}), clip(), Random(0))
    assert asked.references == (last,)


@pytest.mark.parametrize(("first", "last"), [(2, 5), (8, 12), (12, 18)])
def test_structural_maps_are_read_in_seconds(first, last):
    maps = torch.full((1, 20), -1.0)
    maps[0, first : last + 1] = 1.0
    answer = Answer("x<ent>", ("x", "<ent>"), {"maps": maps})
    span = PerfectTokens(rule="qvhighlights").decode(QUERY, answer, clip(), StructuralHead(4)).spans[0]
    assert span[:2] == pytest.approx((SLOWING[first], SLOWING[last]))


@pytest.mark.parametrize("localizer", [TemporalExpert(), SentenceMatching()])
@pytest.mark.parametrize(("first", "last"), [(2, 5), (8, 12), (12, 19)])
def test_the_head_is_told_and_read_by_the_times_of_the_frames(localizer, first, last):
    (target,) = localizer.render(found(first, last), clip(), Random(0)).targets
    inside = (SLOWING[first] <= SLOWING) & (SLOWING[last] >= SLOWING)
    np.testing.assert_array_equal(target.foreground, inside)
    centres = (torch.arange(20) + 0.5) / 20
    offsets = (torch.from_numpy(target.windows)[None] - centres[None, :, None]) * torch.tensor([-1.0, 1.0])
    output = HeadOutput(
        torch.from_numpy(target.foreground)[None] * 20.0 - 10, offsets, torch.ones(1, 20, dtype=torch.bool)
    )
    answer = Answer("<LOC>", frames={"output": output})
    spans = PerfectExpert().decode(QUERY, answer, clip(), TemporalHead(4)).spans
    np.testing.assert_allclose(spans[0][:2], (SLOWING[first], SLOWING[last]), atol=1e-4)


def test_saliency_of_clips_is_in_seconds():
    query = Query("q", "v", "highlights", saliency=((1.0,),) * 7, clip_s=10.0)
    scores = torch.arange(20.0)
    output = HeadOutput(
        torch.logit(scores[None] / 20 + 0.01), torch.full((1, 20, 2), 0.1), torch.ones(1, 20, dtype=torch.bool)
    )
    expert = PerfectExpert().decode(query, Answer("<LOC>", frames={"output": output}), clip(), TemporalHead(4))
    at = np.interp(np.arange(5, 75, 10), SLOWING, scores / 20 + 0.01)
    np.testing.assert_allclose(expert.saliency, at, atol=1e-3)
    maps = torch.zeros(1, 20)
    maps[0, 9] = 1.0  # from 9 to 10 s
    maps[0, 11] = 1.0  # from 16 to 22 s
    head = StructuralHead(4)
    tokens = PerfectTokens().decode(query, Answer("x<ent>", ("x", "<ent>"), {"maps": maps}), clip(), head)
    chances = (head.scale.detach() * maps[0]).softmax(0).numpy()
    lengths = np.diff([*SLOWING, 70])
    starts = np.cumsum([0, *lengths[:-1]])
    for number, mean in enumerate(tokens.saliency):
        shares = (np.minimum(starts + lengths, 10 * number + 10) - np.maximum(starts, 10 * number)).clip(0) / 10
        assert mean == pytest.approx(float(shares @ chances), abs=1e-6)


gaps = st.lists(st.floats(0.2, 9.0), min_size=30, max_size=60)


@pytest.mark.parametrize("way", [text_spans, token_spans, expert_spans])
@settings(max_examples=40, deadline=None)
@given(gaps=gaps, at=st.tuples(st.floats(0, 0.9), st.floats(0.02, 0.9)))
def test_any_moment_comes_back_within_the_frames_around_it(way, gaps, at):
    times_s = np.cumsum([0.0, *gaps[:-1]])
    duration_s = times_s[-1] + gaps[-1]
    start_s = at[0] * duration_s
    end_s = min(start_s + max(at[1] * duration_s, 0.5), duration_s)
    query = Query("q", "v", "grounding", "x", events=(Event(start_s, end_s, "x"),), duration_s=duration_s)
    axis = clip(times_s, duration_s)
    spans, _ = way(query, Turn("?", task="grounding", events=query.events), axis)
    frames = 2 if way is not text_spans else 2 + len(gaps) / 100
    around = []
    for time_s in (start_s, end_s):
        even_s = axis.even_s(time_s)  # of what lies behind the last frame, that frame is all that can be told
        earliest_s = min(even_s, axis.frames / axis.frames_per_s) - frames / axis.frames_per_s
        around += [axis.true_s(earliest_s), axis.true_s(even_s + frames / axis.frames_per_s)]
    assert any(
        around[0] - 1e-6 <= start <= around[1] + 1e-6 and around[2] - 1e-6 <= end <= around[3] + 1e-6
        for start, end, _ in spans
    ), (spans, around)


LOCALIZERS = [TextTimestamps(), StructuralTokens()]
EVENTS = (Event(2.0, 5.0, "a dog runs"), Event(16.0, 40.0, "a cat sleeps"))
TIMES = {"<s0>": 4.0, "<e0>": 34.0}
RECORDS = [
    Query("q", "v", "events", events=EVENTS),
    Query("q", "v", "dense_captioning", events=EVENTS),
    Query("q", "v", "grounding", "a dog runs", events=EVENTS[1:]),
    Query("q", "v", "segment_captioning", events=EVENTS[1:]),
    Query("q", "v", "dialogue", turns=(Turn("What from <s0> to <e0>?", "It is from <s0> to <e0>.", times=TIMES),)),
]
"""What the stages train on."""


@pytest.mark.parametrize("localizer", LOCALIZERS, ids=lambda localizer: type(localizer).__name__)
@pytest.mark.parametrize("query", RECORDS, ids=lambda query: query.task)
def test_stages_learn_what_an_even_video_with_events_at_the_same_frames_would_teach(llm, localizer, query):
    dialogue = Dialogue(load_tokenizer(llm), chat_format("vicuna_v1"), localizer)
    axis = clip()
    even = video(np.arange(20) / axis.frames_per_s)

    def moved(event: Event) -> Event:
        return replace(event, start_s=axis.even_s(event.start_s), end_s=axis.even_s(event.end_s))

    turns = tuple(
        replace(turn, times={marker: axis.even_s(time_s) for marker, time_s in turn.times.items()})
        for turn in query.turns
    )
    same = replace(query, events=tuple(map(moved, query.events)), turns=turns)
    uneven, expected = dialogue.example(query, video(SLOWING), Random(3)), dialogue.example(same, even, Random(3))
    assert uneven.input_ids.tolist() == expected.input_ids.tolist()
    assert uneven.labels.tolist() == expected.labels.tolist()
    assert uneven.references.tolist() == expected.references.tolist()
    assert uneven.targets == expected.targets


@pytest.mark.parametrize("query", [query for query in RECORDS if query.task != "segment_captioning"])
def test_the_head_learns_the_windows_of_its_frames_at_every_stage(llm, query):
    """Apart from the others: it says seconds in questions, and has each frame in the middle of a step."""
    dialogue = Dialogue(load_tokenizer(llm), chat_format("vicuna_v1"), TemporalExpert())
    examples = [dialogue.example(query, video(SLOWING), Random(seed)) for seed in range(5)]
    targets = [target for example in examples for turn in example.targets if turn for target in turn]
    assert targets
    for target in targets:
        start, end = target.windows[target.foreground][0]
        times_s = np.interp([start, end], (np.arange(20) + 0.5) / 20, SLOWING)
        inside = (times_s[0] - 1e-4 <= SLOWING) & (times_s[1] + 1e-4 >= SLOWING)
        np.testing.assert_array_equal(target.foreground, inside)


def test_a_prompt_carries_the_times_of_its_frames(llm):
    dialogue = Dialogue(load_tokenizer(llm), chat_format("vicuna_v1"), TextTimestamps())
    asked = dialogue.prompt(QUERY, video(SLOWING)).clip
    np.testing.assert_array_equal(asked.frame_times_s, SLOWING)
    assert not asked.even
