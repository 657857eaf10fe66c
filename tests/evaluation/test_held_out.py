"""evaluate.py held_out: settings chosen by validation, asked the test questions; and what answers cost."""

import json
import re
import shutil

import pytest

import evaluate
from datamodules.prediction_files import read_predictions
from evaluation.cost import Clock, cost
from models.checkpoints import read_weights

SWEEP = """\
program: train.py
method: grid
metric: {name: val/grounding/mIoU, goal: maximize}
parameters:
  model.localizer: {values: ['{"class_path": "localizers.TextTimestamps"}']}
  model.optimization.lr: {values: [0.1, 0.01]}
  seed_everything: {values: [0, 1]}
"""
REACHED = (10.0, 20.0, 18.0, 16.0)
"""Of each run in validation: the second rate is better on the average, though not for the second seed."""


@pytest.fixture(scope="module")
def sweep(runs, tmp_path_factory):
    """A sweep file with its runs, all of them the same model."""
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "rates.yaml").write_text(SWEEP)
    for number, score in enumerate(REACHED):
        run = folder / "runs" / f"{number:03d}"
        shutil.copytree(runs[2], run)
        (run / "logs").mkdir(exist_ok=True)
        (run / "logs" / "metrics.csv").write_text(f"step,val/grounding/mIoU\n4,{score}\n")
    return folder


def ask(sweep, world, output, *more):
    given = {str(sweep / "rates.yaml"): str(sweep / "runs")}
    source = [f"--shards={world / 'videos'}", f"--queries={world / 'test/grounding.jsonl'}", "--num_workers=0"]
    evaluate.main(["held_out", f"--sweeps={json.dumps(given)}", *source, f"--output={output}", *more])


def test_the_better_setting_on_validation_is_asked_with_every_seed(sweep, world, tmp_path, capsys):
    columns = ["mIoU", "grounding/unparsed%", "trained_numbers", "new_tokens", "tokens_per_answer", "ms_per_query"]
    arguments = (f"--columns={json.dumps(columns)}", '--chosen=["model.optimization.lr"]')
    ask(sweep, world, tmp_path, *arguments)
    asked = sorted(path.parent.name for path in tmp_path.glob("runs/*/*/metrics.json"))
    assert asked == ["002", "003"]
    lines = [line for line in (tmp_path / "table.md").read_text().splitlines() if line.startswith("|")]
    assert [line.split("|")[1].strip().split(" [")[0] for line in lines[2:]] == [
        "rates",
        "constant window",
        "random window",
    ]
    row = lines[2]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    numbers = read_weights(sweep / "runs" / "002").manifest["trained"]["numbers"]
    assert cells[3] == f"{numbers:,}" and cells[4] == "0" and "-" not in cells
    first = next(tmp_path.glob("runs/*/002/predictions.jsonl"))
    before = first.stat().st_mtime_ns
    ask(sweep, world, tmp_path, *arguments)
    assert first.stat().st_mtime_ns == before, "what was asked is not asked again"


def test_a_sweep_that_is_not_finished_and_a_parameter_that_is_not_there_are_refused(sweep, world, tmp_path):
    with pytest.raises(ValueError, match="no sweep has this parameter"):
        ask(sweep, world, tmp_path, '--chosen=["model.rank"]')
    (tmp_path / "rates.yaml").write_text(SWEEP)
    with pytest.raises(ValueError, match="not finished: .*000"):
        ask(tmp_path, world, tmp_path / "out")


def test_runs_that_are_not_finished_can_be_left_out(sweep, world, tmp_path, capsys):
    (tmp_path / "runs").mkdir()
    (tmp_path / "rates.yaml").write_text(SWEEP)
    (tmp_path / "runs" / "003").symlink_to(sweep / "runs" / "003")
    ask(tmp_path, world, tmp_path / "out", "--partial=true")
    said = re.sub(r"\s", "", capsys.readouterr().out)
    assert "leftout,astheyarenotfinished" in said and "runs/002" in said
    assert [path.parent.name for path in tmp_path.glob("out/runs/*/*/metrics.json")] == ["003"]


def test_tokens_are_counted_up_to_the_end_of_an_answer(sweep, world, tmp_path):
    """A batch of answers is as long as its longest; the others are not charged for it."""
    arguments = [f"--checkpoint={sweep / 'runs' / '000'}", f"--shards={world / 'videos'}", "--num_workers=0"]
    arguments += [f"--queries={world / 'test/grounding.jsonl'}", "--generation.max_new_tokens=24"]
    found = {}
    for size in (1, 16):
        evaluate.main(["benchmark", *arguments, f"--batch_size={size}", f"--output={tmp_path / str(size)}"])
        answers = read_predictions(tmp_path / str(size) / "predictions.jsonl")
        found[size] = {answer.query_id: answer.tokens for answer in answers}
        costs = json.loads((tmp_path / str(size) / "cost.json").read_text())
        assert costs["tokens_per_answer"] == pytest.approx(sum(found[size].values()) / len(found[size]))
        assert costs["ms_per_query"] > 0
    assert found[1] == found[16] and all(0 < tokens <= 24 for tokens in found[1].values())


def test_what_is_not_known_is_not_there():
    class Old:
        manifest = {}

    assert cost(Old, Clock(), []) == {}
