"""Every speed benchmark runs by the command of its docstring; here one small step of each, with no word about speed."""

import json
import re
import runpy
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent
SMALL = {
    "experts": ["--width=64", "--layers=1", "--tokens=12", "--frames=4", "--rounds=1"],
    "extraction": ["--videos=1", "--frames=4", "--samples=4", "--width=8", "--rounds=1"],
    "generation": ["--frames=8", "--tokens=2", "--rounds=1", "--width=32"],
    "growth": [*(f"--{name}=[{value}]" for name, value in
                 {"frames": 4, "queries": 2, "repeats": 1, "vocabulary": 600, "lines": 9}.items()),
               "--width=32", "--output={}"],
    "limits": ["--tokens=8", "--width=8", "--inner=8"],
    "online": ["--videos=1", "--frames=4", "--width=32", "--rounds=1"],
    "padding": ["--batch_size=3", "--queries=2", "--frames=4", "--width=32", "--rounds=1"],
    "scoring": ["--videos=2"],
    "startup": ["--rounds=1", "--share=0.01"],
    "stages": ["--size=tiny", "--rounds=1"],
    "shared_video": ["--frames=4", "--queries=2", "--width=32", "--rounds=1"],
}  # fmt: skip
"""Module -> arguments of a small step."""
MODULES = sorted(path.stem for path in (ROOT / "benchmarks").glob("*.py") if path.stem != "__main__")


def test_each_has_a_small_step():
    assert sorted(SMALL) == MODULES


@pytest.mark.parametrize("name", MODULES)
def test_its_command_runs(name, real, java, monkeypatch, tmp_path, capsys):
    command = re.search(r"python -m (benchmarks\.\w+)", (ROOT / "benchmarks" / f"{name}.py").read_text())
    assert command[1] == f"benchmarks.{name}"
    published = [f"--annotations={real('annotations')}"] if name == "scoring" else []
    monkeypatch.setattr(
        sys, "argv", [name, *(each.format(tmp_path / "growth.svg") for each in SMALL[name]), *published]
    )
    runpy.run_module(command[1], run_name="__main__")
    assert re.search(r"x?\d+\.\d|\d+\.\dx", capsys.readouterr().out)


def test_no_benchmark_has_the_name_of_a_room():
    """Run as a file, it would be found in the room's place."""
    rooms = {path.parent.name for path in ROOT.glob("*/__init__.py")} | {path.stem for path in ROOT.glob("*.py")}
    assert not rooms & set(MODULES)


def test_one_command_writes_numbers_with_their_limits(monkeypatch, tmp_path, capsys):
    from benchmarks.__main__ import OTHERS, TABLE, main

    assert sorted({*OTHERS, *TABLE, "scoring", "limits"}) == MODULES
    main(["stages"], tmp_path / "found.json", "tiny")
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["machine"]["torch"] == torch.__version__
    assert all(limit > 0 for limit in found["limits"].values())
    training, reading, answering = found["rows"]
    assert {"training", "reading", "answering"} == {row["what"].split()[0].strip(",") for row in found["rows"]}
    assert all(0 < row["value"] < row["limit"] for row in found["rows"])
    assert training["usual"] and answering["usual"] and 0 < training["utilisation"] < 1
    with pytest.raises(ValueError, match="no benchmark is named nothing; there are stages"):
        main(["nothing"])
