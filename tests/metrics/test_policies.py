"""Where the sound policy differs from the official one, and that it does not elsewhere."""

import math

import numpy as np
import pytest

from metrics.alignment import best_order_preserving_score, order_preserving_pairs
from metrics.benchmarks.answers import Parsed, parse_report
from metrics.benchmarks.etbench import TASKS
from metrics.benchmarks.event_answers import read_events
from metrics.benchmarks.official_events import etbench_events, vtimellm_events
from metrics.benchmarks.official_windows import timelens_windows, vtimellm_window
from metrics.dense_captioning import localization_scores
from metrics.grounded_qa import grounded_qa_scores, same_answer
from metrics.grounding import grounding_scores
from metrics.highlights import clip_matrix, highlight_scores
from metrics.moment_retrieval import brief, retrieval_scores
from metrics.soda import soda_scores
from metrics.spans import VARIANTS, iou
from metrics.video_highlights import tvsum_precision, youtube_precision


def mr(predictions, targets, policy):
    return brief(retrieval_scores(predictions, targets, policy))


LONG = [[0, 40]]
SHORT = [[0, 5]]
MIDDLE = [[10, 30]]


def test_windows_without_length_or_order_overlap_nothing():
    targets = [[[20, 40], [50, 55], [60, 100]]]
    inverted = [[[40, 20, 0.9]]]
    assert mr(inverted, targets, "official")["MR-full-mAP"] == pytest.approx(100 / 3)  # 0/0 is a hit at every threshold
    assert mr(inverted, targets, "sound")["MR-full-mAP"] == 0
    assert np.isnan(iou([[5, 5]], [[5, 5]], "cross")).all() and iou([[5, 5]], [[5, 5]]) == 0


def test_ranked_windows_are_sorted_before_they_are_cut():
    targets = [[[0, 5]], [[0, 20]], [[0, 40]]]
    best_last = [[*[[100 + i, 101 + i, 0.1] for i in range(10)], [*target[0], 0.9]] for target in targets]
    assert mr(best_last, targets, "official")["MR-full-mAP"] == 0
    assert mr(best_last, targets, "official")["MR-full-R1@0.5"] == 0
    assert mr(best_last, targets, "sound")["MR-full-mAP"] == pytest.approx(100)
    assert mr(best_last, targets, "sound")["MR-full-R1@0.5"] == 100


def test_queries_without_windows_and_empty_ranges():
    with pytest.raises(ValueError, match="no window"):
        mr([[], [[0, 5, 1]]], [[[0, 5]], [[0, 5]]], "official")
    scores = mr([None, [[0, 5, 1]]], [[[0, 5]], [[0, 5]]], "sound")
    assert scores["MR-full-mAP"] == pytest.approx(50) and "MR-long-mAP" not in scores
    with pytest.raises(ValueError, match="range 'middle'"):
        mr([[[0, 5, 1]]], [[[0, 5]]], "official")
    with pytest.raises(ValueError, match="at least one target"):
        mr([[[0, 5, 1]]], [[]], "sound")


def test_clips_without_saliency_rank_last():
    ratings = [clip_matrix([4], [[4, 4, 4]], 10)]
    short = [[-0.5, -0.4, -0.9, -0.8]]
    assert highlight_scores(short, ratings, "official")["HL-min-Fair-mAP"] == 100  # padded with 0.0
    scores = highlight_scores(short, ratings, "sound")
    assert scores["HL-min-Fair-mAP"] == pytest.approx(20) and scores["short"] == 1


@pytest.mark.parametrize("saliency", [None, [], [math.nan, 1.0]])
def test_unusable_saliency_counts_zero(saliency):
    ratings = [clip_matrix([0], [[4, 4, 4]], 4)]
    with pytest.raises(ValueError, match="saliency"):
        highlight_scores([saliency], ratings, "official")
    scores = highlight_scores([saliency], ratings, "sound")
    assert scores["HL-min-Fair-mAP"] == scores["HL-min-Fair-Hit1"] == 0
    assert scores["missing"] + scores["invalid"] == 1


def test_clip_ids_outside_the_video_are_refused():
    with pytest.raises(ValueError, match="5 clips"):
        clip_matrix([5], [[1, 1, 1]], 10)


def test_video_highlights_rank_unscored_clips_last():
    labels = [[1], [0], [0], [1]]
    assert youtube_precision([0.1, 0.9], labels, "sound") < youtube_precision([0.1, 0.9, 0.0, 0.8], labels, "sound")
    assert math.isnan(youtube_precision([1, 2], [[0], [0]]))
    assert tvsum_precision([], [[1], [2], [3]]) == tvsum_precision([0, 0, 0], [[1], [2], [3]])
    assert youtube_precision([0.3, 0.2, 0.1], [[1], [0], [0]]) == 1


