"""``<LOC>`` tokens: writing, targets, losses, and reading spans from hidden states."""

from random import Random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from datamodules.clip import Clip
from datamodules.rendered import Unsayable
from datamodules.schema import Event, Query, Turn
from localizers import TemporalExpert
from localizers.answer import Answer
from localizers.temporal_expert import LOC
from models.temporal_head import HeadOutput, boundary_losses, indicator_loss

CLIP = Clip(40.0, frames=4, frames_per_s=0.1)  # frames at 5, 15, 25 and 35 s
DOG, CAT = Event(10.0, 20.0, "a dog runs."), Event(18.0, 31.0, "a cat sleeps")


def render(turn: Turn, **settings):
    return TemporalExpert(**settings).render(turn, CLIP, Random(0))


def test_a_grounding_answer_has_one_loc_for_all_windows():
    rendered = render(Turn("When?", task="grounding", events=(DOG, CAT)))
    assert rendered.answer == "During <LOC>."
    (target,) = rendered.targets
    assert target.foreground.tolist() == [False, True, True, False]
    np.testing.assert_allclose(target.windows[1:3], [[0.25, 0.5], [0.45, 0.775]])


def test_a_dense_caption_has_one_loc_an_event():
    rendered = render(Turn("What?", task="dense_captioning", events=(DOG, CAT)))
    assert rendered.answer == "During <LOC>, a dog runs. During <LOC>, a cat sleeps."
    assert [target.foreground.tolist() for target in rendered.targets] == [
        [False, True, False, False],
        [False, False, True, False],
    ]


def test_times_of_questions_are_seconds_and_spans_of_answers_are_locs():
    times = {"<s0>": 1.0, "<e0>": 12.0, "<s1>": 20.25, "<e1>": 30.0}
    answer = "From <s0> to <e0>, he runs. He sits between <s1> and <e1>, or <s1>-<e1>."
    rendered = render(Turn("What from <s0> to <e0>?", answer, times=times))
    assert rendered.question == "What from 1.0s to 12.0s?"
    assert rendered.answer == "During <LOC>, he runs. He sits during <LOC>, or <LOC>."
    assert [target.foreground.tolist() for target in rendered.targets] == [
        [True, False, False, False],
        [False, False, True, False],
        [False, False, True, False],
    ]


def test_answers_without_times_have_no_targets():
    assert render(Turn("What?", "A dog.")).targets is None
    assert render(Turn("When?", task="grounding")).answer is None  # to be generated


def test_a_literal_answer_may_bring_its_locs():
    turn = Turn("What?", "First <LOC>, then <LOC>.", events=(DOG, CAT))
    assert len(render(turn).targets) == 2


@pytest.mark.parametrize(
    ("turn", "words"),
    [
        (Turn("?", "First <LOC>, then <LOC>.", events=(DOG,)), "an answer with 2 <LOC> does not fit its 1 windows"),
        (Turn("?", "During <LOC>.", events=(DOG, CAT)), "an answer with 1 <LOC> does not fit its 2 windows"),
        (Turn("?", "From <s0> to <e0>.", times={"<s0>": 41, "<e0>": 50}), r"window 41..50 s is outside the video"),
        (Turn("?", "From <s0> to <e0>.", times={"<s0>": 9, "<e0>": 50}), r"window 9..50 s is outside the video"),
    ],
)
def test_what_does_not_fit_is_refused(turn, words):
    with pytest.raises(ValueError, match=words):
        render(turn)


def test_without_events_an_answer_has_words_that_look_like_a_loc():
    rendered = TemporalExpert().render(Turn("?", "During <LOC>."), CLIP, Random(0))
    assert (rendered.answer, rendered.answer.tokens, rendered.targets) == ("During <LOC>.", (), None)


def test_an_end_that_overruns_by_rounding_is_the_end_of_the_video():
    (target,) = render(Turn("?", task="grounding", events=(Event(30.0, 41.5),))).targets
    assert target.windows[3].tolist() == [0.75, 1.0]


def losses(labels: list[list[int]], targets: tuple, **settings):
    """Of states that count up, with the frames at positions 1 to 4 of each row and 9 as the id of ``<LOC>``."""
    torch.manual_seed(0)
    localizer = TemporalExpert(**settings)
    head = localizer.head(8)
    labels = torch.tensor(labels)
    states = torch.randn(*labels.shape, 8, generator=torch.Generator().manual_seed(1), requires_grad=True)
    frame_mask = torch.zeros(labels.shape, dtype=torch.bool)
    frame_mask[:, 1:5] = True
    feature_mask = torch.ones(len(labels), 4, dtype=torch.bool)
    batch = SimpleNamespace(labels=labels, frame_mask=frame_mask, feature_mask=feature_mask, targets=targets)
    return localizer.loss(head, {"after_norm": states}, batch, {LOC: 9}), head, states


