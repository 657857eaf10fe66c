"""The official numbers of grounding, retrieval, highlights and grounded QA, from the golden files."""

import numpy as np
import pytest

from metrics.benchmarks.official_events import etbench_events
from metrics.benchmarks.official_windows import etbench_windows, timelens_windows, vtimellm_window
from metrics.benchmarks.retrieval_protocols import UNIVTG, VIDCHAPTERS
from metrics.benchmarks.videomind import videomind_scores
from metrics.detection import average_precisions, pad, pairwise
from metrics.grounded_qa import from_fractions, grounded_qa_scores, question_accuracy, signed_overlap
from metrics.grounding import EVALUATORS, best_ious, grounding_scores
from metrics.highlights import clip_matrix, highlight_scores, tie_aware_precision
from metrics.moment_retrieval import QVHIGHLIGHTS, batch, brief, by_score, first_ious, retrieval_scores
from metrics.spans import iou
from metrics.video_highlights import tvsum_precision, youtube_precision

pytestmark = pytest.mark.golden

IOU_SOURCES = {
    "soda_utils_iou": "eps",
    "eval_dvc_iou": "eps",
    "timechat_dvc_iou": "eps_sorted",
    "moment_detr_cross": "cross",
    "moment_detr_paired": "hull",
    "nncore_float32": "float32",
}


def official(inputs: dict, protocol=QVHIGHLIGHTS) -> dict:
    """The nested results of the QVHighlights evaluator, with its flat headline numbers under ``brief``."""
    answers = {row["qid"]: row for row in inputs["submission"]}
    truth = [row for row in inputs["ground_truth"] if row["qid"] in answers]
    if inputs.get("match_number", False) and len(truth) != len(inputs["ground_truth"]):
        raise ValueError("other queries than annotated")
    results, flat = {}, {}
    if "pred_relevant_windows" in inputs["submission"][0]:
        windows = [answers[row["qid"]]["pred_relevant_windows"] for row in truth]
        results = retrieval_scores(windows, [row["relevant_windows"] for row in truth], "official", protocol)
        flat = brief(results, protocol)
    if "pred_saliency_scores" in inputs["submission"][0]:
        ratings = [clip_matrix(row["relevant_clip_ids"], row["saliency_scores"], row["duration"]) for row in truth]
        scores = highlight_scores([answers[row["qid"]]["pred_saliency_scores"] for row in truth], ratings, "official")
        flat |= scores
        for level in ("Fair", "Good", "VeryGood"):
            name = f"HL-min-{level}"
            results[name] = {"HL-mAP": scores[f"{name}-mAP"], "HL-Hit1": scores[f"{name}-Hit1"]}
    return {**results, "brief": flat}


@pytest.mark.parametrize("source", IOU_SOURCES)
def test_metrics_iou_variants(golden, close, source):
    data = golden("interval_iou_variants")
    values = [iou([p], [g], IOU_SOURCES[source])[0, 0] for p, g in data["inputs"]["pairs"]]
    close(values, data["expected"][source], 1e-12)


@pytest.mark.parametrize("name", ["qvh_real_predictions", "qvh_noisy_detector", "qvh_noisy_llm", "hl_only_llm_sparse"])
def test_metrics_qvhighlights(golden, close, name):
    data = golden(name)
    close(official(data["inputs"]), data["expected"]["unrounded"], 1e-9)


@pytest.mark.parametrize("name", ["qvh_real_predictions", "qvh_noisy_detector", "qvh_noisy_llm"])
def test_metrics_qvhighlights_per_query(golden, close, name):
    data = golden(name)
    if "per_query" not in data["expected"]:
        pytest.skip(f"{name} holds no numbers per query")
    truth = {str(row["qid"]): row for row in data["inputs"]["ground_truth"]}
    answers = {str(row["qid"]): row for row in data["inputs"]["submission"]}
    for qid, expected in data["expected"]["per_query"].items():
        row, answer = truth[qid], answers[qid]
        one = batch([answer["pred_relevant_windows"]], [row["relevant_windows"]], "official", 10)
        keep = ~np.isnan(one.lengths)
        close(average_precisions(one.overlaps, one.counts, keep.sum(axis=1))[0].tolist(), expected["ap"], 1e-9)
        close(first_ious(one, keep, 1)[0], expected["top1_iou"], 1e-9)
        matrix = clip_matrix(row["relevant_clip_ids"], row["saliency_scores"], row["duration"])
        saliency = np.array(answer["pred_saliency_scores"], dtype=float)[: len(matrix)]
        saliency = np.append(saliency, np.zeros(len(matrix) - len(saliency)))
        close(tie_aware_precision(saliency, matrix >= 4).tolist(), expected["hl_ap_verygood"], 1e-9)


