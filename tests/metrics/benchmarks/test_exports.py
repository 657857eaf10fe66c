"""Predictions that go out in a format of the field and are scored there: the numbers are those of the predictions."""

import io
import json
import zipfile
from pathlib import Path

import pytest

import evaluate
from evaluation.export import FORMATS as NAMED
from metrics.benchmarks.benchmarks import score
from metrics.benchmarks.exports import FORMATS, export
from metrics.benchmarks.formats.files import FileError


def write(path: Path, content) -> Path:
    rows = content if path.suffix == ".jsonl" else [content]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def query(name: str, text: str, start: float, end: float, **more) -> dict:
    events = [{"start_s": start, "end_s": end}]
    row = {"id": name, "video": "v", "task": "grounding", "text": text, "duration_s": 60.0, "events": events}
    return row | more


def answer(name: str, *spans, **more) -> dict:
    row = {"query_id": name, "video": "v", "task": "grounding", "answer": "", "spans": [list(s) for s in spans]}
    return row | {"captions": [], "saliency": [], "rule": "x"} | more


@pytest.fixture
def moments(tmp_path):
    """Three moments, answers to two of them."""
    asked = [query(str(k), f"scene {k}", 10 * k, 10 * k + 8) for k in (1, 2, 3)]
    said = [answer("1", (10, 14, 0.9), (30, 33, 0.2)), answer("2", (21, 28, 0.5)), answer("9", (0, 1, 1))]
    return write(tmp_path / "q.jsonl", asked), write(tmp_path / "predictions.jsonl", said)


def placed(folder: Path, files: dict) -> dict[str, Path]:
    for name, content in files.items():
        (folder / name).write_text(content)
    return {name: folder / name for name in files}


def test_every_format_is_named_in_the_help():
    assert tuple(FORMATS) == NAMED


@pytest.mark.parametrize(("name", "file"), [("timelens", "timelens.json"), ("timechat", "tvg.json")])
def test_moments(moments, tmp_path, name, file):
    asked, said = moments
    files, counts = export(name, said, asked)
    assert counts == {"queries": 3, "missing": 1, "unknown": 1, "without a window, written as [0, 0]": 1}
    back = score(FORMATS[name].benchmark, placed(tmp_path, files)[file], asked, "official")
    assert back["metrics"]["mIoU"] == pytest.approx(score("moments", said, asked)["metrics"]["mIoU"])
    assert back["protocol"]["missing"] == 0 and back["metrics"]["mIoU"] == pytest.approx(100 * (4 / 8 + 7 / 8) / 3)


def test_ego4d(tmp_path):
    names = [f"clip/ann/{k}" for k in range(2)]
    asked = write(tmp_path / "q.jsonl", [query(n, "x", 0, 8) for n in names])
    said = write(tmp_path / "p.jsonl", [answer(names[0], *[(k, k + 8, 1.0) for k in (20, 0, 1, 2, 3, 4)])])
    files, _ = export("ego4d", said, asked)
    video = {"language_queries": [{"clip_start_sec": 0, "clip_end_sec": 8, "query": "x"}] * 2, "annotation_uid": "ann"}
    truth = {"videos": [{"clips": [{"clip_uid": "clip", "annotations": [video]}]}]}
    truth = write(tmp_path / "nlq_val.json", truth)
    metrics = score("ego4d_nlq", placed(tmp_path, files)["nlq.json"], truth, "official")["metrics"]
    assert metrics["R5@0.5"] == 50 and metrics["R1@0.5"] == 0
    with pytest.raises(FileError, match="clip_uid/annotation_uid/number"):
        export(
            "ego4d", write(tmp_path / "p.jsonl", [answer("1")]), write(tmp_path / "q.jsonl", [query("1", "x", 0, 1)])
        )


def rated(name: str) -> dict:
    return query(name, f"scene {name}", 10, 20, saliency=[[1, 1, 1]] * 30, clip_s=2.0)


def test_qvhighlights_for_its_server(tmp_path, capsys):
    asked = [write(tmp_path / f"{split}.jsonl", [rated("7"), rated("8")]) for split in ("val", "test")]
    said = [write(tmp_path / f"p{k}.jsonl", [answer("7", (10, 20, 0.5), saliency=[float(k)] * 30)]) for k in (1, 2)]
    pairs = [f"[{','.join(map(str, files))}]" for files in (said, asked)]
    evaluate.main(["export", "--format=qvhighlights", f"--predictions={pairs[0]}", f"--queries={pairs[1]}",
                   f"--output={tmp_path / 'out'}"])  # fmt: skip
    archive = zipfile.ZipFile(io.BytesIO((tmp_path / "out" / "submission.zip").read_bytes()))
    assert archive.namelist() == ["hl_val_submission.jsonl", "hl_test_submission.jsonl"]
    val, test = ([json.loads(line) for line in archive.read(name).splitlines()] for name in archive.namelist())
    assert [row["qid"] for row in val] == [7, 8] and val[0]["pred_relevant_windows"] == [[10, 20, 0.5]]
    assert val[1]["pred_relevant_windows"] == [[0, 0, 0]] and val[1]["pred_saliency_scores"] == [0.0] * 30
    assert test[0]["pred_saliency_scores"] == [2.0] * 30
    assert "written as" in capsys.readouterr().out
    truth = [{"qid": q, "vid": "v", "query": f"scene {q}", "duration": 60, "relevant_windows": [[10, 20]],
              "relevant_clip_ids": [5, 6], "saliency_scores": [[4, 4, 4]] * 2} for q in (7, 8)]  # fmt: skip
    truth = write(tmp_path / "truth.jsonl", truth)
    back = score("qvhighlights", tmp_path / "out" / "hl_val_submission.jsonl", truth)["metrics"]
    assert back["MR-full-R1@0.5"] == 50
    with pytest.raises(ValueError, match="only qvhighlights takes two"):
        evaluate.main(["export", "--format=timechat", f"--predictions={pairs[0]}", f"--queries={pairs[1]}",
                       f"--output={tmp_path / 'out'}"])  # fmt: skip


