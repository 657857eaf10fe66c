"""``score``: files that do not fit are refused with one line, everything else is counted."""

import json
from pathlib import Path

import pytest

from metrics.benchmarks.benchmarks import BENCHMARKS, COUNTS, score
from metrics.benchmarks.formats.files import FileError
from metrics.benchmarks.formats.stories import stories

QUERIES = [
    {"id": "a", "video": "v", "task": "grounding", "text": "he runs", "events": [{"start_s": 0, "end_s": 10}]},
    {"id": "b", "video": "v", "task": "grounding", "text": "he falls", "events": [{"start_s": 5, "end_s": 10}]},
    {"id": "c", "video": "w", "task": "grounding", "text": "he runs", "events": [{"start_s": 2, "end_s": 4}]},
]


def write(path: Path, content) -> Path:
    if isinstance(content, str):
        path.write_text(content)
    else:
        lines = [json.dumps(row) for row in content] if path.suffix == ".jsonl" else [json.dumps(content)]
        path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def queries(tmp_path):
    return write(tmp_path / "queries.jsonl", QUERIES)


def own(name: str, spans: list, rule: str | None = "from to", **more) -> dict:
    """A line of this project's predictions.jsonl."""
    row = {"query_id": name, "video": "v", "task": "grounding", "answer": "", "spans": spans, "captions": []}
    return row | {"saliency": [], "rule": rule} | more


def test_own_predictions_and_published_formats_agree(tmp_path, queries):
    ours = write(
        tmp_path / "predictions.jsonl",
        [own("a", [[0, 10, 1.0], [3, 4, 0.5]]), own("b", [[0, 10, 1.0]]), own("c", [[2, 4, 1.0]])],
    )
    nested = write(
        tmp_path / "nested.json",
        {
            "v": {"He runs.": {"start": 0, "end": 10, "conf": 0.9}, "he falls": {"start": 0, "end": 10, "conf": 0.1}},
            "w": {"he runs": {"start": 2, "end": 4, "conf": 1}},
        },
    )
    rows = write(
        tmp_path / "rows.jsonl",
        [
            {"vid": "v", "query": "he runs", "pred": [0, 10]},
            {"vid": "v", "query": "he falls", "pred": [[0, 10], [1, 2]]},
            {"vid": "w", "query": "he runs", "answer": "from 2 to 4 seconds"},
        ],
    )
    results = [score("charades_sta", path, queries) for path in (ours, nested, rows)]
    first = [[result["metrics"][name] for name in ("R1@0.3", "R1@0.5", "R1@0.7", "mIoU")] for result in results]
    assert first[0] == first[1] == first[2]
    assert results[0]["metrics"]["mIoU"] == pytest.approx(100 * 2.5 / 3)
    assert "R5@0.5" in results[0]["metrics"]  # a query with two ranked windows
    assert "R5@0.5" not in results[1]["metrics"]
    assert results[2]["protocol"]["parsing"] == {"rules": {"range": 1}, "several_windows": 0}


def test_everything_odd_is_counted(tmp_path, queries):
    answers = [
        own("a", [[float("nan"), 10]]),
        own("b", [], rule=None),
        own("x", [[0, 1]]),
    ]
    result = score("charades_sta", write(tmp_path / "p.jsonl", answers), queries)
    protocol = result["protocol"]
    assert result["metrics"] == {"R1@0.3": 0, "R1@0.5": 0, "R1@0.7": 0, "mIoU": 0}
    counts = {key: protocol[key] for key in ("n", "missing", "unparsed", "invalid", "negative", "unknown")}
    assert counts == {"n": 3, "missing": 1, "unparsed": 1, "invalid": 1, "negative": 0, "unknown": 1}
    assert protocol["policy"] == "sound" and protocol["versions"]["numpy"]
    assert len(protocol["files"]["predictions"]["sha256"]) == 64