def test_metrics_qvhighlights_edge_cases(golden, agrees):
    data = golden("qvh_edge_cases")
    for case, inputs in data["inputs"].items():
        expected = data["expected"][case].get("unrounded", data["expected"][case])
        agrees(lambda inputs=inputs: official(inputs), expected, 1e-9, case)


@pytest.mark.parametrize("name", ["charades", "tacos", "activitynet"])
def test_metrics_moment_retrieval(golden, close, name):
    data = golden(f"mr_{name}")
    expected = data["expected"].get("moment_detr", data["expected"])["unrounded"]
    if "raises" in expected:
        with pytest.raises(ValueError, match="range"):
            official(data["inputs"])
    else:
        close(official(data["inputs"]), expected, 1e-9)
    if "moment_detr_functions_without_long" in data["expected"]:
        ranges = {key: value for key, value in QVHIGHLIGHTS.ranges.items() if key != "long"}
        protocol = type(QVHIGHLIGHTS)(ranges)
        close(
            official(data["inputs"], protocol),
            data["expected"]["moment_detr_functions_without_long"]["unrounded"],
            1e-9,
        )
    if "vidchapters" in data["expected"]:
        protocol = VIDCHAPTERS.get(name, VIDCHAPTERS["other"])
        close(official(data["inputs"], protocol), data["expected"]["vidchapters"]["unrounded"], 1e-9)


def test_metrics_moment_retrieval_extended(golden, close):
    data = golden("mr_extended_r5_miou")
    close(official(data["inputs"], UNIVTG), data["expected"]["unrounded"], 1e-9)


def test_metrics_detection_precision(golden, close):
    data = golden("detection_ap")
    for case, expected in zip(data["inputs"]["cases"], data["expected"]["ap"], strict=True):
        ranked = by_score(case["pred"])
        overlaps = pairwise([ranked], pad([case["gt"]]), "cross")
        counts, positives = np.array([len(ranked)]), np.array([len(case["gt"])])
        values = average_precisions(overlaps, counts, positives, data["inputs"]["thresholds"])[0]
        close(values.tolist(), expected, 1e-12)


def test_metrics_highlight_precision(golden, close):
    data = golden("highlight_ap")
    values = [
        tie_aware_precision(np.array(case["y_score"]), np.array(case["y_true"])[:, None])[0]
        for case in data["inputs"]["cases"]
    ]
    close(values, data["expected"]["interpolated"], 1e-12)


@pytest.mark.parametrize(
    ("name", "precision"), [("hl_tvsum", tvsum_precision), ("hl_youtube_highlight", youtube_precision)]
)
def test_metrics_video_highlights(golden, close, name, precision):
    data = golden(name)
    rows = zip(data["inputs"]["pred_saliency"], data["inputs"]["items"], strict=True)
    values = [precision(scores, item["label"], "official") for scores, item in rows]
    values = [value for value in values if not np.isnan(value)]
    close(values, data["expected"]["per_video"], 1e-6)
    close(sum(values) / len(values), data["expected"]["mAP"], 1e-6)


def test_metrics_grounding_of_real_predictions(golden, close):
    data = golden("grounding_charades_real")
    rows, expected = data["inputs"]["rows"], data["expected"]
    predicted = [[row["pred"]] if row["pred"] else None for row in rows]
    targets = [[row["gt"]] for row in rows]
    scores = grounding_scores(predicted, targets, evaluator="timechat")
    close(
        {key.replace("R1", "IoU"): value for key, value in scores.items()}, expected["timechat_eval_tvg_percent"], 1e-9
    )
    scores = grounding_scores(predicted, targets, evaluator="timelens")
    names = {"R1@0.3": "IOU 0.3", "R1@0.5": "IOU 0.5", "R1@0.7": "IOU 0.7", "mIoU": "mIOU"}
    close({names.get(key, key): value for key, value in scores.items()}, expected["timelens_percent"]["metrics"], 1e-9)
    values = [
        best_ious(windows, target, EVALUATORS["timelens"])[0] if windows else 0.0
        for windows, target in zip(predicted, targets, strict=True)
    ]
    close(values, expected["timelens_percent"]["ious"], 1e-9)
    official_numbers = dict(expected["etbench_eval_grounding_fraction"])
    official_numbers.pop("printed_rounded_3", None)
    scores = grounding_scores(predicted, targets, evaluator="etchat")
    fractions = {key.replace("R1", "R"): value / 100 for key, value in scores.items() if key[0] in "Rm"}
    close({**fractions, "failed": scores["unparsed"], "total": scores["n"]}, official_numbers, 1e-6)


