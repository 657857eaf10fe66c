"""The published annotation files, scored with perfect, empty, garbage and shuffled predictions."""

import json
import random
from pathlib import Path

import pytest

from metrics.benchmarks.benchmarks import score
from metrics.benchmarks.formats.files import FileError, read
from metrics.benchmarks.formats.moments import moments as read_moments
from metrics.benchmarks.formats.questions import questions
from metrics.benchmarks.formats.stories import stories as read_stories

KINDS = ("perfect", "empty", "garbage", "shuffled")


def write(path: Path, content) -> Path:
    lines = [json.dumps(row) for row in content] if path.suffix == ".jsonl" else [json.dumps(content)]
    path.write_text("\n".join(lines) + "\n")
    return path


def windows_of(kind: str, targets: list[list], order: list[int]) -> list:
    """One answer a query."""
    return {
        "perfect": targets,
        "empty": [[] for _ in targets],
        "garbage": [[[float("nan"), "x"], [9e9, -1]] for _ in targets],
        "shuffled": [targets[i] for i in order],
    }[kind]


def order_of(count: int) -> list[int]:
    order = list(range(count))
    random.Random(0).shuffle(order)
    return order


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("benchmark", "name"),
    [("charades_sta", "charades_sta_test.json"), ("activitynet_grounding", "activitynet_captions_val_2.json")],
)
def test_grounding(real, tmp_path, benchmark, name, kind):
    truth = real(f"annotations/{name}")
    moments = read_moments(truth)
    targets = [[list(window) for window in moment.windows] for moment in moments]
    found = windows_of(kind, targets, order_of(len(targets)))
    rows = [{"id": m.id, "vid": m.video, "query": m.text, "pred": w} for m, w in zip(moments, found, strict=True)]
    result = score(benchmark, write(tmp_path / "rows.jsonl", rows), truth)
    metrics, protocol = result["metrics"], result["protocol"]
    assert protocol["n"] == len(moments) > 1000 and protocol["missing"] == 0
    if kind == "perfect":
        assert set(metrics.values()) == {100.0}
        again = score(benchmark, tmp_path / "rows.jsonl", truth, "official")
        assert again["metrics"] == pytest.approx(metrics)
    elif kind == "shuffled":
        assert 0 < metrics["mIoU"] < 70
    else:
        assert set(metrics.values()) == {0.0}
        assert protocol["invalid"] == (2 * len(moments) if kind == "garbage" else 0)


@pytest.mark.parametrize("kind", KINDS)
def test_qvhighlights(real, tmp_path, kind):
    truth = real("annotations/qvhighlights_val.jsonl")
    rows = read(truth)
    targets = [[[*window, 1.0] for window in row["relevant_windows"]] for row in rows]
    found = windows_of(kind, targets, order_of(len(rows)))
    submission = []
    for row, windows in zip(rows, found, strict=True):
        saliency = [0.0] * (row["duration"] // 2)
        for clip, ratings in zip(row["relevant_clip_ids"], row["saliency_scores"], strict=True):
            saliency[clip] = max(ratings) if kind == "perfect" else -1.0
        saliency = {"empty": [], "garbage": [float("nan")] * 75}.get(kind, saliency)
        submission.append({"qid": row["qid"], "pred_relevant_windows": windows, "pred_saliency_scores": saliency})
    path = write(tmp_path / "submission.jsonl", submission)
    result = score("qvhighlights", path, truth)
    metrics = result["metrics"]
    if kind == "perfect":
        assert 99 < metrics["MR-full-mAP"] < 100  # some queries have more than the ten windows that count
        assert metrics["MR-full-R1@0.7"] == 100
        assert metrics["HL-min-Fair-Hit1"] == 100 and metrics["HL-min-VeryGood-mAP"] > 40
        assert score("qvhighlights", path, truth, "official")["metrics"] == pytest.approx(metrics)
    elif kind == "shuffled":
        assert 0 < metrics["MR-full-mAP"] < 50 and metrics["HL-min-VeryGood-Hit1"] < 10
    else:
        assert set(metrics.values()) == {0.0}
        with pytest.raises(FileError):
            score("qvhighlights", path, truth, "official")


@pytest.mark.parametrize("kind", KINDS)
def test_nextgqa(real, tmp_path, kind):
    truth = real("annotations/nextgqa_val_grounding.json")
    targets = questions(truth)
    first = [list(question.windows[0]) for question in targets.values()]
    found = windows_of(kind, [[window] for window in first], order_of(len(first)))
    ground = {name: windows[0] for name, windows in zip(targets, found, strict=True) if windows}
    answers = {name: {"answer": 1, "prediction": 1} for name in targets}
    path = write(tmp_path / "answers.json", {"ground": ground or {"unknown_1": [0, 1]}, "qa": answers})
    if kind == "empty":
        with pytest.raises(FileError, match="none of the"):
            score("nextgqa", path, truth)
        return
    result = score("nextgqa", path, truth)
    assert result["protocol"]["n"] == len(targets)
    if kind == "perfect":
        assert result["metrics"]["Acc@GQA"] == result["metrics"]["mIoP"] == 100
    elif kind == "garbage":
        assert result["metrics"].pop("Acc@QA") == 100  # the answers are right, the windows are not
        assert set(result["metrics"].values()) == {0.0} and result["protocol"]["invalid"] == len(targets)
    else:
        assert 0 < result["metrics"]["Acc@GQA"] < 60


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("benchmark", "name"),
    [("activitynet_captions", "activitynet_captions_val_2.json"), ("youcook2", "youcook2_val.json")],
)
def test_dense_captioning(real, tmp_path, java, benchmark, name, kind):
    videos = dict(list(read(real(f"annotations/{name}")).items())[:40])
    truth = write(tmp_path / "truth.json", videos)
    stories = read_stories(truth)
    names = list(stories)
    order = order_of(len(names))
    answers = {}
    for i, video in enumerate(names):
        events = stories[names[order[i]] if kind == "shuffled" else video].events
        rows = [{"timestamp": [start, end], "sentence": text} for start, end, text in events]
        garbage = [{"timestamp": ["x", None], "sentence": "\n||| "}]
        answers[video] = {"empty": [], "garbage": garbage}.get(kind, rows)
    result = score(benchmark, write(tmp_path / "answers.json", answers), truth)
    metrics = result["metrics"]
    headline = [metrics["METEOR"], metrics["SODA_c"], metrics.get("F1", metrics.get("F1_Score"))]
    if kind == "perfect":
        assert headline[2] == pytest.approx(1) and all(value > 0.9 for value in headline)
    elif kind == "shuffled":
        assert all(0 < value < 0.8 for value in headline)
    else:
        assert headline == [0, 0, 0]