@pytest.mark.parametrize(
    ("window", "count", "value"),
    [
        ([0, 10, 0.5], "", 100.0),
        ([0, 10, 0.5, 3], "invalid", 0.0),
        (["0", "10"], "invalid", 0.0),
        ([None, 10], "invalid", 0.0),
        ([True, 10], "invalid", 0.0),
        ([float("inf"), 10], "invalid", 0.0),
        ([10, 0], "invalid", 0.0),
        ([-10, 10], "negative", 50.0),
        ([5], "invalid", 0.0),
    ],
)
def test_windows_are_scored_or_counted(tmp_path, window, count, value):
    queries = write(tmp_path / "q.jsonl", QUERIES[:1])
    result = score("charades_sta", write(tmp_path / "p.jsonl", [own("a", [window])]), queries)
    assert result["metrics"]["mIoU"] == value
    for name in ("invalid", "negative"):
        assert result["protocol"][name] == (name == count)


@pytest.mark.parametrize("window", [["0", "10"], [None, 1], [float("nan"), 1], [5]])
def test_official_refuses_windows_that_are_no_numbers(tmp_path, queries, window):
    path = write(tmp_path / "p.jsonl", [own("a", [window])])
    with pytest.raises(FileError, match="not made of numbers"):
        score("charades_sta", path, queries, "official")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "empty"),
        ("\n\n", "empty"),
        ('{"query_id": "a"\n', "line 1: not JSON"),
        (json.dumps(own("a", [[0, 1]])) + "\n{bad\n", "line 2: not JSON"),
        (json.dumps(own("a", [[0, 1]])) + "\n[1, 2]\n", "record 2: expected an object"),
        (json.dumps(own("a", [[0, 1]])) * 1 + "\n" + json.dumps(own("a", [[0, 2]])), "'a' has an answer already"),
        ('{"query_id": "a", "query_id": "b"}', "'query_id' is there twice"),
        ('{"query_id": "a", "task": "grounding"}', "no key 'spans'"),
        ('{"query_id": "a", "spans": "0-5"}', "list of windows"),
        ("[]", "empty list"),
        ("17", "expected an object"),
    ],
)
def test_bad_predictions_name_the_place(tmp_path, queries, content, message):
    path = write(tmp_path / "predictions.jsonl", content)
    with pytest.raises(FileError) as error:
        score("charades_sta", path, queries)
    assert message in str(error.value) and str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"v": {"timestamps": [[0, 1]], "sentences": []}}, "1 windows for 0 sentences"),
        ({"v": {"timestamps": [[3, 1]], "sentences": ["x"]}}, "two numbers in order"),
        ({"v": {"timestamps": [["0", 1]], "sentences": ["x"]}}, "two numbers in order"),
        ({"v": {"timestamps": [[0, 1, 2]], "sentences": ["x"]}}, "two numbers in order"),
        ({"v": {"sentences": ["x"]}}, "no key 'timestamps'"),
        ({"v": [1]}, "expected an object"),
        ({}, "empty dict"),
        ('{"v": {}, "v": {}}', "'v' is there twice"),
        ('{"database": {"v": {}}}', "or 'annotations'"),
    ],
)
def test_bad_annotations_name_the_place(tmp_path, content, message):
    answers = write(tmp_path / "p.jsonl", [own("a", [[0, 1]])])
    with pytest.raises(FileError, match=message):
        score("activitynet_grounding", answers, write(tmp_path / "truth.json", content))


def test_charades_text_lines(tmp_path):
    truth = write(tmp_path / "charades_sta_test.txt", "3MSZA 24.3 30.4##person turn a light on.\n3MSZA 1 2##he sits.\n")
    answers = write(tmp_path / "rows.jsonl", [{"vid": "3MSZA", "query": "he sits", "pred": [1, 2]}])
    result = score("charades_sta", answers, truth)
    assert result["metrics"]["mIoU"] == 50 and result["protocol"]["missing"] == 1
    broken = write(tmp_path / "broken.txt", "3MSZA 24.3 30.4 person\n")
    with pytest.raises(FileError, match="line 1"):
        score("charades_sta", answers, broken)


