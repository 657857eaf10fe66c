"""What official evaluators do where one would do otherwise: small cases with the numbers that their code gives."""

import json
import math
from pathlib import Path

import pytest

from metrics.benchmarks.benchmarks import score
from metrics.benchmarks.event_captions import event_scores
from metrics.benchmarks.official_events import etbench_events
from metrics.benchmarks.official_windows import timelens_windows
from metrics.benchmarks.options import leading_letter, written
from metrics.grounding import grounding_scores
from metrics.video_highlights import youtube_precision


def write(path: Path, rows) -> Path:
    path.write_text(json.dumps(rows))
    return path


def test_clock_times_of_event_answers_are_read():
    """E.T. Bench: a clock time with words is an event around it, two of them are one."""
    one = etbench_events("0:52 cuts the onion")
    two = etbench_events("0:00 to 0:10 a man runs")
    assert one.windows == ((32.0, 72.0),) and "onion" in one.captions[0]
    assert two.windows == ((0.0, 10.0),)


def test_options_that_are_windows():
    assert written([4.1, 27.2]) == "4.1 - 27.2"


def test_an_answer_with_two_dots_is_read_from_behind_them():
    """TimeLens reads "12..5 - 13" as 5 to 13, and the run goes on."""
    assert timelens_windows("12..5 - 13").windows == ((5.0, 13.0),)


@pytest.mark.parametrize("policy", ["sound", "official"])
def test_an_answer_with_two_dots_ends_no_run(tmp_path, policy):
    truth = write(tmp_path / "t.json", [{"vid": "v", "query": text, "gt": [0, 10]} for text in "ab"])
    rows = [{"vid": "v", "query": "a", "response": "12..5 - 13"}, {"vid": "v", "query": "b", "response": "0 - 10"}]
    report = score("charades_sta", write(tmp_path / "p.json", rows), truth, policy)
    assert report["metrics"]["R1@0.7"] == 50
    assert report["protocol"]["unparsed"] == (policy == "sound")


def test_single_precision_reaches_seven_tenths():
    """VideoMind compares float32 numbers: 7/10 reaches 0.7."""
    scores = [grounding_scores([[(0, 7)]], [[(0, 10)]], evaluator=name)["R1@0.7"] for name in ("videomind", "etchat")]
    assert scores == [100, 0]


def test_python_rounds_half_hundredths_to_the_nearer():
    """VTimeLLM rounds IoU .295 to .29 and misses 0.3."""
    scores = grounding_scores([[(0, 59)]], [[(0, 200)]], evaluator="vtimellm")
    assert scores["mIoU"] == pytest.approx(29) and scores["R1@0.3"] == 0


def test_a_letter_with_a_line_break_is_no_letter():
    """E.T. Bench takes the most similar option then."""
    assert leading_letter("A\n", official=True) is None and leading_letter("A\n") == 0


def test_short_lists_without_a_positive_are_left_out():
    """lighthouse looks at the clips that have a score."""
    assert math.isnan(youtube_precision([0.9, 0.1], [0, 0, 1], "official"))
    assert youtube_precision([0.9, 0.1], [0, 0, 1]) > 0


STORY = {"v": [(0, 10, "he runs")], "w": [(0, 10, "he runs")]}


def test_videos_without_prediction_count_0_in_the_challenge():
    predicted = {"v": STORY["v"]}
    vidchapters = event_scores(predicted, [STORY], policy="official", captions=False)
    challenge = event_scores(predicted, [STORY], policy="official", captions=False, keep=True)
    assert vidchapters["Precision@0.5"] == 1 and challenge["Precision@0.5"] == 0.5


@pytest.mark.parametrize(("evaluator", "n", "recall"), [("vidchapters", 1, 1.0), ("challenge", 2, 0.5)])
def test_the_evaluator_of_captions_is_chosen_and_named(tmp_path, java, evaluator, n, recall):
    truth = {name: {"duration": 20, "timestamps": [[0, 10]], "sentences": ["he runs"]} for name in "vw"}
    truth = write(tmp_path / "t.json", truth)
    said = write(tmp_path / "p.json", {"results": {"v": [{"timestamp": [0, 10], "sentence": "he runs"}]}})
    report = score("activitynet_captions", said, truth, "official", evaluator)
    assert report["protocol"]["evaluator"].startswith(evaluator) and report["protocol"]["n"] == n
    assert report["metrics"]["Recall"] == pytest.approx(recall)


def test_etbench_with_a_video_twice(tmp_path, java):
    """The last of its stories counts, and the scale is that of videos over samples."""
    base = {"task": "dvc", "source": "s", "video": "v", "tgt": [[0, 10]], "g": ["he runs"], "duration": 60}
    truth = write(tmp_path / "t.json", [{**base, "idx": 0}, {**base, "idx": 1}])
    said = write(tmp_path / "p.json", [{"idx": k, "a": "0 - 10 seconds, he runs."} for k in (0, 1)])
    found = {policy: score("etbench", said, truth, policy)["metrics"]["DVC_F1"] for policy in ("sound", "official")}
    assert found == {"sound": pytest.approx(1), "official": pytest.approx(0.5)}