@pytest.mark.parametrize("evaluator", ["timelens", "timechat", "vtimellm"])
def test_exact_thresholds_agree_for_ordinary_windows(evaluator):
    predicted, targets = [[[0, 7]], [[0, 5]], [[20, 30]]], [[[0, 10]], [[0, 10]], [[0, 10]]]
    assert grounding_scores(predicted, targets) == grounding_scores(predicted, targets, evaluator=evaluator)


def test_official_arithmetic_at_thresholds():
    seven = [[[0, 7]]], [[[0, 10]]]
    assert grounding_scores(*seven)["R1@0.7"] == 100
    assert grounding_scores(*seven, evaluator="etchat")["R1@0.7"] == 0  # float32
    almost = [[[0, 0.296]]], [[[0, 1]]]
    assert grounding_scores(*almost)["R1@0.3"] == 0
    assert grounding_scores(*almost, evaluator="vtimellm")["R1@0.3"] == 100  # rounded first
    half = [[[0, 5]]], [[[[0, 10]]]]
    assert localization_scores(*half)["F1@0.5"] == 1
    assert localization_scores(*half, policy="official")["F1@0.5"] == 0  # 1e-8 in the denominator, strict
    with pytest.raises(ValueError, match="unknown evaluator"):
        grounding_scores(*seven, evaluator="mine")


def test_iou_variants_agree_on_ordinary_windows():
    predicted, targets = [[0, 4], [2, 6], [8, 9]], [[1, 5], [8.5, 10]]
    for variant in VARIANTS:
        assert iou(predicted, targets, variant) == pytest.approx(iou(predicted, targets), abs=1e-7)
    with pytest.raises(ValueError, match="unknown IoU"):
        iou(predicted, targets, "giou")


def test_questions_without_a_window_count():
    targets = {"v_1": [[0, 10]], "v_2": [[0, 10]]}
    answers = {"v_1": (1, 1), "v_2": (2, 2)}
    official = grounded_qa_scores({"v_1": [0, 10]}, targets, answers, "official")
    sound = grounded_qa_scores({"v_1": [0, 10]}, targets, answers, "sound")
    assert official["Acc@GQA"] == 100 and official["n"] == 1
    assert sound["Acc@GQA"] == 50 and sound["n"] == 2 and sound["missing"] == 1
    point = grounded_qa_scores({"v_1": [5, 5], "v_2": [20, 10]}, targets, answers)
    assert point["mIoP"] == 50 and point["mIoU"] == 0 and point["invalid"] == 1
    assert "Acc@GQA" not in grounded_qa_scores({"v_1": [0, 10]}, targets)
    assert grounded_qa_scores({"v_1": [0, 10]}, targets, None, "official")["Acc@GQA"] == 0
    with pytest.raises(ValueError, match="no answer"):
        grounded_qa_scores({"v_1": [0, 10]}, targets, {"v_2": (1, 1)}, "official")


def test_option_types():
    assert same_answer(1, "1", "sound") and not same_answer(1, "1", "official")
    assert not same_answer("None", None, "sound")


def test_soda_pairs_add_up_to_the_best_score():
    gains = np.array([[0.1, 0.9], [0.9, 0.1]])
    assert order_preserving_pairs(gains, "official") == [(1, 0)]
    rng = np.random.default_rng(0)
    worse = 0
    for _ in range(50):
        gains = rng.random((rng.integers(1, 7), rng.integers(1, 7))) * rng.integers(0, 2, size=1)
        best = best_order_preserving_score(gains)
        assert sum(gains[pair] for pair in order_preserving_pairs(gains)) == pytest.approx(best)
        worse += sum(gains[pair] for pair in order_preserving_pairs(gains, "official")) < best - 1e-9
    assert worse > 0
    assert order_preserving_pairs(np.zeros((0, 3))) == [] and best_order_preserving_score(np.zeros((0, 3))) == 0


def test_soda_of_missing_videos_and_of_very_long_stories():
    story = [(i, i + 1, "") for i in range(2000)]
    assert soda_scores({"v": story}, [{"v": story}], "d")["f1"] == pytest.approx(1)
    references = {"v": story[:3], "w": story[:3]}
    assert soda_scores({"v": story[:3]}, [references], "d", policy="official")["f1"] == pytest.approx(1)
    assert soda_scores({"v": story[:3]}, [references], "d")["f1"] == pytest.approx(0.5)
    with pytest.raises(ValueError, match="no video"):
        soda_scores({}, [references], "d", policy="official")
    for wrong in ({"kind": "e"}, {"mode": "all"}, {"scorer": "BLEU"}, {"policy": "strict"}):
        with pytest.raises(ValueError, match="unknown"):
            soda_scores({"v": story}, [references], **{"kind": "d", **wrong})


