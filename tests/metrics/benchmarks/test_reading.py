"""What the reader of answers makes of sentences: the right windows, or a word for why there are none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metrics import read_events, read_moments
from metrics.benchmarks.answers import WITHOUT_WINDOWS
from metrics.spans import is_valid

CASES = [
    ("The clip you want runs from 12s until 18s.", [(12, 18)]),
    ("I'd say 00:01:12–00:01:20.", [(72, 80)]),
    ("Start: 4.5s, End: 9.25s", [(4.5, 9.25)]),
    ('{"start_time": "00:12", "end_time": "00:34"}', [(12, 34)]),
    ('```json\n[{"timestamp": [1.5, 3.0]}, {"timestamp": [8, 9.5]}]\n```', [(1.5, 3), (8, 9.5)]),
    ("<answer><glue>[[3.0, 8.0]]</glue></answer>", [(3, 8)]),
    ("<think>It could be 1-2 or 5-6.</think>\n<answer>7.5 to 9</answer>", [(7.5, 9)]),
    ("<3.2 seconds> to <9.9 seconds>", [(3.2, 9.9)]),
    ("from the 5th second to the 10th second", [(5, 10)]),
    ("between two and seven seconds", [(2, 7)]),
    ("1 minute 5 seconds to 1 minute 20 seconds", [(65, 80)]),
    ("1m05s - 1m20s", [(65, 80)]),
    ("two minutes and ten seconds until two minutes thirty", [(130, 150)]),
    ("从第12秒到第34秒", [(12, 34)]),
    ("第3秒至第8秒", [(3, 8)]),
    ("von 3,5 bis 7,2 Sekunden", [(3.5, 7.2)]),
    ("entre 3 y 8 segundos", [(3, 8)]),
    ("de 3 à 8 secondes", [(3, 8)]),
    ("с 3 по 8 секунду", [(3, 8)]),
    ("3秒から8秒まで", [(3, 8)]),
    ("3초부터 8초까지", [(3, 8)]),
    ("من 3 إلى 8 ثوان", [(3, 8)]),
    ("٣ - ٨", [(3, 8)]),
    ("20% to 50%", [(12, 30)]),
    ("the first 10 seconds", [(0, 10)]),
    ("the last 15 seconds", [(45, 60)]),
    ("It begins at 7 and lasts 3 seconds.", [(7, 10)]),
    ("It starts around 0:15 and goes on for about 10 seconds", [(15, 25)]),
    ("The event does not occur in the video.", "none"),
    ("There is no such moment.", "none"),
    ("None", "none"),
    ("[]", "none"),
    ("I'm sorry, but I can't determine that.", "refusal"),
    ("As an AI model I cannot watch videos.", "refusal"),
    ("At 12.5 seconds.", "point"),
    ("around the 30 second mark", "point"),
    ("A man opens the door.", "unreadable"),
    ("", "unreadable"),
    ("30 to 20 seconds", [(20, 30)]),
    ("First 2-4 s, then again 10-12 s and 20-22 s.", [(2, 4), (10, 12), (20, 22)]),
    ("Frames 10 to 20 (5.0s - 10.0s)", [(5, 10)]),
    ("[00:03.5, 00:08.25]", [(3.5, 8.25)]),
    ("(3.0,8.0)", [(3, 8)]),
    ("3.0s~8.0s", [(3, 8)]),
    ("3 → 8", [(3, 8)]),
    ("**Start time:** 3.2 seconds\n**End time:** 8.4 seconds", [(3.2, 8.4)]),
    ("| start | end |\n|---|---|\n| 3.0 | 8.0 |", [(3, 8)]),
    ("The event happens in 24.3s to 30.4s.", [(24.3, 30.4)]),
    ("t=3s to t=8s", [(3, 8)]),
    ("from 3.2 seconds (frame 32) to 8.4 seconds (frame 84)", [(3.2, 8.4)]),
    ("0.5min to 0.75 min", [(30, 45)]),
    ("3s-8s, confidence 0.9", [(3, 8)]),
    ("start=3.0 end=8.0", [(3, 8)]),
    ("<start>3.0</start><end>8.0</end>", [(3, 8)]),
    ("<time_start>3.0<time_end>8.0", [(3, 8)]),
    ("00:00:03,500 --> 00:00:08,250", [(3.5, 8.25)]),
    ("3.2-8.4", [(3.2, 8.4)]),
    ("the whole video", [(0, 60)]),
    ("throughout the video", [(0, 60)]),
    ("from the beginning until 12 seconds", [(0, 12)]),
    ("from 40 seconds to the end", [(40, 60)]),
    ("\\boxed{[3.0, 8.0]}", [(3, 8)]),
    ("The answer is: 3.0 seconds -- 8.0 seconds", [(3, 8)]),
    ("window: [3, 8] sec", [(3, 8)]),
    ("<answer>From 3 to 5</answer> no wait <answer>From 6 to 8</answer>", [(6, 8)]),
    ("It happens twice: at 0:03-0:08 and at 0:20-0:25.", [(3, 8), (20, 25)]),
    ("In 2021, he ran from 3 to 8 seconds", [(3, 8)]),
    ("seconds 3 through 8", [(3, 8)]),
    ("3 s thru 8 s", [(3, 8)]),
    ("approximately 3.0–8.0 sec.", [(3, 8)]),
    ("half a minute to forty seconds", [(30, 40)]),
    ("within 3 and 8 seconds", [(3, 8)]),
    ("no, it is from 3 to 8", [(3, 8)]),
    ("Not at 1-2 s, but at 3-8 s", [(3, 8)]),
    ("The video is 60 seconds long. The event is from 3 to 8 seconds.", [(3, 8)]),
    ("1:02.5 to 1:10", [(62.5, 70)]),
    ("０３：００ から ０３：１０", [(180, 190)]),
    ("from 3 to 8 and from 10 to 12", [(3, 8), (10, 12)]),
    ("[[3,8],[10,12]]", [(3, 8), (10, 12)]),
    ('{"spans": [[3, 8]], "score": [0.7]}', [(3, 8)]),
    ('{"start": 3, "duration": 5}', [(3, 8)]),
    ("[3.0s, 8.0s]", [(3, 8)]),
    ("a 5 second long event from 3 to 8", [(3, 8)]),
    ("2 minutes 30 to 3 minutes 10", [(150, 190)]),
    ("between 1 minute and 2 minutes", [(60, 120)]),
    ("2 minutes 3 people sit", "point"),
]
"""Answers about a video of 60 s -> windows, or the rule without windows."""


@pytest.mark.parametrize(("text", "expected"), CASES)
def test_answers(text, expected):
    found = read_moments(text, 60)
    if isinstance(expected, str):
        assert (found.windows, found.rule) == ((), expected)
    else:
        assert [tuple(map(pytest.approx, window)) for window in expected] == list(found.windows)


VOCABULARY = """from to until between and at the event happens starts ends in seconds s minutes : - – , . [ ] ( ) { } "
% no not <think> </think> <answer> </answer> 3 12.5 1:05 00:01:02 .. 1e9 -4 二 第 秒 ９ ٣ start end frame fps |"""
WORDS = st.sampled_from([*VOCABULARY.split(), "\n"])


@given(st.lists(WORDS, max_size=25).map(" ".join), st.sampled_from([None, 0.0, 60.0]))
def test_any_text_is_read_without_a_crash(text, duration_s):
    found = read_moments(text, duration_s)
    assert all(map(is_valid, found.windows))
    assert bool(found.windows) != (found.rule in WITHOUT_WINDOWS)
    events = read_events(text, duration_s)
    assert len(events.windows) == len(events.captions)


@given(st.floats(0, 500).map(lambda value: round(value, 2)), st.sampled_from(["{}", "at {} s", "It is {} seconds.",
       "from {}", "until {} s", "<answer>{}</answer>", "[{}]", "about {}s, I think"]))  # fmt: skip
def test_one_number_is_never_two(value, wording):
    assert not read_moments(wording.format(value), None).windows


@given(st.floats(0, 500), st.floats(0.1, 90), st.sampled_from(["{} - {}", "from {} to {}", "{}s–{}s", "[{}, {}]",
       '{{"start": {}, "end": {}}}', "between {} and {} seconds", "<think>1 - 2</think>{} to {}"]))  # fmt: skip
def test_what_is_written_is_read(start, length, wording):
    start, end = round(start, 2), round(start + length, 2)
    assert read_moments(wording.format(start, end), 1000).windows == ((start, end),)


def test_long_answers_do_not_hang():
    """Thousands of words, brackets or digits again and again, as models write; a quadratic pattern takes minutes."""
    for piece in ("from 3 to 5 seconds and ", "[", "9", "<think>", "((", "not at 3 ", "1:", "a,", '{"a":', "12 - "):
        assert read_moments(piece * 5000, 60).rule


def test_thoughts_do_not_count_and_nothing_is_cut_off():
    text = "<think>1.0 - 2.0</think><answer>24.3s to 30.4s</answer>"
    assert read_moments(text).windows == ((24.3, 30.4),)