def test_unknown_names_and_missing_files(tmp_path, queries):
    answers = write(tmp_path / "p.jsonl", [own("a", [[0, 1]])])
    with pytest.raises(ValueError, match="unknown benchmark 'charades'; known: .*charades_sta"):
        score("charades", answers, queries)
    with pytest.raises(ValueError, match="unknown policy"):
        score("charades_sta", answers, queries, "lenient")
    with pytest.raises(FileError, match="cannot be read"):
        score("charades_sta", tmp_path / "absent.jsonl", queries)
    binary = tmp_path / "binary.jsonl"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FileError, match="not UTF-8"):
        score("charades_sta", binary, queries)


@pytest.mark.parametrize("benchmark", sorted(BENCHMARKS))
@pytest.mark.parametrize("policy", ["sound", "official"])
def test_files_of_another_kind_are_refused(tmp_path, benchmark, policy):
    truth = write(tmp_path / "truth.json", {"something": "else"})
    answers = write(tmp_path / "answers.json", {"other": 3})
    with pytest.raises(ValueError if policy == "official" and not BENCHMARKS[benchmark].evaluators else FileError):
        score(benchmark, answers, truth, policy)


TRUTH = {
    "qvhighlights": [
        {
            "qid": i,
            "duration": 20,
            "relevant_windows": [[0, 8]],
            "relevant_clip_ids": [0, 1],
            "saliency_scores": [[4, 4, 1], [2, 2, 2]],
        }
        for i in (1, 2)
    ],
    "nextgqa": {"v": {"duration": 30, "location": {"1": [[1.0, 5.0]], "2": [[2.0, 4.0]]}}},
}
ANSWERS = {
    "qvhighlights": [
        {"qid": 1, "pred_relevant_windows": [[0, 8, 1]], "pred_saliency_scores": [4.0, 3, 0, 0, 0, 0, 0, 0, 0, 0]}
    ],
    "nextgqa": {"ground": {"v_1": [1.0, 5.0]}, "qa": {"v_1": {"answer": 1, "prediction": 1}}},
}


def test_missing_answers_stay_in_the_denominator(tmp_path):
    truth = write(tmp_path / "truth.jsonl", TRUTH["qvhighlights"])
    answers = write(tmp_path / "answers.jsonl", ANSWERS["qvhighlights"])
    result = score("qvhighlights", answers, truth)
    assert result["metrics"]["MR-full-mAP"] == result["metrics"]["MR-full-R1@0.5"] == 50
    assert result["metrics"]["HL-min-VeryGood-Hit1"] == 50
    assert result["protocol"]["missing"] == 1 and result["protocol"]["saliency_missing"] == 1
    truth, answers = write(tmp_path / "t.json", TRUTH["nextgqa"]), write(tmp_path / "a.json", ANSWERS["nextgqa"])
    assert score("nextgqa", answers, truth)["metrics"]["Acc@GQA"] == 50
    assert score("nextgqa", answers, truth, "official")["metrics"]["Acc@GQA"] == 100


def test_a_submission_id_that_is_there_twice_is_refused(tmp_path):
    truth = write(tmp_path / "truth.jsonl", TRUTH["qvhighlights"])
    answers = write(tmp_path / "answers.jsonl", ANSWERS["qvhighlights"] * 2)
    with pytest.raises(FileError, match="'1' is there twice"):
        score("qvhighlights", answers, truth)