@pytest.mark.parametrize("state", ["reading", "predicting"])
def test_loss_terms_are_those_of_the_head_at_each_loc(state):
    one, two = (render(Turn("?", task="grounding", events=(event,))).targets for event in (DOG, CAT))
    # The first row packs two dialogues, the second teaches nothing, the third has one.
    labels = [[-100] * 5 + [3, 9, 4, 9], [-100] * 9, [-100] * 5 + [9, 3, 4, 5]]
    settings = {"indicator_weight": 2.0, "smooth_l1_weight": 3.0, "giou_weight": 5.0, "background_weight": 0.1}
    terms, head, states = losses(labels, ((one[0:1], None, two), (two,), (two,)), state=state, **settings)
    back = state == "predicting"
    loc = torch.stack([states[0, 6 - back], states[0, 8 - back], states[2, 5 - back]])
    output = head(states[[0, 0, 2], 1:5], loc, torch.ones(3, 4, dtype=torch.bool))
    foreground = torch.tensor([[0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 0]], dtype=torch.bool)
    windows = torch.zeros(3, 4, 2)
    windows[0, 1], windows[1, 2], windows[2, 2] = (torch.tensor(w) for w in ([0.25, 0.5], [0.45, 0.775], [0.45, 0.775]))
    smooth_l1, giou = boundary_losses(output, foreground, windows)
    torch.testing.assert_close(terms["indicator"], 2 * indicator_loss(output, foreground, 0.1))
    torch.testing.assert_close(terms["smooth_l1"], 3 * smooth_l1)
    torch.testing.assert_close(terms["giou"], 5 * giou)


def test_without_any_loc_terms_are_zero_and_reach_head_and_states():
    terms, head, states = losses([[-100] * 9], ((None,),))
    sum(terms.values()).backward()
    assert [term.item() for term in terms.values()] == [0, 0, 0]
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in head.parameters())
    assert states.grad is not None


def test_a_saturated_head_is_told(recwarn):
    """All offsets at 0: the GIoU term is 1 and stays so."""
    targets = render(Turn("?", task="grounding", events=(DOG,))).targets
    labels = torch.tensor([[-100] * 5 + [9]])
    frame_mask = torch.tensor([[False, True, True, True, True, False]])
    batch = SimpleNamespace(
        labels=labels, frame_mask=frame_mask, feature_mask=torch.ones(1, 4, dtype=torch.bool), targets=((targets,),)
    )
    localizer, states = TemporalExpert(), {"after_norm": torch.ones(1, 6, 8)}
    head = localizer.head(8)
    localizer.loss(head, states, batch, {LOC: 9})
    assert not recwarn
    torch.nn.init.constant_(head.boundary.layers[2].bias, -30.0)
    with pytest.warns(UserWarning, match="every offset of the temporal head is saturated .* optimization.head_lr"):
        terms = localizer.loss(head, states, batch, {LOC: 9})
    assert terms["giou"].item() == pytest.approx(1.0)


def test_at_first_a_loc_weighs_as_much_as_a_frame():
    """Otherwise training does not see for long what was asked."""
    torch.manual_seed(0)
    states = torch.randn(64, 128)
    ratio = TemporalExpert().head(128).loc(states).norm() / states.norm()
    assert 0.7 < ratio < 1.4


class Fixed(nn.Module):
    """Says the same of every ``<LOC>``, but adds the ``<LOC>`` state to the probability of frame 2."""

    def forward(self, frames, loc, mask):
        logits = torch.logit(torch.tensor([0.1, 0.7, 0.9, 0.2])).repeat(len(loc), 1)
        logits[:, 2] += loc[:, 0]
        offsets = torch.tensor([[0.05, 0.05], [0.3, 0.1], [0.3, 0.15], [0.1, 0.1]]).repeat(len(loc), 1, 1)
        return HeadOutput(logits, offsets, mask)


def answer(text: str, tokens: list[str], places: list[float], where: str = "reading") -> Answer:
    """With one-dimensional states: ``places`` at each token, 0 elsewhere."""
    states = torch.tensor(places)[:, None]
    frames = {"after_norm": torch.zeros(4, 1)}
    nothing = torch.full_like(states, torch.nan)
    given = {"reading": nothing, "predicting": nothing} | {where: states}
    return Answer(text, tuple(tokens), frames, **{name: {"after_norm": value} for name, value in given.items()})


QUERY = Query("q", "v", "grounding", "x")