def test_nextgqa(tmp_path):
    options = {"task": "grounded_qa", "options": ["a", "b"], "answer": 1}
    asked = write(tmp_path / "q.jsonl", [query("v_0", "why?", 0, 8, **options), query("v_1", "how?", 0, 8, **options)])
    said = write(tmp_path / "p.jsonl", [answer("v_0", (0, 8, 1.0), task="grounded_qa", option=1)])
    files, counts = export("nextgqa", said, asked)
    assert counts["without an option, written as -1"] == 1
    paths = placed(tmp_path, files)
    truth = write(tmp_path / "gsub.json", {"v": {"duration": 60, "location": {"0": [[0, 8]], "1": [[0, 8]]}}})
    back = score("nextgqa", [paths["ground.json"], paths["res.json"]], truth, "official")["metrics"]
    assert back["Acc@GQA"] == 50 and back["Acc@QA"] == 50 and back["mIoU"] == 50


def test_captions(tmp_path):
    dense = {"task": "dense_captioning", "captions": ["a dog", "a cat"]}
    asked = [query("a", "", 0, 8, task="dense_captioning"), query("b", "", 0, 8, task="dense_captioning", video="w")]
    said = write(tmp_path / "p.jsonl", [answer("a", (0, 4, 1.0), (4, 8, 1.0), **dense)])
    files, counts = export("activitynet_captions", said, write(tmp_path / "q.jsonl", asked))
    found = json.loads(files["captions.json"])["results"]
    assert found == {"v": [{"sentence": "a dog", "timestamp": [0, 4]}, {"sentence": "a cat", "timestamp": [4, 8]}]}
    assert counts["without events, left out"] == 1


def test_etbench_without_captions(tmp_path):
    base = {"version": 1.0, "source": "x", "video": "x/a.mp4", "duration": 60.0, "q": "?"}
    samples = [
        {**base, "idx": 0, "task": "tvg", "tgt": [10, 20]},
        {**base, "idx": 1, "task": "rar", "tgt": [], "o": ["a", "b"], "p": 1},
        {**base, "idx": 2, "task": "gvq", "tgt": [10, 20], "o": ["a", "b"], "p": 0},
        {**base, "idx": 3, "task": "tal", "tgt": [[10, 20], [30, 40]]},
        {**base, "idx": 4, "task": "vhd", "tgt": [[[10, 20]]]},
    ]
    said = [
        answer("0", (10, 20, 1.0)),
        answer("1", task="qa", option=1),
        answer("2", (10, 20, 1.0), task="grounded_qa", option=0),
        answer("3", (10, 20, 1.0), (30, 40, 1.0)),
        answer("4", (10, 20, 1.0)),
    ]
    truth, said = write(tmp_path / "et.json", samples), write(tmp_path / "p.jsonl", said)
    files, counts = export("etbench", said, truth)
    assert counts == {"queries": 5, "missing": 0, "unknown": 0}
    for policy in ("official", "sound"):
        back = score("etbench", placed(tmp_path, files)["etbench.json"], truth, policy)
        assert back["protocol"]["unparsed"] == 0
        scores = {name: value for name, value in back["metrics"].items() if "avg" not in name.lower()}
        assert scores and all(value == pytest.approx(1.0) for value in scores.values()), scores


def test_what_does_not_fit_is_named(moments, tmp_path):
    asked, said = moments
    with pytest.raises(ValueError, match="unknown format 'x'; known: qvhighlights"):
        export("x", said, asked)
    other = write(tmp_path / "other.jsonl", [query("z", "x", 0, 1)])
    with pytest.raises(FileError, match="none of the 1 queries of .*other.jsonl has an answer"):
        export("timelens", said, other)
    with pytest.raises(FileError, match="q.jsonl: query '1': no key 'answer'"):
        export("nextgqa", said, asked)
    with pytest.raises(FileError, match="record 1: spans must be"):
        export("timelens", write(tmp_path / "p.jsonl", [answer("1", (1,))]), asked)
