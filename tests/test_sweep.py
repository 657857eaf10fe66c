"""Sweeps without a server: every point once, resumable, and a table over seeds."""

import json
import sys

import pytest
import yaml

import sweep

PROGRAM = """
import json, pathlib, sys
args = dict(arg.lstrip("-").split("=", 1) for arg in sys.argv[1:])
out = pathlib.Path(args["output"])
if args.get("x") == "boom":
    sys.exit(3)
(out / "logs").mkdir(parents=True, exist_ok=True)
(out / "model").mkdir()
(out / "model" / "manifest.json").write_text("{}")
score = 10 * float(args["x"]) + float(args["seed_everything"])
(out / "logs" / "metrics.csv").write_text(f"step,val/score,train/loss\\n1,0,1\\n2,{score},\\n3,,2\\n")
with open(out.parent / "calls", "a") as calls:
    calls.write(json.dumps(args) + "\\n")
"""


@pytest.fixture
def write(tmp_path):
    def written(**settings):
        (tmp_path / "program.py").write_text(PROGRAM)
        parameters = {"x": {"values": [1, 2]}, "seed_everything": {"values": [0, 2]}, "flag": {"value": None}}
        content = {"program": str(tmp_path / "program.py"), "method": "grid", "parameters": parameters} | settings
        path = tmp_path / "some.yaml"
        path.write_text(yaml.safe_dump(content, sort_keys=False))
        return path

    return written


def test_every_point_runs_once_and_seeds_are_averaged(write, tmp_path, capsys):
    path, output = write(), tmp_path / "runs"
    assert sweep.main([str(path), "--output", str(output)]) == 0
    table = capsys.readouterr().out
    assert "11.0 ± 1.4" in table
    assert "21.0 ± 1.4" in table
    calls = [json.loads(line) for line in (output / "calls").read_text().splitlines()]
    assert [(call["x"], call["seed_everything"], call["flag"]) for call in calls] == [
        ("1", "0", "null"), ("1", "2", "null"), ("2", "0", "null"), ("2", "2", "null"),
    ]  # fmt: skip
    assert sweep.main([str(path), "--output", str(output)]) == 0
    assert len((output / "calls").read_text().splitlines()) == 4
    results = json.loads((output / "results.json").read_text())
    assert [result["metrics"] for result in results] == [{"val/score": v} for v in (10.0, 12.0, 20.0, 22.0)]


def test_the_command_is_filled_in_as_wandb_does(write):
    settings = {
        "program": "train.py",
        "command": ["${env}", "${interpreter}", "${program}", "--config", "c", "${args}"],
    }
    point = {"a.b": [1, 2], "c": "text", "d": True}
    assert sweep.command(settings, point) == [
        sys.executable, "train.py", "--config", "c", "--a.b=[1, 2]", "--c=text", "--d=true",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "bayes"}, "expected method: grid"),
        ({"parameters": {}}, "expected method: grid and parameters"),
        ({"parameters": {"x": {"min": 0, "max": 1}}}, "parameter x must have either value or values"),
    ],
)
def test_what_needs_a_server_is_refused_in_one_line(write, tmp_path, capsys, settings, message):
    assert sweep.main([str(write(**settings)), "--output", str(tmp_path / "runs")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_a_failed_run_ends_the_sweep(write, tmp_path, capsys):
    path = write(parameters={"x": {"values": ["boom"]}, "seed_everything": {"value": 0}})
    assert sweep.main([str(path), "--output", str(tmp_path / "runs")]) == 1
    assert "status 3" in capsys.readouterr().err


def test_a_run_without_the_metric_of_the_sweep_ends_it_at_once(write, tmp_path, capsys):
    path = write(metric={"name": "val/other", "goal": "maximize"})
    assert sweep.main([str(path), "--output", str(tmp_path / "runs")]) == 2
    assert "logged no val/other" in capsys.readouterr().err
    assert len((tmp_path / "runs" / "calls").read_text().splitlines()) == 1


def test_a_killed_run_goes_on_with_its_checkpoint(write, tmp_path):
    output = tmp_path / "runs"
    (output / "001" / "checkpoints").mkdir(parents=True)
    (output / "001" / "checkpoints" / "last.ckpt").touch()
    assert sweep.main([str(write()), "--output", str(output)]) == 0
    calls = [json.loads(line) for line in (output / "calls").read_text().splitlines()]
    assert [call.get("resume") for call in calls] == [None, "true", None, None]


def test_a_resumed_run_has_the_metrics_of_before_too(tmp_path):
    (tmp_path / "metrics-001.csv").write_text("step,val/a,val/b\n1,1,5\n")
    (tmp_path / "metrics-002.csv").write_text("step,val/a\n2,2\n3,3\n")
    assert sweep.last_metrics(tmp_path) == {"val/a": 3.0, "val/b": 5.0}
    (tmp_path / "metrics.csv").write_text("step,train/loss,val/a\n4,1,\n4,,4\n")
    assert sweep.last_metrics(tmp_path) == {"val/a": 4.0, "val/b": 5.0}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ('{"class_path": "a.B", "init_args": {"x": 1, "y": "z"}}', "x=1, y=z"),
        ('{"model": {"x": 1}}', "model={'x': 1}"),
        ("plain words", "plain words"),
        ("3", "3"),
        (0.5, "0.5"),
        ([1, 2], "[1, 2]"),
    ],
)
def test_a_table_names_settings_briefly(value, text):
    assert sweep.brief(value) == text