@pytest.mark.parametrize("where", ["reading", "predicting"])
def test_the_example_of_the_specification(where):
    found = answer("During <LOC>.", ["During", "<LOC>", "."], [9.0, 0.0, 9.0], where)
    prediction = TemporalExpert(state=where).decode(QUERY, found, CLIP, Fixed())
    assert prediction.answer == "During 13.0s - 31.0s."
    assert prediction.rule == "ranked frames"
    np.testing.assert_allclose(prediction.spans[0], (13.0, 31.0, 0.9), rtol=1e-6)
    # The span of frame 1 is 3 to 19 s; that of frame 3 is 31 to 39 s, that of frame 0 a frame's length around 5 s.
    expected = [(13, 31, 0.9), (3, 19, 0.7), (31, 39, 0.2), (0, 10, 0.1)]
    expected[2] = (30, 40, 0.2)  # 8 s are less than a frame
    np.testing.assert_allclose(prediction.spans, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(prediction.saliency, (0.1, 0.7, 0.9, 0.2), rtol=1e-6)
    assert [(strip.label, strip.scores) for strip in prediction.strips] == [("<LOC>", (0.1, 0.7, 0.9, 0.2))]


def test_a_shorter_list_with_less_overlap():
    found = answer("<LOC>", ["<LOC>"], [0.0])
    spans = TemporalExpert(nms_iou=0.2, top=2).decode(QUERY, found, CLIP, Fixed()).spans
    np.testing.assert_allclose([span[:2] for span in spans], [(13, 31), (30, 40)], rtol=1e-5)


def test_several_locs_are_ordered_by_probability_and_rendered_in_place():
    found = answer("<LOC> and <LOC>", ["<LOC>", "and", "<LOC>"], [-1.0, 0.0, 1.0])
    prediction = TemporalExpert().decode(QUERY, found, CLIP, Fixed())
    assert prediction.answer == "13.0s - 31.0s and 13.0s - 31.0s"
    assert prediction.rule == "best frame"
    assert prediction.spans[0][2] > prediction.spans[1][2]


def test_a_dense_caption_keeps_the_order_of_the_answer():
    query = Query("q", "v", "dense_captioning", events=(DOG,))
    text = "During <LOC> , a dog runs . During <LOC>, during lunch a cat sleeps."
    found = answer(text, ["During", "<LOC>", "x", "<LOC>"], [0.0, -1.0, 0.0, 1.0])
    prediction = TemporalExpert().decode(query, found, CLIP, Fixed())
    assert prediction.captions == ("a dog runs", "during lunch a cat sleeps")
    assert len(prediction.spans) == 2
    assert prediction.spans[0][2] < prediction.spans[1][2]


def test_a_dialogue_that_names_its_events_in_times_is_learned():
    """As E.T. Instruct has it: markers in the answer and the same windows as events."""
    times = {"<s0>": 2.0, "<e0>": 6.0}
    spans = Turn("q", "It is from <s0> to <e0>. It barks.", "grounding", (Event(2, 6),), "a dog", times)
    rendered = TemporalExpert().render(spans, CLIP, Random(0))
    assert (rendered.answer, len(rendered.targets)) == ("During <LOC>. It barks.", 1)


@pytest.mark.parametrize("answer", ["At <s0>, he sits.", "It starts at <s0> and ends at <e0>.", "<s0> to <e1>"])
def test_an_answer_with_a_single_time_is_never_learned(answer):
    """It would become seconds, and no time is written as text."""
    times = {"<s0>": 2.0, "<e0>": 6.0, "<s1>": 3.0, "<e1>": 7.0}
    with pytest.raises(Unsayable, match="a single time in its answer"):
        render(Turn("When?", answer, times=times))


def test_saliency_at_the_clips_of_a_query():
    scores = ((1.0,),) * 20
    query = Query("q", "v", "highlights", saliency=scores, clip_s=2.0)
    saliency = TemporalExpert().decode(query, answer("<LOC>", ["<LOC>"], [0.0]), CLIP, Fixed()).saliency
    assert len(saliency) == 20
    np.testing.assert_allclose(saliency[:3] + saliency[7:8], (0.1, 0.1, 0.1, 0.7), atol=1e-6)  # clip 2 shows second 5
    np.testing.assert_allclose(saliency[5], 0.1 + 0.6 * 6 / 10, rtol=1e-6)


@pytest.mark.parametrize("tokens", [[], ["During", "then"]])
def test_an_answer_without_loc_is_unparsed(tokens):
    prediction = TemporalExpert().decode(QUERY, answer("no", tokens, [0.0] * len(tokens)), CLIP, Fixed())
    assert (prediction.rule, prediction.spans, prediction.saliency, prediction.answer) == (None, (), (), "no")


def test_a_broken_head_is_unparsed_with_a_warning():
    with pytest.warns(UserWarning, match="query q: the temporal head gives no finite numbers"):
        prediction = TemporalExpert().decode(QUERY, answer("<LOC>", ["<LOC>"], [torch.nan]), CLIP, Fixed())
    assert (prediction.rule, prediction.spans, prediction.answer) == (None, (), "<LOC>")


def test_a_model_without_a_head_says_no_times():
    assert TemporalExpert().decode(QUERY, answer("<LOC>", ["<LOC>"], [0.0]), CLIP).rule is None
