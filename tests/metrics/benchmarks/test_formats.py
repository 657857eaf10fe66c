"""The layouts in which annotations and predictions are passed around: small files of each, scored."""

import json
from pathlib import Path

import pytest

from metrics.benchmarks.benchmarks import score
from metrics.benchmarks.formats.files import FileError

RUN, FALL = "a man runs", "A man falls."
SPANS = {RUN: [10.0, 20.0], FALL: [30.0, 40.0]}
NO_VIDEO = "none of its 2 answers is to an annotated moment"


def write(path: Path, content) -> Path:
    if isinstance(content, str):
        path.write_text(content, encoding="utf-8")
    else:
        rows = content if path.suffix == ".jsonl" else [content]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


ROWS = [{"vid": "v", "query": text, "pred": [span[0], span[1] - 5]} for text, span in SPANS.items()]
"""Predictions with IoU 0.5 each."""
MOMENTS = {
    "activitynet": {"v": {"duration": 50, "timestamps": list(SPANS.values()), "sentences": [RUN, FALL]}},
    "timelens_bench": {"v": {"duration": 50, "spans": list(SPANS.values()), "queries": [RUN, FALL]}},
    "timelens_100k": [
        {
            "source": "x",
            "video_path": "x/v.mp4",
            "duration": 50,
            "events": [{"query": t, "span": [s]} for t, s in SPANS.items()],
        }
    ],
    "timelens2_93k": [{"video": "v", "query": t, "span": [s], "duration": 50} for t, s in SPANS.items()],
    "timechat": {
        "annotations": [
            {"image_id": "v.mp4", "caption": t, "timestamp": s, "id": i} for i, (t, s) in enumerate(SPANS.items())
        ]
    },
    "tacos": {
        "v": {
            "timestamps": [[300, 600], [900, 1200]],
            "sentences": [RUN, FALL],
            "num_frames": 1500,
            "fps": 30.0,
        }
    },
    "database": {
        "database": {"v": {"annotations": [{"label": t, "segment": s} for t, s in SPANS.items()], "duration": 50}}
    },
    "qvhighlights": [
        {"qid": i, "vid": "v", "query": t, "duration": 50, "relevant_windows": [s]}
        for i, (t, s) in enumerate(SPANS.items())
    ],
    "tvgbench": [{"path": "videos/v.mp4", "question": t, "answer": f"{s[0]}-{s[1]}"} for t, s in SPANS.items()],
    "time_r1": [{"video": "v", "problem": t, "solution": s, "durations": 50} for t, s in SPANS.items()],
    "extremewhenbench": [
        {"video_id": "v", "question": t, "correct_interval": s, "video_duration_s": 50} for t, s in SPANS.items()
    ],
    "ours": [
        {
            "id": str(i),
            "video": "v",
            "task": "grounding",
            "text": t,
            "events": [{"start_s": s[0], "end_s": s[1]}],
        }
        for i, (t, s) in enumerate(SPANS.items())
    ],
}


@pytest.mark.parametrize("layout", MOMENTS)
def test_annotated_moments(tmp_path, layout):
    truth = MOMENTS[layout]
    truth = write(tmp_path / ("t.jsonl" if isinstance(truth, list) else "t.json"), truth)
    report = score("moments", write(tmp_path / "p.jsonl", ROWS), truth)
    assert report["metrics"]["mIoU"] == pytest.approx(50) and report["protocol"]["n"] == 2


KEYED = {f"v.mp4>>>{t}>>>{[s]}": {"timestamps": [[s[0], s[1] - 5]], "answers": "x"} for t, s in SPANS.items()}
SAID = {f"v>>>{t}>>>{tuple(s)}": f"From {s[0]}s to {s[1] - 5}s." for t, s in SPANS.items()}
PREDICTED = {
    "timelens_keys": KEYED,
    "timelens_lines": [{key: value} for key, value in KEYED.items()],
    "lmms_eval_submission": SAID,
    "timechat": {
        str(i): {"timestamp": [[s[0], s[1] - 5]], "query": t, "vid": "v.mp4"} for i, (t, s) in enumerate(SPANS.items())
    },
    "distime": {
        "results": {
            f"v-{i}": {"video_id": "v", "anno_id": i, "query": t, "timestamp": [s[0], s[1] - 5]}
            for i, (t, s) in enumerate(SPANS.items())
        }
    },
    "nested": {"v": {t: {"start": s[0], "end": s[1] - 5, "conf": 0.5} for t, s in SPANS.items()}},
    "windows_as_text": [{**row, "pred": [str(t) for t in row["pred"]]} for row in ROWS],
    "answers": [
        {"video_id": "v.mp4", "sentence": row["query"], "response": "It is at {}s to {}s.".format(*row["pred"])}
        for row in ROWS
    ],
    "submission": [
        {"qid": i, "vid": "v", "query": row["query"], "pred_relevant_windows": [[*row["pred"], 0.9]]}
        for i, row in enumerate(ROWS)
    ],
    "submission_of_a_language_model": [
        {"qid": i, "vid": "v", "query": row["query"], "pred_relevant_windows": str([row["pred"]])}
        for i, row in enumerate(ROWS)
    ],
    "table": "index,video,question,prediction\n"
    + "".join(f'{i},v,{row["query"]},"{row["pred"][0]} - {row["pred"][1]}"\n' for i, row in enumerate(ROWS)),
    "byte_order_mark": "\ufeff" + "".join(json.dumps(row) + "\n" for row in ROWS),
}