def test_official_submissions_may_repeat_an_id(tmp_path):
    """Windows are joined for mAP; for R1 and highlights the last answer counts."""
    ranges = {1: [0, 8], 2: [0, 20], 3: [0, 40]}
    truth = [{**TRUTH["qvhighlights"][0], "qid": i, "duration": 50, "relevant_windows": [w]} for i, w in ranges.items()]
    right = [{"qid": i, "pred_relevant_windows": [[*w, 0.9]]} for i, w in ranges.items()]
    wrong = [{"qid": i, "pred_relevant_windows": [[45, 46, 0.1]]} for i in ranges]
    truth, answers = write(tmp_path / "t.jsonl", truth), write(tmp_path / "a.jsonl", right + wrong)
    result = score("qvhighlights", answers, truth, "official")
    assert result["metrics"]["MR-full-mAP"] == 100 and result["metrics"]["MR-full-R1@0.5"] == 0
    assert result["protocol"]["repeated"] == 3 and result["protocol"]["n"] == 3


def test_own_predictions_of_every_kind(tmp_path):
    """The score of a span is not read as its end, and a video's saliency is found by video."""
    truth = write(tmp_path / "gsub.json", TRUTH["nextgqa"])
    answers = write(tmp_path / "p.jsonl", [own("v_1", [[1.0, 5.0, 1.0]]), own("v_2", [[2.0, 4.0, 0.5], [9, 10, 0.1]])])
    assert score("nextgqa", answers, truth)["metrics"]["mIoP"] == 100
    labels = [{"vid": "v", "domain": "dog", "label": [[1], [0], [1]]}]
    truth = write(tmp_path / "labels.jsonl", labels)
    answers = write(tmp_path / "s.jsonl", [own("v/highlights", [], saliency=[0.9, 0.1, 0.8])])
    assert score("youtube_highlights", answers, truth)["metrics"] == {"mAP": 1.0, "mAP-dog": 1.0}
    story = {"v": {"duration": 100, "timestamps": [[20, 40], [50, 60]], "sentences": ["he runs", "he falls"]}}
    answers = write(tmp_path / "l.jsonl", [own("v/grounding/1", [], answer="From 50 to 60.")])
    result = score("vtimellm_log", answers, write(tmp_path / "val.json", story))
    assert result["metrics"]["mIoU"] == 50 and result["protocol"]["n"] == 2 and result["protocol"]["missing"] == 1


def test_rules_of_own_predictions_are_reported(tmp_path, queries):
    answers = [own("a", [[0, 1]], rule="from to"), own("b", [], rule=None), own("c", [[0, 1], [2, 3]], rule="list")]
    protocol = score("charades_sta", write(tmp_path / "p.jsonl", answers), queries)["protocol"]
    assert protocol["parsing"] == {"rules": {"from to": 1, "list": 1, "unparsed": 1}, "several_windows": 1}


def test_timelens_merges_equal_annotations(tmp_path):
    row = {"vid": "v", "query": "he runs", "gt": [0, 10]}
    truth = write(tmp_path / "t.json", [{**row, "id": 1}, {**row, "id": 2}, {**row, "id": 3, "gt": [0, 5]}])
    answers = write(tmp_path / "a.jsonl", [{"id": i, "pred": w} for i, w in ((1, [0, 10]), (2, [0, 10]), (3, [8, 9]))])
    assert score("charades_sta", answers, truth)["metrics"]["R1@0.7"] == pytest.approx(200 / 3)
    official = score("charades_sta", answers, truth, "official")
    assert official["metrics"]["R1@0.7"] == 50 and official["protocol"]["n"] == 2


def test_questions_are_also_scored_without_their_windows(tmp_path):
    truth = write(tmp_path / "t.json", TRUTH["nextgqa"])
    answers = {"v_1": {"answer": 1, "prediction": 1}, "v_2": {"answer": 2, "prediction": 2}}
    answers = write(tmp_path / "a.json", {"ground": {"v_1": [1.0, 5.0], "v_2": [20, 30]}, "qa": answers})
    for policy in ("sound", "official"):
        metrics = score("nextgqa", answers, truth, policy)["metrics"]
        assert metrics["Acc@QA"] == 100 and metrics["Acc@GQA"] == 50
    answers = write(tmp_path / "b.json", ANSWERS["nextgqa"])
    assert score("nextgqa", answers, truth)["metrics"]["Acc@QA"] == 50
    assert "Acc@QA" not in score("nextgqa", answers, truth, "official")["metrics"]


