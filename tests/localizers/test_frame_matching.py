"""Frame matching: writing times as ``<vid>``, and reading spans off the frames that these mean."""

from random import Random

import pytest
import torch

from datamodules.clip import Clip
from datamodules.schema import Event, Query, Turn
from localizers import FrameMatching
from localizers.answer import Answer
from localizers.frame_matching import VID, groups

CLIP = Clip(20.0, frames=20, frames_per_s=1.0)
GROUNDING, DENSE = Query("q", "v", "grounding", "x"), Query("q", "v", "dense_captioning", events=(Event(0, 1, "x"),))
DOOR = Event(5.2, 11.7, "a man opens the door", detail="He walks to it first")


def render(turn: Turn, clip: Clip = CLIP, **settings):
    return FrameMatching(**settings).render(turn, clip, Random(0))


class Fixed(torch.nn.Module):
    """Its scores are the states."""

    def forward(self, tokens, frames):
        return tokens


def decode(text: str, frames: list[int], query: Query = GROUNDING, clip: Clip = CLIP):
    """What is read of a text whose tokens mean these frames."""
    scores = torch.full((len(frames), clip.frames), -100.0)
    scores[range(len(frames)), frames] = 100.0
    states = {"before_last_layer": scores}
    answer = Answer(text, (VID,) * text.count(VID), {"before_norm": torch.zeros(clip.frames, 1)}, predicting=states)
    return FrameMatching().decode(query, answer, clip, Fixed())


def test_times_of_questions_and_literal_answers_are_tokens_in_their_order():
    times = {"<s0>": 2.0, "<e0>": 4.5, "<s1>": 7.0, "<e1>": 99.0}
    turn = Turn("What from <s0> to <e0>, and at <s0>?", "<s1> - <e1> seconds. Nice.", times=times)
    rendered = render(turn)
    assert rendered.question == "What from <vid> to <vid>, and at <vid>?"
    assert rendered.answer == "<vid> - <vid> seconds. Nice."
    assert rendered.moments == ((2, 2), (4.5, 4.5), (2, 2), (7, 7), (19, 19))


@pytest.mark.parametrize(
    ("turn", "settings", "answer"),
    [
        (Turn("?", task="grounding", events=(DOOR,)), {}, "From <vid> to <vid>."),
        (Turn("?", task="grounding", events=(DOOR, DOOR)), {}, "From <vid> to <vid>, and from <vid> to <vid>."),
        (Turn("?", task="dense_captioning", events=(DOOR,)), {}, "From <vid> to <vid>, a man opens the door."),
        (Turn("?", task="grounding", events=(DOOR,)), {"captions": "query_focused"},
         "He walks to it first. From <vid> to <vid>."),
        (Turn("?", task="grounding", events=(DOOR,), topic="a door"), {"captions": "query"},
         "A door. From <vid> to <vid>."),
        (Turn("?", "<s0> - <e0>. It is (B).", "grounding", (DOOR,), times={"<s0>": 5.2, "<e0>": 11.7}), {},
         "<vid> - <vid>. It is (B)."),
        (Turn("?", "<s0> - <e0>. It is (B).", "grounding", (DOOR,), times={"<s0>": 5.2, "<e0>": 11.7}),
         {"captions": "query_focused"}, "He walks to it first. From <vid> to <vid>. It is (B)."),
    ],
)  # fmt: skip
def test_answers(turn, settings, answer):
    rendered = render(turn, **settings)
    assert rendered.answer == answer
    assert rendered.moments == ((5.2, 5.2), (11.7, 11.7)) * (answer.count(VID) // 2)


def test_frames_follow_the_frame_rate():
    assert render(Turn("?", task="grounding", events=(DOOR,)), Clip(40.0, 20, 0.5)).moments == (
        (2.6, 2.6),
        (5.85, 5.85),
    )


@pytest.mark.parametrize(
    ("text", "frames", "spans"),
    [
        ("From <vid> to <vid>.", [5, 11], [(5, 11)]),
        ("From <vid> to <vid>.", [11, 5], [(5, 11)]),  # reversed
        ("<vid>-<vid>", [7, 7], [(7, 8)]),  # at least one frame
        ("It is at <vid>.", [7], [(7, 9)]),  # one time alone
        ("<vid> - <vid>, <vid> – <vid> and <vid>", [1, 2, 4, 6, 19], [(1, 2), (4, 6), (19, 20)]),
    ],
)  # fmt: skip
def test_spans(text, frames, spans):
    found = decode(text, frames)
    assert [span[:2] for span in found.spans] == spans
    assert all(span[2] == pytest.approx(1) for span in found.spans)
    assert found.rule == "matched frames"


def test_the_text_names_seconds_and_confidence_is_the_chance_of_both_ends():
    clip = Clip(40.0, 20, 0.5)
    found = decode("From <vid> to <vid>.", [5, 11], clip=clip)
    assert found.answer == "From 10 to 22."
    assert found.spans[0][:2] == (10.0, 22.0)
    states = {"before_last_layer": torch.zeros(2, 20)}
    unsure = Answer("<vid> - <vid>", (VID, VID), {"before_norm": torch.zeros(20, 1)}, predicting=states)
    assert FrameMatching().decode(GROUNDING, unsure, clip, Fixed()).spans[0][2] == pytest.approx(1 / 400)


def test_captions_of_a_dense_answer():
    found = decode("From <vid> to <vid>, he cuts. From <vid> to <vid>, he eats 3 eggs.", [0, 6, 6, 19], DENSE)
    assert found.captions == ("he cuts", "he eats 3 eggs")
    assert [span[:2] for span in found.spans] == [(0, 6), (6, 19)]
    found = decode("<vid> - <vid> seconds, he cuts. <vid> - <vid> seconds, he eats.", [0, 6, 6, 19], DENSE)
    assert found.captions == ("he cuts", "he eats")
    found = decode("<vid> seconds, he cuts. <vid> seconds, he eats.", [1, 9], DENSE)
    assert [span[:2] for span in found.spans] == [(1, 9), (9, 20)]  # each lasts until the next


@pytest.mark.parametrize("text", ["", "I do not know."])
def test_answers_without_times_are_unparsed(text):
    found = decode(text, [])
    assert (found.rule, found.spans, found.answer) == (None, (), text)


def test_broken_scores_are_unparsed_with_a_warning():
    states = {"before_last_layer": torch.full((1, 20), torch.nan)}
    answer = Answer(VID, (VID,), {"before_norm": torch.zeros(20, 1)}, predicting=states)
    with pytest.warns(UserWarning, match="query q: a score is not finite"):
        assert FrameMatching().decode(GROUNDING, answer, CLIP, Fixed()).rule is None


def test_groups():
    assert groups(["", " - ", ", ", " to ", "."]) == [(0, 1), (2, 3)]
    assert groups(["", " and ", " - ", ""]) == [(0, 1), (2, 2)]
    assert groups(["no time"]) == []