@pytest.mark.parametrize("layout", PREDICTED)
def test_predicted_moments(tmp_path, layout):
    predicted = PREDICTED[layout]
    ending = "csv" if layout == "table" else "json" if isinstance(predicted, dict) else "jsonl"
    truth = write(tmp_path / "t.json", MOMENTS["timelens_bench"])
    report = score("timelens_bench", write(tmp_path / f"p.{ending}", predicted), truth)
    assert report["metrics"]["mIoU"] == pytest.approx(50)
    assert {name: report["protocol"][name] for name in ("n", "missing", "unparsed", "unknown")} == {
        "n": 2, "missing": 0, "unparsed": 0, "unknown": 0}  # fmt: skip


@pytest.mark.parametrize("predicted", [KEYED, SAID])
def test_predictions_that_carry_their_annotations(tmp_path, predicted):
    for policy in ("sound", "official"):
        metrics = score("timelens_bench", write(tmp_path / "p.json", predicted), policy=policy)["metrics"]
        assert metrics["mIoU"] == pytest.approx(50)


def test_rows_are_matched_by_what_they_say(tmp_path):
    """Rows in another order, numbered by their own order."""
    truth = write(tmp_path / "t.json", [{"vid": "v", "query": t, "gt": s} for t, s in SPANS.items()])
    turned = [{"id": i, **row, "pred": SPANS[row["query"]]} for i, row in enumerate(reversed(ROWS), 1)]
    for policy in ("sound", "official"):
        report = score("charades_sta", write(tmp_path / "p.jsonl", turned), truth, policy)
        assert report["metrics"]["mIoU"] == pytest.approx(100)
        assert report["protocol"]["matched_by_text"] == 2
    bare = [{"id": i, "pred": SPANS[row["query"]]} for i, row in enumerate(ROWS)]
    for first in (0, 1):
        rows = [{**row, "id": row["id"] + first} for row in bare]
        assert score("charades_sta", write(tmp_path / "p.jsonl", rows), truth)["metrics"]["mIoU"] == 100
    with pytest.raises(FileError, match="count from 0 or from 1"):
        score("charades_sta", write(tmp_path / "p.jsonl", [{"id": 1, "pred": [0, 1]}]), truth)


def test_no_known_video_is_an_error(tmp_path):
    truth = write(tmp_path / "t.json", MOMENTS["activitynet"])
    rows = [{**row, "vid": "another"} for row in ROWS]
    with pytest.raises(FileError, match=f"{NO_VIDEO} .*first there: video 'another'"):
        score("activitynet_grounding", write(tmp_path / "p.jsonl", rows), truth)
    renamed = {"v_abcdefghijk": MOMENTS["activitynet"]["v"]}
    rows = [{**row, "vid": "abcdefghijk.mp4"} for row in ROWS]
    report = score("activitynet_grounding", write(tmp_path / "p.jsonl", rows), write(tmp_path / "t.json", renamed))
    assert report["metrics"]["mIoU"] == 50 and report["protocol"]["unknown"] == 0


def test_a_sentence_that_a_video_has_twice(tmp_path):
    """One answer for both; as many answers as moments in order; more than that is an error."""
    truth = write(tmp_path / "t.json", [{"vid": "v", "query": RUN, "gt": [0, 10]}, {"vid": "v", "query": RUN, "gt": [20, 30]}])  # fmt: skip # noqa: E501
    rows = [{"vid": "v", "query": RUN, "pred": [0, 10]}, {"vid": "v", "query": RUN, "pred": [20, 30]}]
    one, both = (score("moments", write(tmp_path / "p.jsonl", rows[:n]), truth) for n in (1, 2))
    assert one["metrics"]["mIoU"] == 50 and both["metrics"]["mIoU"] == 100
    assert one["protocol"]["repeated_sentences"] == both["protocol"]["repeated_sentences"] == 2
    with pytest.raises(FileError, match="has an answer already"):
        score("moments", write(tmp_path / "p.jsonl", [*rows, rows[0]]), truth)


