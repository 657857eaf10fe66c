"""Two real runs of a sweep, as sweep.py starts them and as W&B's agent does; and what a dashboard holds of them."""

import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from wandb.proto import wandb_internal_pb2
from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

import sweep
from callbacks.samples import COLUMNS
from models.checkpoints import read_weights

ROOT = Path(__file__).parent.parent
BLOCK, WHOLE, LAST = 32768, 1, 4
"""Of LevelDB's log format, which W&B writes."""


@pytest.fixture
def file(arguments, runs, world, tmp_path):
    """A sweep file with two points. `null` is among its values, and the metric is that of a short validation."""
    source = f'[{{"shards": "{world / "videos"}", "queries": "{world / "val" / "grounding.jsonl"}"}}]'
    args = [arg for arg in arguments(2, tmp_path, previous=runs[1], max_steps=2) if not arg.startswith("--output")]
    parameters = {
        "model.lora.r": {"values": [2, 4]},
        "seed_everything": {"value": 1},
        "data.val": {"value": source},
        "trainer.check_val_every_n_epoch": {"value": "null"},
        "trainer.val_check_interval": {"value": 2},
        "trainer.logger": {"value": True},
        "model.generation.max_new_tokens": {"value": 4},
        "checkpoint.monitor": {"value": "val/grounding/mIoU"},
        "checkpoint.mode": {"value": "max"},
    }
    settings = {
        "program": str(ROOT / "train.py"),
        "method": "grid",
        "metric": {"name": "val/grounding/mIoU", "goal": "maximize"},
        "parameters": parameters,
        "command": ["${env}", "${interpreter}", "${program}", *args, "${args}"],
    }
    path = tmp_path / "two.yaml"
    path.write_text(yaml.safe_dump(settings, sort_keys=False))
    return path


def records(folder: Path) -> list:
    """Everything that a run of W&B wrote, read back from its file."""
    (path,) = folder.glob("wandb/offline-run-*/*.wandb")
    content, place, found, part = path.read_bytes(), 7, [], b""  # 7 bytes of header
    while place < len(content):
        if (left := BLOCK - place % BLOCK) < 7:  # no room for a record's own header
            place += left
            continue
        _, size, kind = struct.unpack_from("<IHB", content, place)
        part += content[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (WHOLE, LAST):
            found.append(wandb_internal_pb2.Record.FromString(part))
            part = b""
    return found


def logged(found: list) -> dict:
    """Name -> every value of the history; a dot in a name stands for a level."""
    values = {}
    for record in found:
        for item in record.history.item:
            values.setdefault(".".join(item.nested_key) or item.key, []).append(json.loads(item.value_json))
    return values


def test_two_points_run_here_and_as_an_agent_starts_them(file, python, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv("WANDB_SERVICE", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(sys, "executable", python)
    monkeypatch.chdir(tmp_path)
    assert sweep.main([str(file), "--output", str(tmp_path / "here")]) == 0
    assert "grounding" in capfd.readouterr().out
    settings = sweep.read_sweep(file)
    for number, point in enumerate(sweep.grid(settings["parameters"])):
        flags = create_sweep_command_args({"args": {name: {"value": value} for name, value in point.items()}})
        macros = {"${env}": [], "${interpreter}": [python], "${program}": [settings["program"]]}
        macros |= {"${args}": flags["args"]}
        command = [part for word in create_sweep_command(settings["command"]) for part in macros.get(word, [word])]
        environment = {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}  # of another test
        environment |= {"WANDB_SWEEP_ID": "s1", "WANDB_RUN_ID": f"r{number}"}
        subprocess.run(command, env=environment, check=True, timeout=600)
    theirs = [tmp_path / "runs" / "sweeps" / "s1" / f"r{number}" for number in (0, 1)]
    for mine, other in zip((tmp_path / "here" / "000", tmp_path / "here" / "001"), theirs, strict=True):
        weights = [read_weights(folder) for folder in (mine, other)]
        assert weights[0].loras[0].config.r == weights[1].loras[0].config.r
        assert weights[0].manifest["weights"] == weights[1].manifest["weights"]
        check_dashboard(records(other), other)


def check_dashboard(found: list, folder: Path) -> None:
    """What W&B would upload has curves, answers with pictures, settings, and where the weights are."""
    values = logged(found)
    for name in ("train/loss", "train/lm_loss", "train/grad_norm", "lr", "speed/tokens_per_s", "speed/data_wait",
                 "train/padding", "data/skipped_or_cut", "val/grounding/mIoU"):  # fmt: skip
        assert name in values, name
    assert len(values["train/loss"]) == 2  # each step
    (table,) = list(folder.rglob("media/table/val/samples*.json"))
    content = json.loads(table.read_text())
    assert content["columns"] == list(COLUMNS)
    assert all(row[-1] == "Image" for row in content["data"])
    config = {item.key: json.loads(item.value_json) for record in found for item in record.config.update}
    assert config["derived"].keys() == {"accumulate_grad_batches", "code"}
    assert len(config["fingerprints"]["train"]) == len(config["fingerprints"]["val"]) == 1
    artifacts = {record.artifact.type: record.artifact for record in found if record.HasField("artifact")}
    pictures = [entry.path for entry in artifacts["run_table"].manifest.contents if entry.path.endswith(".png")]
    assert len(pictures) == len(content["data"]) > 0
    kept = {entry.path: entry.ref for entry in artifacts["model"].manifest.contents}
    assert kept["manifest.json"] == f"file://{(folder / 'model' / 'manifest.json').absolute()}"
    assert json.loads(artifacts["model"].metadata)["monitor"] == "val/grounding/mIoU"