def test_the_two_layouts_of_timechat(tmp_path):
    segments = [[0, 5], [5, 9]]
    rows = [
        {"image_id": "a", "segments": segments, "pure_cap": "cut it. fry it"},
        {"image_id": "b", "segments": segments, "caption": "A man runs.  He falls down. ok."},
    ]
    found = stories(write(tmp_path / "t.json", {"annotations": rows}))
    assert [event[2] for event in found["a"].events] == ["cut it.", "fry it."]
    assert [event[2] for event in found["b"].events] == ["A man runs.", "He falls down."]


SAMPLES = {
    "tvg": {"tgt": [0, 10]},
    "tal": {"tgt": [[0, 10]]},
    "vhd": {"tgt": [[[0, 10]], [[2, 3]]]},
    "dvc": {"tgt": [[0, 10]], "g": ["he runs"]},
    "rar": {"p": 0, "o": ["run", "fall"]},
    "gvq": {"p": 0, "o": ["run", "fall"], "tgt": [0, 10]},
}


@pytest.mark.parametrize(
    ("task", "key", "value", "message"),
    [
        ("tvg", "tgt", [10, 0], "two numbers in order"),
        ("tvg", "task", "tvgs", "unknown task"),
        ("tal", "tgt", [], "no target window"),
        ("tal", "tgt", [0, 10], "two numbers in order"),
        ("vhd", "tgt", 3, "must be a list"),
        ("dvc", "g", [], "one text for each"),
        ("dvc", "video", None, "must be text"),
        ("rar", "p", 2, "index of one of the 2 options"),
        ("rar", "o", "run", "must be a list"),
        ("gvq", "source", ["s"], "must be text"),
    ],
)
def test_bad_etbench_records_name_the_place(tmp_path, task, key, value, message):
    row = {"idx": 0, "task": task, "source": "s", "video": "v", **SAMPLES[task]}
    answers = write(tmp_path / "a.jsonl", [{"idx": 0, "a": "0 - 10"}])
    with pytest.raises(FileError, match=rf"record 1.*{message}"):
        score("etbench", answers, write(tmp_path / "t.json", [{**row, key: value}]))
    with pytest.raises(FileError, match="the answer must be text"):
        score("etbench", write(tmp_path / "b.jsonl", [{"idx": 0, "a": 3}]), write(tmp_path / "t.json", [row]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"relevant_clip_ids": [0, 9000]}, "10 clips"),
        ({"relevant_clip_ids": [0]}, "for each of the relevant_clip_ids"),
        ({"relevant_clip_ids": [0, "1"]}, "whole numbers"),
        ({"saliency_scores": [[4, 4, 1], [2, 2]]}, "equally many ratings"),
        ({"saliency_scores": 3}, "must be a list"),
        ({"duration": "20"}, "must be seconds"),
        ({"relevant_windows": [[0, 8, 1]]}, "two numbers in order"),
    ],
)
def test_bad_qvhighlights_annotations_name_the_query(tmp_path, change, message):
    answers = write(tmp_path / "answers.jsonl", ANSWERS["qvhighlights"])
    truth = write(tmp_path / "truth.jsonl", [{**TRUTH["qvhighlights"][0], **change}])
    with pytest.raises(FileError, match=f"(query '1'|record 1).*{message}"):
        score("qvhighlights", answers, truth)


def test_numbers_without_bounds_and_endless_nesting(tmp_path, queries):
    result = score("charades_sta", write(tmp_path / "p.jsonl", [own("a", [[0, 10**400]])]), queries)
    assert result["protocol"]["invalid"] == 1 and result["metrics"]["mIoU"] == 0
    with pytest.raises(FileError, match="recursion"):
        score("charades_sta", write(tmp_path / "deep.json", "[" * 100000), queries)