def test_ranked_windows(tmp_path):
    truth = write(tmp_path / "t.json", MOMENTS["tacos"])
    rows = [{"vid": "v", "query": t, "pred": [[0, 1, 0.9], [*s, 0.8]]} for t, s in SPANS.items()]
    metrics = score("tacos", write(tmp_path / "p.jsonl", rows), truth)["metrics"]
    assert (metrics["R1@0.5"], metrics["R5@0.5"], metrics["mAP@0.5"]) == (0, 100, 50)
    official = score("tacos", write(tmp_path / "p.jsonl", rows), truth, "official", "univtg")["metrics"]
    assert any("R5@0.5" in name and value == 100 for name, value in official.items())


def test_hours_are_broken_down_by_length(tmp_path):
    lengths = {"a": 3000, "b": 5000}
    truth = [{"video": v, "query": RUN, "gt": [0, 100], "duration": d} for v, d in lengths.items()]
    rows = [{"video": v, "query": RUN, "pred": [0, 100 if v == "a" else 50]} for v in lengths]
    metrics = score("extremewhenbench", write(tmp_path / "p.jsonl", rows), write(tmp_path / "t.json", truth))["metrics"]
    assert (metrics["mIoU 20-60min"], metrics["mIoU 1h+"], metrics["mIoU"]) == (100, 50, 75)


def test_ego4d(tmp_path):
    queries = [{"clip_start_sec": 10, "clip_end_sec": 20, "query": "where is it?"}]
    annotations = [{"annotation_uid": "a", "language_queries": queries}]
    truth = {"videos": [{"video_uid": "x", "clips": [{"clip_uid": "c", "annotations": annotations}]}]}
    row = {"clip_uid": "c", "annotation_uid": "a", "query_idx": 0, "predicted_times": [[0, 1], [10, 20]]}
    answers = write(tmp_path / "p.json", {"version": "1.0", "results": [row]})
    report = score("ego4d_nlq", answers, write(tmp_path / "t.json", truth), "official")
    assert report["metrics"]["R1@0.3"] == 0 and report["metrics"]["R5@0.5"] == 100
    assert report["protocol"]["evaluator"].startswith("ego4d: ")


def test_didemo(tmp_path):
    row = {"annotation_id": 7, "video": "a.avi", "description": RUN, "times": [[1, 1], [1, 1], [1, 1], [0, 5]]}
    truth = write(tmp_path / "test_data.json", [row])
    ranked = write(tmp_path / "p.jsonl", [{"annotation_id": 7, "pred": [[0, 0], [1, 1]]}])
    metrics = score("didemo", ranked, truth)["metrics"]
    assert (metrics["R1"], metrics["R5"]) == (0, 100)
    seconds = write(tmp_path / "s.jsonl", [{"video": "a", "query": RUN, "pred": [5.2, 9.9]}])
    assert score("didemo", seconds, truth)["metrics"]["R1"] == 100


QUESTION = {"qid": "q1", "vid": "v", "query": "why?", "ans": "B", "span": [10, 20], "duration": 50}


def test_rextime(tmp_path):
    truth = write(tmp_path / "rextime_val.jsonl", [QUESTION, {**QUESTION, "qid": "q2"}])
    rows = [{"qid": "q1", "pred_relevant_windows": [[10, 20]], "ans": "B"}]
    rows += [{"qid": "q2", "pred_relevant_windows": [[0, 4]], "ans": "B"}]
    metrics = score("rextime", write(tmp_path / "p.jsonl", rows), truth)["metrics"]
    assert sorted(set(metrics.values())) == [50, 100] and metrics["mIoU"] == 50


@pytest.mark.parametrize("benchmark", ["videomind", "cgbench"])
def test_outputs_of_videomind(tmp_path, benchmark):
    rows = [
        {"pred": [[10, 20], [0, 1]], "conf": [0.9, 0.1], "span": [[10, 20]], "response": "(B)", "ans": "B",
         "options": ["x", "y"], "question": "why?", "task": "grounding"},
        {"pred": [[0, 1]], "conf": [0.9], "span": [[10, 20]], "response": "(A)", "ans": "B", "options": ["x", "y"],
         "question": "why?", "task": "grounding"},
    ]  # fmt: skip
    for policy in ("sound", "official"):
        report = score(benchmark, write(tmp_path / "output_0.json", rows), policy=policy)
        assert any(value == pytest.approx(50) for value in report["metrics"].values())
        assert report["protocol"]["n"] == 2


