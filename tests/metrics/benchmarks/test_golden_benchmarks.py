"""``score`` on files: the golden inputs written in the formats of the field give the official numbers."""

import json
from pathlib import Path

import pytest

from metrics.benchmarks.benchmarks import score

pytestmark = pytest.mark.golden


def write(path: Path, content) -> Path:
    """A .json file, or a .jsonl file with one record a line."""
    lines = [json.dumps(row) for row in content] if path.suffix == ".jsonl" else [json.dumps(content)]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("name", ["qvh_real_predictions", "qvh_noisy_detector", "qvh_noisy_llm"])
def test_metrics_score_qvhighlights(golden, close, tmp_path, name):
    data = golden(name)
    submission = write(tmp_path / "submission.jsonl", data["inputs"]["submission"])
    truth = write(tmp_path / "val.jsonl", data["inputs"]["ground_truth"])
    result = score("qvhighlights", submission, truth, "official")
    close(result["metrics"], data["expected"]["unrounded"]["brief"], 1e-9)
    assert set(result["metrics"]) == set(data["expected"]["unrounded"]["brief"])
    assert result["protocol"]["policy"] == "official"
    assert result["protocol"]["n"] == len(data["inputs"]["ground_truth"])


def test_metrics_score_qvhighlights_needs_the_same_queries(golden, tmp_path):
    case = golden("qvh_edge_cases")["inputs"]["missing_qid_match_number_true"]
    submission = write(tmp_path / "submission.jsonl", case["submission"])
    truth = write(tmp_path / "val.jsonl", case["ground_truth"])
    with pytest.raises(ValueError, match="missing"):
        score("qvhighlights", submission, truth, "official")
    protocol = score("qvhighlights", submission, truth)["protocol"]
    absent = {row["qid"] for row in case["ground_truth"]} - {row["qid"] for row in case["submission"]}
    assert protocol["missing"] == len(absent) and protocol["n"] == len(case["ground_truth"])


def test_metrics_score_charades(golden, close, tmp_path):
    data = golden("grounding_charades_real")
    rows = data["inputs"]["rows"]
    truth = write(
        tmp_path / "truth.json", [{k: row[k] for k in ("id", "vid", "query", "gt", "duration")} for row in rows]
    )
    answers = write(tmp_path / "rows.json", [{k: row[k] for k in ("id", "vid", "query", "pred")} for row in rows])
    expected = data["expected"]["timelens_percent"]["metrics"]
    expected = {"R1@0.3": expected["IOU 0.3"], "R1@0.5": expected["IOU 0.5"], "R1@0.7": expected["IOU 0.7"]} | {
        "mIoU": expected["mIOU"]
    }
    for policy in ("official", "sound"):
        result = score("charades_sta", answers, truth, policy)
        close(result["metrics"], expected, 1e-9)
        assert result["protocol"]["unparsed"] == sum(row["pred"] is None for row in rows)


def test_metrics_score_activitynet_captions(golden, close, tmp_path, java):
    data = golden("dvc_anet")
    answers = write(tmp_path / "answers.json", {"version": "1", "results": data["inputs"]["predictions"]})
    files = [write(tmp_path / f"val_{i}.json", file) for i, file in enumerate(data["inputs"]["references"], 1)]
    result = score("activitynet_captions", answers, files, "official")
    expected = {**data["expected"]["eval_dvc_two_refs"], "SODA_c": data["expected"]["eval_soda_two_refs"]["soda_c"]}
    close(result["metrics"], expected, 1e-6)


def test_metrics_score_youcook2(golden, close, tmp_path, java):
    data = golden("timechat_dvc_youcook2")
    answers = write(tmp_path / "answers.json", data["inputs"]["predictions"])
    truth = write(tmp_path / "val.caption_coco_format.json", {"annotations": data["inputs"]["annotations"]})
    result = score("youcook2", answers, truth, "official")
    expected = {key: value for key, value in data["expected"]["means"].items() if not key.startswith("SODA")}
    expected["SODA_c"] = next(v for k, v in data["expected"]["means"].items() if k.startswith("SODA_c") and v != -1)
    close(result["metrics"], expected, 1e-6)


def test_metrics_score_nextgqa(golden, close, tmp_path):
    data = golden("nextgqa_real_predictions")
    answers = write(
        tmp_path / "answers.json", {"ground": data["inputs"]["pred_ground"], "qa": data["inputs"]["pred_qa"]}
    )
    truth = write(tmp_path / "gsub_test.json", data["inputs"]["ground_truth"])
    result = score("nextgqa", answers, truth, "official")
    expected = dict(data["expected"]["unrounded"])
    assert result["protocol"]["n"] == expected.pop("count")
    close(result["metrics"], expected, 1e-9)


def test_metrics_score_etbench(golden, close, tmp_path, java, encoder):
    data = golden("etbench_all_tasks")
    truth = [{key: value for key, value in row.items() if key != "a"} for row in data["inputs"]["samples"]]
    answers = [{"idx": row["idx"], "a": row["a"]} for row in data["inputs"]["samples"]]
    truth, answers = write(tmp_path / "etbench.json", truth), write(tmp_path / "answers.jsonl", answers)
    result = score("etbench", answers, truth, "official")
    expected = data["expected"]["unrounded"]["task_means"]
    close(result["metrics"], {key: value for key, value in expected.items() if not key.endswith("Sim")}, 1e-6)


@pytest.mark.parametrize("name", ["vtimellm_captioning_logs", "vtimellm_repo_example"])
def test_metrics_score_vtimellm_log(golden, close, tmp_path, java, name):
    data = golden(name)
    log = write(tmp_path / "log.jsonl", data["inputs"]["logs"])
    truth = write(tmp_path / "val_2.json", data["inputs"]["annotations"])
    result = score("vtimellm_log", log, truth, "official")
    close(result["metrics"], {**data["expected"]["captioning"], **data["expected"]["grounding"]}, 1e-4)


@pytest.mark.parametrize(("name", "benchmark"), [("hl_tvsum", "tvsum"), ("hl_youtube_highlight", "youtube_highlights")])
def test_metrics_score_video_highlights(golden, close, tmp_path, name, benchmark):
    data = golden(name)
    truth = write(tmp_path / "truth.jsonl", data["inputs"]["items"])
    rows = zip(data["inputs"]["items"], data["inputs"]["pred_saliency"], strict=True)
    answers = [{"vid": item["vid"], "pred_saliency_scores": scores} for item, scores in rows]
    result = score(benchmark, write(tmp_path / "answers.jsonl", answers), truth, "official")
    close(result["metrics"]["mAP"], data["expected"]["mAP"], 1e-6)
    assert any(key.startswith("mAP-") for key in result["metrics"])
