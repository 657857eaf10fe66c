"""Every speed benchmark runs by the command of its docstring; here one small step of each, with no word about speed."""

import re
import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SMALL = {
    "experts": ["--width=64", "--layers=1", "--tokens=12", "--frames=4", "--rounds=1"],
    "extraction": ["--videos=1", "--frames=4", "--samples=4", "--width=8", "--rounds=1"],
    "generation": ["--frames=8", "--tokens=2", "--rounds=1", "--width=32"],
    "online": ["--videos=1", "--frames=4", "--width=32", "--rounds=1"],
    "scoring": ["--videos=2"],
    "startup": ["--rounds=1", "--share=0.01"],
    "shared_video": ["--frames=4", "--queries=2", "--width=32", "--rounds=1"],
}
"""Module -> arguments of a small step."""
MODULES = sorted(path.stem for path in (ROOT / "benchmarks").glob("*.py"))


def test_each_has_a_small_step():
    assert sorted(SMALL) == MODULES


@pytest.mark.parametrize("name", MODULES)
def test_its_command_runs(name, real, java, monkeypatch, capsys):
    command = re.search(r"python -m (benchmarks\.\w+)", (ROOT / "benchmarks" / f"{name}.py").read_text())
    assert command[1] == f"benchmarks.{name}"
    published = [f"--annotations={real('annotations')}"] if name == "scoring" else []
    monkeypatch.setattr(sys, "argv", [name, *SMALL[name], *published])
    runpy.run_module(command[1], run_name="__main__")
    assert re.search(r"x?\d+\.\d|\d+\.\dx", capsys.readouterr().out)


def test_no_benchmark_has_the_name_of_a_room():
    """Run as a file, it would be found in the room's place."""
    rooms = {path.parent.name for path in ROOT.glob("*/__init__.py")} | {path.stem for path in ROOT.glob("*.py")}
    assert not rooms & set(MODULES)
