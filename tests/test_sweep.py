"""Sweeps without a server: every point once, resumable, and a table over seeds."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import sweep
from lightning_modules.training_cli import TrainingCLI
from sweeps.chain import run_chain, stage_commands
from sweeps.runner import Devices

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


ROOT = Path(__file__).parent.parent
SWEEPS = sorted((ROOT / "configs" / "sweeps").glob("*.yaml"))


def wandbs_arguments(point: dict) -> list[str]:
    """What W&B's own agent makes of a point."""
    from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

    return create_sweep_command_args({"args": {name: {"value": value} for name, value in point.items()}})["args"]


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_every_point_of_every_sweep_is_read_as_wandb_writes_it(path, monkeypatch):
    """A chain's point is one command a stage."""
    monkeypatch.setattr(TrainingCLI, "instantiate_classes", lambda self: None)
    monkeypatch.chdir(ROOT)
    settings = sweep.read_sweep(path)
    assert settings["metric"]["name"].startswith("val/")
    points = list(sweep.grid(settings["parameters"]))
    first, made = points[0]["seed_everything"], set()
    for point in points:
        theirs = [*sweep.command(settings, {})[1:], *wandbs_arguments(point)]
        assert f"--seed_everything={point['seed_everything']}" in theirs
        if point["seed_everything"] != first:  # otherwise the same arguments as with the first seed
            continue
        if "sweeps.chain" in theirs:
            file, more = Path(theirs[2]), [arg for arg in theirs[3:] if not arg.startswith("--row")]
            commands = [args for _, args in stage_commands(file, str(point["row"]), Path("stages"), more)]
        else:
            commands = [[*theirs[1:], "--output=x"]]
        configs = [TrainingCLI(args).config.as_dict() for args in commands]
        assert configs[-1]["seed_everything"] == first
        assert configs[-1]["data"]["val"]
        learned = ((config["model"], config["data"]["train"], config["trainer"]["max_steps"]) for config in configs)
        made.add(str(list(learned)))
    assert len(made) * len(settings["parameters"]["seed_everything"]["values"]) == len(points)


def test_a_file_that_is_no_yaml_is_named_with_its_line(tmp_path, capsys):
    (tmp_path / "bad.yaml").write_text("method: grid\nparameters: [1\n  x: }\n")
    assert sweep.main([str(tmp_path / "bad.yaml"), "--output", str(tmp_path)]) == 2
    assert re.search(r"bad\.yaml, line \d: no YAML", capsys.readouterr().err)


def test_other_runs_go_on_where_one_fails(write, tmp_path, capsys):
    path = write(parameters={"x": {"values": ["boom", 1, 2]}, "seed_everything": {"value": 0}})
    assert sweep.main([str(path), "--output", str(tmp_path / "runs"), "--jobs", "2"]) == 1
    captured = capsys.readouterr()
    assert "000 ended with status 3" in captured.err
    assert "1 of the runs failed" in captured.err
    assert "10.0" in captured.out and "20.0" in captured.out
    assert (tmp_path / "runs" / "000" / "log.txt").is_file()


def test_a_table_without_a_column_is_refused(write, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sweeps.runner.last_metrics", lambda _: {})
    assert sweep.main([str(write()), "--output", str(tmp_path / "runs")]) == 2
    assert "the table would be empty" in capsys.readouterr().err


def test_a_dry_run_only_prints(write, tmp_path, capsys):
    assert sweep.main([str(write()), "--output", str(tmp_path / "runs"), "--dry_run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert all("program.py" in line for line in lines)
    assert not (tmp_path / "runs").exists()


def test_devices_are_shared_out():
    parts = Devices(2, {"CUDA_VISIBLE_DEVICES": "0,1,2,3"}, 0).parts
    assert [parts.get(), parts.get()] == ["0,1", "2,3"]
    assert Devices(3, {}, 0).parts.get() is None
    with pytest.raises(ValueError, match="--jobs 3, but there are 2 devices"):
        Devices(3, {}, 2)


def test_rows_of_a_chain_share_what_they_begin_with(tmp_path, monkeypatch):
    file = ROOT / "configs/sweeps/chains/vtimellm_table2.yaml"
    ninth, tenth = (stage_commands(file, row, tmp_path, ["--seed_everything=1"]) for row in ("9", "10"))
    assert ninth[:2] == tenth[:2]
    assert ninth[2] != tenth[2]
    assert f"--model.init_args.previous={ninth[1][0]}" in ninth[2][1]
    trained = []

    def train(arguments, env):
        folder = Path(next(arg for arg in arguments if arg.startswith("--output")).split("=", 1)[1])
        (folder / "model").mkdir(parents=True)
        (folder / "model" / "manifest.json").write_text("{}")
        trained.append((folder.name, env.get("WANDB_RUN_ID")))
        return subprocess.CompletedProcess(arguments, 0)

    monkeypatch.setattr("sweeps.chain.subprocess.run", train)
    monkeypatch.setenv("WANDB_RUN_ID", "r")
    for row in ("9", "10"):
        assert run_chain(file, row, tmp_path / "runs" / row, []) == 0
    assert [name for name, _ in trained] == ["images", "images-freeze", "images-freeze-reuse", "images-freeze-new"]
    assert [run for _, run in trained] == [None, None, "r", "r"]
    with pytest.raises(ValueError, match="has no row 11"):
        stage_commands(file, "11", tmp_path)