def test_soda_modes_are_three_numbers():
    predicted = {"v": [(0, 4, ""), (5, 9, "")]}
    files = [{"v": [(0, 4, ""), (5, 9, "")]}, {"v": [(0, 8, "")]}]
    values = {mode: soda_scores(predicted, files, "d", mode)["f1"] for mode in ("merged", "best", "average")}
    assert values["best"] == 1 and len(set(values.values())) == 3


SAMPLE = {"video": "v", "tgt": [[0, 10]], "source": "s"}


def test_etbench_failures_count():
    samples = [{**SAMPLE, "a": "0 - 10"}, {**SAMPLE, "a": "sorry"}]
    assert TASKS["evs"](samples, "official")["F1"] == 1 and TASKS["evs"](samples, "sound")["F1"] == 0.5
    late = [{**SAMPLE, "tgt": [[1200, 1300]], "a": "1200 - 1300"}]
    assert TASKS["evs"](late, "official")["F1"] == 0 and TASKS["evs"](late, "sound")["F1"] == 1
    broken = [{**SAMPLE, "tgt": [0, 10], "a": "0..5 - 7"}]
    assert TASKS["tvg"](broken, "sound")["Failed"] == 1
    with pytest.raises(ValueError):
        TASKS["tvg"](broken, "official")


def test_etbench_repeated_videos_and_failed_captions(java, encoder):
    target = {"video": "v", "source": "s", "tgt": [[0, 10], [20, 30]], "g": ["a man runs fast", "a dog sleeps here"]}
    right = "0 - 10 seconds, a man runs fast\n20 - 30 seconds, a dog sleeps here"
    samples = [{**target, "a": right}, {**target, "a": right}, {**target, "a": "sorry"}]
    official, sound = TASKS["dvc"](samples, "official"), TASKS["dvc"](samples, "sound")
    assert official["METEOR"] == pytest.approx(1, abs=1e-3) and official["SentSim"] == pytest.approx(1, abs=1e-3)
    assert sound["METEOR"] == pytest.approx(2 / 3, abs=1e-3) and sound["SentSim"] == pytest.approx(2 / 3, abs=1e-3)
    assert official["F1"] == pytest.approx(1 / 3)  # videos that were read / samples
    assert sound["F1"] == pytest.approx(2 / 3)


def test_etbench_wrong_letters_are_final(encoder):
    sample = {**SAMPLE, "o": ["cooking food", "riding a bike"], "p": 1, "a": "(A) riding a bike"}
    assert TASKS["rvq"]([sample], "official")["Acc"] == 1 and TASKS["rvq"]([sample], "sound")["Acc"] == 0


def test_cut_captions_keep_their_digits_together():
    text = "1 - 5 seconds, the man runs away\n11 - 50 seconds, the dog sleeps all day"
    assert read_events(text).captions == ("the man runs away", "the dog sleeps all day")
    assert etbench_events(text).captions != read_events(text).captions


def test_parsers_report_their_rules():
    texts = ["from 3 to 9", "01:05 - 02:10", "3.0 - 9", "The 2 men see 3 dogs", "nothing"]
    rules = [timelens_windows(text).rule for text in texts]
    assert rules == ["to", "clock", "hyphen", "numbers", None]
    report = parse_report([timelens_windows(text) for text in [*texts, "1 - 2 and 3 - 4"]])
    assert report["rules"] == {"clock": 1, "hyphen": 2, "numbers": 1, "to": 1, "unparsed": 1}
    assert report["several_windows"] == 1
    assert vtimellm_window("100 to 20").windows == ((0.0, 0.2),) and vtimellm_window("5 to 9") == Parsed()


def test_vtimellm_lists():
    events = [
        {"event": "a man runs fast", "timestamps": "from 00 to 29"},
        {"event": "a man runs fast", "timestamps": "from 30 to 49"},
        {"event": "a dog", "timestamps": "from 50 to 99"},
        {"event": "broken"},
        {"event": "never read", "timestamps": "from 00 to 01"},
    ]
    parsed = vtimellm_events(f"Here: {events}".replace("'", '"'), 200.0)
    assert parsed.windows == ((0.0, 100.0), (100.0, 200.0)) and parsed.captions == ("a man runs fast", "a dog")
    assert vtimellm_events("[\n]", 10.0) == Parsed() and vtimellm_events("[1]", 10.0) == Parsed()
