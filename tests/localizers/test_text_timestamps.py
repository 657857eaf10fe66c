"""Times as two-digit numbers: writing, reading, and that reading undoes writing."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamodules.clip import Clip
from datamodules.schema import Event, Query, Turn
from localizers import TextTimestamps
from localizers.answer import Answer

GROUNDING = Query("q", "v", "grounding", "x")
DENSE = Query("q", "v", "dense_captioning", events=(Event(0, 1, "x"),))


def clip(duration_s: float) -> Clip:
    return Clip(duration_s, frames=100, frames_per_s=100 / duration_s)


def test_ticks_round_to_even_and_stay_on_the_clock():
    ticks = [TextTimestamps().tick(time_s, 100.0) for time_s in (0, 0.5, 1.5, 2.5, 6.5, 7.5, 99.4, 100, 180)]
    assert ticks == ["00", "00", "02", "02", "06", "08", "99", "99", "99"]
    assert [TextTimestamps(ticks=32).tick(time_s, 64.0) for time_s in (0, 31, 64)] == ["00", "16", "31"]


def test_a_negative_time_warns_unless_as_released():
    with pytest.warns(UserWarning, match="before the start"):
        assert TextTimestamps().tick(-2.2, 200.0) == "00"
    assert TextTimestamps(legacy_negative=True).tick(-2.2, 200.0) == "-1"


@pytest.mark.parametrize("ticks", [1, 101])
def test_a_clock_must_fit_two_digits(ticks):
    with pytest.raises(ValueError, match="2 to 100"):
        TextTimestamps(ticks=ticks)


def test_markers_are_replaced_in_question_and_answer():
    turn = Turn("From <s0> to <e0>?", "Until <e0>.", times={"<s0>": 10.0, "<e0>": 20.0})
    rendered = TextTimestamps().render(turn, clip(50.0), Random(0))
    assert (rendered.question, rendered.answer) == ("From 20 to 40?", "Until 40.")


def test_a_turn_to_be_asked_has_no_answer():
    assert TextTimestamps().render(Turn("When?", task="grounding"), clip(50.0), Random(0)).answer is None


spans = st.tuples(st.integers(0, 98), st.integers(1, 99)).filter(lambda pair: pair[0] < pair[1])


@given(st.lists(spans, min_size=1, max_size=4), st.floats(1.0, 5000.0))
def test_grounding_answers_are_read_back_within_one_tick(pairs, duration_s):
    events = tuple(Event(a / 100 * duration_s, b / 100 * duration_s) for a, b in pairs)
    text = TextTimestamps().render(Turn("?", task="grounding", events=events), clip(duration_s), Random(0)).answer
    found = TextTimestamps().decode(GROUNDING, Answer(text), clip(duration_s))
    assert found.rule == "digits"
    for event, (start, end, _) in zip(events, found.spans, strict=True):
        assert abs(start - event.start_s) <= duration_s / 100
        assert abs(end - event.end_s) <= duration_s / 100


captions = st.text("abcdefgh ,", min_size=1, max_size=30).map(str.strip).filter(lambda c: c.strip(", "))


@given(st.lists(st.tuples(spans, captions), min_size=1, max_size=4), st.integers(0, 9))
def test_dense_captions_are_read_back_in_both_forms(items, seed):
    events = tuple(Event(float(a), float(b), caption.strip(", ")) for (a, b), caption in items)
    text = TextTimestamps().render(Turn("?", task="dense_captioning", events=events), clip(100.0), Random(seed)).answer
    found = TextTimestamps().decode(DENSE, Answer(text), clip(100.0))
    assert [caption.lower() for caption in found.captions] == [event.caption.lower() for event in events]
    assert [span[:2] for span in found.spans] == [(e.start_s, e.end_s + 1) for e in events]


@pytest.mark.parametrize("answer", ["", "I do not know.", "from 9 to 12", "[{}]", "[1, 2", '[{"event": "x"}]', "[[]]"])
def test_unreadable_answers_have_no_rule_and_no_span(answer):
    for query in (GROUNDING, DENSE):
        found = TextTimestamps().decode(query, Answer(answer), clip(10.0))
        assert found.rule is None
        assert found.spans == ()
        assert found.answer == answer


def test_what_stands_before_a_broken_item_is_kept():
    answer = '[{"event": "A", "timestamps": "from 10 to 20"}, {"event": "B", "timestamps": "soon"}]'
    found = TextTimestamps().decode(DENSE, Answer(answer), clip(100.0))
    assert found.captions == ("A",)
    assert found.spans == ((10.0, 21.0, 1.0),)