def test_a_log_needs_the_length_of_the_video(tmp_path):
    truth = write(tmp_path / "t.json", {"v": {"timestamps": [[0, 5]], "sentences": ["he runs"]}})
    log = [{"video_id": "v", "task": "grounding", "answer": "from 00 to 10", "info": {"sentence_id": 0}}]
    with pytest.raises(FileError, match="no duration"):
        score("vtimellm_log", write(tmp_path / "log.jsonl", log), truth)


def test_etbench_counts_missing_samples(tmp_path):
    truth = [{"idx": i, "task": "tvg", "source": "s", "video": "v", "tgt": [0, 10]} for i in range(4)]
    truth = write(tmp_path / "t.json", truth)
    answers = write(tmp_path / "a.jsonl", [{"idx": 0, "a": "0 - 10"}, {"idx": 1, "a": "0..5 - 7"}])
    result = score("etbench", answers, truth)
    assert result["metrics"]["TVG"] == 0.25
    assert result["protocol"]["missing"] == 2 and result["protocol"]["unparsed"] == 3
    assert result["protocol"]["parsing"]["windows"]["rules"] == {"range": 1, "unreadable": 3}
    assert all(isinstance(result["protocol"][name], int) for name in COUNTS)
    with pytest.raises(FileError, match="could not convert"):
        score("etbench", answers, truth, "official")


def test_activitynet_captions_of_own_predictions(tmp_path, java):
    events = [
        {"start_s": 0, "end_s": 5, "caption": "a man runs up the hill"},
        {"start_s": 5, "end_s": 9, "caption": "he sits down on the grass"},
    ]
    queries = [{"id": f"{v}/d", "video": v, "task": "dense_captioning", "events": events} for v in "vw"]
    captions = ["a man runs up the hill", "he sits down on the grass"]
    answers = [
        own("v/d", [[0, 5, 1], [5, 9, 1]], task="dense_captioning", captions=captions),
        own("v/grounding/0", [[0, 5, 1]]),  # a file with both tasks
    ]
    truth, answers = write(tmp_path / "q.jsonl", queries), write(tmp_path / "p.jsonl", answers)
    result = score("activitynet_captions", answers, truth)
    assert result["metrics"]["METEOR"] == pytest.approx(0.5, abs=0.01)
    assert result["metrics"]["SODA_c"] == pytest.approx(0.5, abs=0.01)
    assert result["metrics"]["F1"] == 0.5 and result["protocol"]["missing"] == 1
    assert "CIDEr" not in result["metrics"] and result["metrics"]["CIDEr(video idf)"] == pytest.approx(5)
    official = score("activitynet_captions", answers, truth, "official")
    assert official["metrics"]["CIDEr"] == pytest.approx(10) and official["protocol"]["n"] == 1


OWN_ETBENCH = {
    "tvg": ({"tgt": [2, 6]}, {"spans": [[2, 6, 0.9]]}),
    "tal": ({"tgt": [[2, 6], [8, 9]]}, {"spans": [[8, 9, 0.9], [2, 6, 0.5]]}),
    "vhd": ({"tgt": [[5, 6]], "duration": 8}, {"spans": [[2, 8, 1.0]], "saliency": [1, 0, 0, 0, 0, 0.8, 0, 0]}),
}


@pytest.mark.parametrize("task", OWN_ETBENCH)
def test_etbench_takes_the_spans_of_our_predictions_and_not_their_text(tmp_path, task):
    """Their text speaks of frame numbers or holds no times at all."""
    target, answer = OWN_ETBENCH[task]
    truth = write(tmp_path / "t.json", [{"idx": 7, "task": task, "source": "s", "video": "v", **target}])
    for spans, score_wanted in ((answer["spans"], 1.0), ([], 0.0)):
        row = own("7", **{**answer, "spans": spans}, rule="x" if spans else None) | {"answer": "From 90 to 99."}
        result = score("etbench", write(tmp_path / "p.jsonl", [row]), truth)["protocol"]["per_task_source"][task]["s"]
        assert (result["F1"], result["Failed"]) == (score_wanted, 1 - score_wanted)
