"""evaluate.py score as it is used: tables, files, comparisons, and what it does not import."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

import evaluate
from command_line import tables
from metrics.benchmarks.registry import BENCHMARKS

ROOT = Path(__file__).parent.parent
SENTENCES = [f"scene {k}" for k in range(6)]
QUERIES = [
    {
        "id": f"q{k}",
        "video": "v",
        "task": "grounding",
        "text": text,
        "events": [{"start_s": 10 * k, "end_s": 10 * k + 8}],
    }
    for k, text in enumerate(SENTENCES)
]


def write(path: Path, rows: list) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def windows(shift: float, count: int = 6) -> list[dict]:
    return [{"vid": "v", "query": text, "pred": [10 * k + shift, 10 * k + 8 + shift]} for k, text in
            enumerate(SENTENCES[:count])]  # fmt: skip


@pytest.fixture
def files(tmp_path) -> dict[str, Path]:
    """Queries, good answers and worse ones."""
    worse = [windows(4)[0], *windows(1)[1:]]
    return {
        "queries": write(tmp_path / "queries.jsonl", QUERIES),
        "good": write(tmp_path / "good.jsonl", windows(1)),
        "worse": write(tmp_path / "worse.jsonl", worse),
    }


@pytest.fixture
def run(capsys, monkeypatch):
    """Run the command; returns what it printed."""
    monkeypatch.setattr(tables.console, "width", 120, raising=False)

    def run_command(*args) -> str:
        evaluate.main(["score", *map(str, args)])
        return capsys.readouterr().out

    return run_command


def test_a_score_as_a_table_a_file_and_rows(files, run, tmp_path):
    out = run("--benchmark=moments", f"--predictions={files['good']}", f"--annotations={files['queries']}",
              f"--output={tmp_path / 'out'}", "--bootstrap=50")  # fmt: skip
    assert "moments, policy sound" in out and "unit: percent" in out and "n 6, missing 0" in out
    report = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert report["metrics"]["mIoU"] == pytest.approx(100 * 7 / 9)
    assert report["intervals"]["mIoU"] == pytest.approx([100 * 7 / 9] * 2)  # all queries are alike
    assert report["protocol"]["bootstrap"]["draws"] == 50
    rows = list(csv.DictReader((tmp_path / "out" / "rows.csv").open()))
    assert [row["query"] for row in rows] == [query["id"] for query in QUERIES]
    assert [float(row["mIoU"]) for row in rows] == pytest.approx([100 * 7 / 9] * 6)


def test_two_files_query_by_query(files, run, tmp_path):
    out = run("--benchmark=moments", f"--predictions={files['good']}", f"--against={files['worse']}",
              f"--annotations={files['queries']}", f"--output={tmp_path / 'out'}")  # fmt: skip
    report = json.loads((tmp_path / "out" / "metrics.json").read_text())
    pair = report["against"]["metrics"]["mIoU"]
    assert pair["difference"] == pytest.approx((100 * 7 / 9 - 100 * 4 / 12) / 6)
    assert pair["low"] == 0 and pair["high"] > pair["difference"]  # some draws miss the only query that moved
    moved = [row for row in csv.DictReader((tmp_path / "out" / "moved.csv").open()) if row["metric"] == "mIoU"]
    assert [row["query"] for row in moved] == ["q0"]
    assert "queries whose mIoU moved: 1" in out and "q0: 33.3333 -> 77.7778" in out


def test_answers_that_are_there_so_far(files, run, tmp_path):
    part = write(tmp_path / "part.jsonl", windows(1, count=2))
    args = ["--benchmark=moments", f"--predictions={part}", f"--annotations={files['queries']}"]
    run(*args, f"--output={tmp_path / 'all'}")
    run(*args, "--partial=true", f"--output={tmp_path / 'so far'}")
    whole, partial = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("all", "so far"))
    assert partial["metrics"]["mIoU"] == pytest.approx(3 * whole["metrics"]["mIoU"]) == pytest.approx(100 * 7 / 9)
    assert partial["protocol"]["partial"] == "2 of 6 queries" and partial["protocol"]["n"] == 2


def test_annotations_that_cannot_be_used(files, run, tmp_path):
    bad = [{**QUERIES[5], "events": [{"start_s": 9, "end_s": 1}]}, *QUERIES[:5]]
    truth = write(tmp_path / "bad.jsonl", bad)
    args = ["--benchmark=moments", f"--predictions={files['good']}", f"--annotations={truth}"]
    with pytest.raises(ValueError, match="bad.jsonl, record 1"):
        run(*args)
    out = run(*args, "--on_error=skip")
    assert "1 annotations could not be used" in out and "1 answers are to nothing that is annotated" in out


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--output=metrics.json"], "--output is a folder"),
        (["--evaluator=timechat"], "goes with --policy official"),
        (["--policy=official", "--evaluator=mine"], "knows: timelens, "),
        (["--bootstrap=-1"], "a number of draws"),
    ],
)
def test_options_that_do_not_go_together(files, run, more, words):
    with pytest.raises(ValueError, match=words):
        run("--benchmark=moments", f"--predictions={files['good']}", f"--annotations={files['queries']}", *more)


def test_the_official_evaluator_is_named(files, run, tmp_path):
    out = run("--benchmark=moments", f"--predictions={files['good']}", f"--annotations={files['queries']}",
              "--policy=official", "--evaluator=timechat", f"--output={tmp_path}")  # fmt: skip
    protocol = json.loads((tmp_path / "metrics.json").read_text())["protocol"]
    assert protocol["evaluator"].startswith("timechat: TimeChat ") and protocol["differs"]
    assert "policy official (timechat)" in out


def test_help_names_benchmarks_units_evaluators_and_files(capsys):
    with pytest.raises(SystemExit) as left:
        evaluate.main(["score", "--help"])
    assert left.value.code == 0
    out = " ".join(capsys.readouterr().out.split())
    for name, kind in BENCHMARKS.items():
        assert f"{name} {kind.about}; unit: {kind.unit}; official: {', '.join([*kind.evaluators][:1]) or 'none'}" in out
        assert " ".join(kind.files.split()) in out
    evaluate.main(["--help"])
    assert all(f"python evaluate.py {command} --" in capsys.readouterr().out for command in evaluate.COMMANDS[:1])


def test_scores_import_no_more_than_they_need(files, tmp_path):
    """numpy for windows; neither torch nor what builds on it; not even numpy for help."""
    program = f"""
import sys, evaluate
try:
    evaluate.main(["score", "--help"])
except SystemExit:
    pass
assert "numpy" not in sys.modules, "help"
evaluate.main(["score", "--benchmark=moments", "--predictions={files["good"]}", "--annotations={files["queries"]}",
               "--against={files["worse"]}", "--output={tmp_path / "out"}"])
from metrics import read_moments, score, set_row, rewards
read_moments("from 3 to 5")
heavy = {{"torch", "lightning", "transformers", "torchmetrics", "scipy", "pandas", "matplotlib"}} & sys.modules.keys()
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