def test_metrics_grounding_edge_cases(golden, close):
    data = golden("grounding_iou_edge_cases")
    for case, item in data["inputs"].items():
        expected = data["expected"][case]
        predicted, targets = [[item["pred"]] if item["pred"] else None], [[item["gt"]]]
        scores = grounding_scores(predicted, targets, evaluator="etchat")
        fractions = {key.replace("R1", "R"): value / 100 for key, value in scores.items() if key[0] in "Rm"}
        actual = {**fractions, "failed": scores["unparsed"], "total": scores["n"]}
        close(actual, expected["etbench_eval_grounding"], 1e-6, case)
        for source in ("timechat_iou", "timelens_eval_iou", "timelens_reward_iou"):
            if isinstance(expected.get(source), float):
                close(best_ious(predicted[0], targets[0], EVALUATORS["timelens"])[0], expected[source], 1e-9, case)


def test_metrics_grounding_of_vtimellm_text(golden, close):
    data = golden("grounding_vtimellm_text")
    predicted, targets = [], []
    for row in data["inputs"]["rows"]:
        predicted.append(list(vtimellm_window(row["answer"]).windows) or None)
        targets.append([[second / row["duration"] for second in row["gt_seconds"]]])
    values = [
        best_ious(windows, target, EVALUATORS["vtimellm"])[0] if windows else 0.0
        for windows, target in zip(predicted, targets, strict=True)
    ]
    close(values, data["expected"]["ious_rounded_2"], 1e-9)
    close(grounding_scores(predicted, targets, evaluator="vtimellm"), data["expected"]["metrics"], 1e-9)


def test_metrics_answer_parsing(golden):
    data = golden("answer_parsing")
    for text, expected in zip(data["inputs"]["texts"], data["expected"]["parsed"], strict=True):
        windows, events = etbench_windows(text).windows, etbench_events(text)
        found = {
            "etbench_tvg_format": [list(window) for window in windows] or None,
            "etbench_dvc_format": [None, None],
            "timelens_eval_extract_time": [list(window) for window in timelens_windows(text).windows],
            "timelens_train_extract_time": [list(window) for window in timelens_windows(text, training=True).windows],
        }
        if events.windows:
            found["etbench_dvc_format"] = [[list(window) for window in events.windows], list(events.captions)]
        assert found == expected, text


def grounded(truth: dict, windows: dict, answers: dict | None, subset: list | None = None) -> dict:
    """The official NExT-GQA numbers; ``count`` is the denominator."""
    targets = {f"{video}_{key}": spans for video, entry in truth.items() for key, spans in entry["location"].items()}
    if subset:
        targets = {key: targets[key] for key in subset if key in targets}
    pairs = {key: (row["answer"], row["prediction"]) for key, row in answers.items()} if answers else None
    scores = grounded_qa_scores(windows, targets, pairs, "official")
    return {**scores, "count": scores["n"]}


def test_metrics_nextgqa_pairs(golden, close):
    data = golden("nextgqa_pairwise")
    values = [list(signed_overlap(pair["loc"], pair["span"])) for pair in data["inputs"]["pairs"]]
    close(values, data["expected"]["iou_iop"], 1e-9)


def test_metrics_nextgqa_real_predictions(golden, close):
    data = golden("nextgqa_real_predictions")
    inputs = data["inputs"]
    scores = grounded(inputs["ground_truth"], inputs["pred_ground"], inputs["pred_qa"])
    close(scores, data["expected"]["unrounded"], 1e-9)
    answers = {key: (row["answer"], row["prediction"]) for key, row in inputs["pred_qa"].items()}
    types = {f"{row['video_id']}_{row['qid']}": row["type"] for row in inputs["qa_rows"]}
    accuracy = question_accuracy(answers, types, "official")
    lines = data["expected"]["qa_accuracy_printed"]
    for name, value in zip(lines[1].split("\t"), lines[2].split("\t"), strict=True):
        assert not name or f"{accuracy[name]:.2f}" == value
    assert lines[-1] == f"Acc: {accuracy['Acc']:.2f}"


def test_metrics_nextgqa_noisy(golden, close):
    data = golden("nextgqa_noisy")
    inputs, expected = data["inputs"], data["expected"]
    truth, seconds, answers = inputs["ground_truth"], inputs["pred_ground"], inputs["pred_qa"]
    rounded = {
        key: from_fractions(window, truth[key.rsplit("_", 1)[0]]["duration"])
        for key, window in inputs["pred_ground_normalised"].items()
    }
    close(grounded(truth, seconds, answers), expected["seconds"]["unrounded"], 1e-9)
    close(grounded(truth, rounded, answers), expected["normalised_gs"]["unrounded"], 1e-9)
    close(grounded(truth, seconds, None), expected["without_qa"]["unrounded"], 1e-9)
    close(grounded(truth, seconds, answers, inputs["subset"]), expected["subset"]["unrounded"], 1e-9)


def test_metrics_videomind(golden, close):
    data = golden("grounded_qa_videomind")
    for name, expected in data["expected"].items():
        confidence = float(name.rsplit("_", 1)[1]) if "conf_thr" in name else None
        scores = videomind_scores(data["inputs"]["samples"], "official", name.startswith("cgbench"), confidence)
        close(scores, expected, 1e-5, name)