def test_the_two_files_of_nextgqa(tmp_path):
    truth = {"v": {"duration": 50, "location": {"0": [[10, 20]]}}}
    truth = write(tmp_path / "gsub_test.json", truth)
    seconds = write(tmp_path / "ground.json", {"v_0": [10, 20]})
    shares = write(tmp_path / "gs.json", {"v_0": [0.2, 0.4]})
    options = write(tmp_path / "res.json", {"v_0": {"answer": 1, "prediction": 1}})
    for ground in (seconds, shares):
        report = score("nextgqa", [ground, options], truth, "official")
        assert report["metrics"]["Acc@GQA"] == report["metrics"]["mIoU"] == 100
    assert len(report["protocol"]["files"]["more_predictions"]) == 1


VUE = [
    {"query_id": i, "video_id": "v", "query": t, "timestamps": s, "duration": 50, "duration_category": "short",
     "query_format": "phrase", "query_modality": "vision"} for i, (t, s) in
    enumerate([(RUN, [[10, 20]]), (FALL, [[30, 40], [45, 50]])])
]  # fmt: skip


@pytest.mark.parametrize(
    ("benchmark", "policy"), [("vue_tr", "official"), ("vue_tr_v2", "official"), ("vue_tr", "sound")]
)
def test_vue_tr(tmp_path, benchmark, policy):
    rows = [{"query_id": 0, "timestamps": [[10, 20]]}, {"query_id": 1, "timestamps": [[30, 40]]}]
    truth = write(tmp_path / "gt.json", VUE)
    report = score(benchmark, write(tmp_path / "p.jsonl", rows), truth, policy)
    wanted = {"IoU": (100 + 100 * 10 / 15) / 2, "Precision": 100, "Recall": (100 + 100 * 10 / 15) / 2}
    for name, value in wanted.items():
        assert report["metrics"][name] == pytest.approx(value, abs=1.0)
        assert report["metrics"][f"{name} short"] == report["metrics"][name]


def test_chapters_and_their_boundaries(tmp_path, java):
    truth = {"v": {"duration": 100, "chapters": {"0:00": "intro", "0:30": "cooking", "1:00": "eating"}}}
    said = {"v": [{"timestamp": [0, 31], "sentence": "intro"}, {"timestamp": [31, 100], "sentence": "cooking"}]}
    truth, said = write(tmp_path / "t.json", truth), write(tmp_path / "p.json", said)
    metrics = score("vidchapters", said, truth, "official")["metrics"]
    boundaries = {name: value for name, value in metrics.items() if "@5s" in name or "@3s" in name}
    assert boundaries and all(0 < value <= 1 for value in boundaries.values())


def test_sets_of_windows_in_text(tmp_path):
    truth = [
        {"id": 0, "video": "v", "query": RUN, "gt": [[0, 10], [20, 30]]},
        {"id": 1, "video": "v", "query": FALL, "gt": []},
        {"id": 2, "video": "w", "query": FALL, "gt": []},
    ]
    rows = [
        {"id": 0, "response": "0 - 10 seconds, 20 - 30 seconds"},
        {"id": 1, "response": "It never happens."},
        {"id": 2, "response": "from 3 to 5"},
    ]
    report = score("omtg", write(tmp_path / "p.jsonl", rows), write(tmp_path / "t.json", truth))
    metrics = report["metrics"]
    assert metrics["RefusalAcc"] == 50 and metrics["FalseAlarm"] == 50 and metrics["FalseRefusal"] == 0
    assert metrics["C-Acc"] == pytest.approx(200 / 3) and metrics["tIoU"] == pytest.approx(200 / 3)


def test_annotations_that_are_left_out_are_counted(tmp_path):
    truth = [{"vid": "v", "query": RUN, "gt": [9, 1]}, {"vid": "v", "query": FALL, "gt": [30, 40]}]
    truth, rows = write(tmp_path / "t.json", truth), write(tmp_path / "p.jsonl", ROWS)
    with pytest.raises(FileError, match="record 1: a target window must be two numbers in order"):
        score("moments", rows, truth)
    report = score("moments", rows, truth, on_error="skip")
    assert report["protocol"]["skipped"] == 1 and "record 1" in report["protocol"]["skipped_first"]
    assert report["protocol"]["n"] == 1 and report["protocol"]["unknown"] == 1
