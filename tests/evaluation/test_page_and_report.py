"""evaluate.py page and report: files of anyone's run in, a page and a table out."""

import json
import shutil

import pytest
from PIL import Image

import evaluate
from datamodules.prediction import Prediction, Strip
from datamodules.prediction_files import read_predictions
from datamodules.query_files import write_queries
from datamodules.schema import Event, Query
from reports.recall import recalls


def result(folder, clip, found: float, seed: int = 0):
    """A result folder with one video and two queries, of which the second has no answer."""
    folder.mkdir(parents=True)
    queries = [
        Query("q1", "clip", "grounding", "a blue box", (Event(9, 12),), source="boxes"),
        Query("q2", "clip", "grounding", "a red box", (Event(0, 5),), source="boxes"),
    ]
    write_queries(folder / "queries.jsonl", queries)
    line = Prediction("q1", "clip", "grounding", "From 75 to 99.", ((9.0, found, 0.5),), rule="digits")
    (folder / "predictions.jsonl").write_text(line.to_json() + "\n")
    (folder / "run" / "logs").mkdir(parents=True)
    (folder / "run" / "logs" / "metrics.csv").write_text("step,train/loss\n1,3.0\n2,1.0\n")
    protocol = {"setting": "zero-shot", "seed": seed, "queries": {"file": str(folder / "queries.jsonl")}}
    protocol["checkpoint"] = {"folder": str(folder / "run")}
    metrics = {"grounding/R1@0.5": 50.0, "grounding/mIoU": 50.0}
    (folder / "metrics.json").write_text(json.dumps({"metrics": metrics, "protocol": protocol}))
    (folder / "videos").mkdir()
    shutil.copy(clip, folder / "videos" / "clip.mp4")
    return folder


def data_of(page) -> dict:
    content = page.read_text(encoding="utf-8").split('<script type="application/json" id="data">')[1]
    return json.loads(content.split("</script>")[0])


@pytest.mark.parametrize("videos", [True, False])
def test_a_page_shows_predictions_beside_annotations(clip, tmp_path, videos, capsys):
    folder = result(tmp_path / "result", clip, 12.0)
    files = [f"--predictions={folder / 'predictions.jsonl'}", f"--queries={folder / 'queries.jsonl'}"]
    files += [f"--videos={folder / 'videos'}"] * videos
    evaluate.main(["page", *files, f"--output={tmp_path / 'pages' / 'p.html'}"])
    (video,) = data_of(tmp_path / "pages" / "p.html")["videos"]
    assert video["source"] == ("../result/videos/clip.mp4" if videos else "")
    assert video["duration"] == pytest.approx(12.0)
    found, lost = video["rows"]
    assert (found["iou"], found["rule"], found["source"], found["truth"]) == (1.0, "digits", "boxes", [[9, 12, ""]])
    assert (lost["iou"], lost["rule"], lost["spans"]) == (0.0, "not answered", [])
    assert capsys.readouterr().out.splitlines()[-1] == f"Written: {tmp_path / 'pages' / 'p.html'}"


def test_files_that_do_not_belong_together_are_refused(clip, tmp_path):
    folder = result(tmp_path / "result", clip, 12.0)
    write_queries(tmp_path / "other.jsonl", [Query("other", "clip", "grounding", "x")])
    files = [f"--predictions={folder / 'predictions.jsonl'}", f"--queries={tmp_path / 'other.jsonl'}"]
    with pytest.raises(ValueError, match="answers no query of"):
        evaluate.main(["page", *files, f"--output={tmp_path / 'p.html'}"])
    with pytest.raises(ValueError, match=r"p.mp4: the name of a page ends in .html"):
        evaluate.main(["page", *files, f"--output={tmp_path / 'p.mp4'}"])
    assert not (tmp_path / "p.html").exists()


def test_a_report_is_a_table_with_curves(clip, tmp_path, capsys):
    folders = [str(result(tmp_path / f"s{seed}", clip, end, seed)) for seed, end in ((0, 12.0), (1, 10.5))]
    given = json.dumps([f"Ours={folder}" for folder in folders])
    evaluate.main(["report", f"--results={given}", f"--output={tmp_path / 'report'}", "--published=charades_sta"])
    text = (tmp_path / "report" / "table.md").read_text()
    assert "| Ours [a] | - | 50.0 ± 0.0 | - | 50.0 ± 0.0 |" in text and "*paper*" in text
    for name in ("recall.png", "learning.png"):
        assert Image.open(tmp_path / "report" / name).size[0] > 300
    assert capsys.readouterr().out.splitlines()[-1].startswith("Written: ")


def test_recall_falls_with_the_threshold():
    assert recalls([1.0, 0.5, 0.0])[[0, 9, 10]] == pytest.approx([200 / 3, 200 / 3, 100 / 3])


def test_predictions_survive_a_file(tmp_path):
    strips = (Strip("<ent>", (0.5, 1.0)),)
    full = Prediction(
        "a", "v", "dense_captioning", "x", ((1.0, 2.0, 0.5),), ("c",), (0.1,), None, "r", ("x", "y"), strips, 0.25
    )
    plain = Prediction("b", "v", "grounding", "\u2028", rule=None)
    (tmp_path / "p.jsonl").write_text("".join(f"{one.to_json()}\n" for one in (full, plain)), encoding="utf-8")
    assert list(read_predictions(tmp_path / "p.jsonl")) == [full, plain]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "line 2: not JSON"),
        ("[]", "line 2: no prediction"),
        ('{"query_id": "b"}', "line 2: no prediction"),
        ('{"query_id": "b", "video": "v", "task": "grounding", "answer": 3}', "answer must be text"),
        ('{"query_id": "b", "video": "v", "task": "grounding", "answer": "", "spans": [[0, NaN]]}', "a finite number"),
        ('{"query_id": "b", "video": "v", "task": "grounding", "answer": "", "spans": [["0", 1]]}', "must be a number"),
        ('{"query_id": "b", "video": "v", "task": "grounding", "answer": "", "captions": ["x"]}', "1 captions for 0"),
        ('{"query_id": "a", "video": "v", "task": "grounding", "answer": ""}', "has an answer in line 1"),
        ("[" * 10_000, "line 2: "),
    ],
)  # fmt: skip
def test_a_line_that_is_no_prediction_is_named(tmp_path, line, words):
    first = Prediction("a", "v", "grounding", "x").to_json()
    (tmp_path / "p.jsonl").write_text(f"{first}\n{line}\n")
    with pytest.raises(ValueError, match=words):
        list(read_predictions(tmp_path / "p.jsonl"))
