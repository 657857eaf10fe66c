"""Every command that ``docs/reproduce`` shows is one: its options, configs and sweeps are there."""

import re
import shlex
from functools import wraps
from pathlib import Path

import pytest

import evaluate
import prepare
from lightning_modules.training_cli import TrainingCLI
from sweep import command, grid, read_sweep

PAGES = sorted((Path(__file__).parent.parent / "docs/reproduce").glob("*.md"))


def commands(page: Path) -> list[str]:
    """The lines of its bash blocks that begin with python, with variables filled in."""
    text = "\n".join(re.findall(r"```bash\n(.*?)```", page.read_text(), re.DOTALL)).replace("\\\n", " ")
    variables = dict(re.findall(r'^(\w+)="(.*)"$', text, re.MULTILINE))
    lines = [line.strip() for line in text.splitlines() if line.strip().startswith("python")]
    return [re.sub(r"\$(\w+)", lambda name: variables.get(name[1], name[1]), line) for line in lines]


def stand_in(function):
    """Takes the same arguments and does nothing."""
    return wraps(function)(lambda *args, **settings: None)


@pytest.fixture
def only_parsed(monkeypatch):
    """Commands read their arguments and do nothing."""
    monkeypatch.setattr(TrainingCLI, "instantiate_classes", lambda self: None)
    for name in ("benchmark", "similarity", "video", "score"):
        monkeypatch.setattr(evaluate, name, stand_in(getattr(evaluate, name)))
    for name, function in prepare.COMMANDS.items():
        monkeypatch.setitem(prepare.COMMANDS, name, stand_in(function))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_of_the_page_is_understood(page, only_parsed):
    found = commands(page)
    assert len(found) > 5
    for line in found:
        script, *args = shlex.split(line, comments=True)[1:]
        if script == "train.py":
            TrainingCLI(args)
        elif script == "sweep.py":
            settings = read_sweep(args[0])
            for point in grid(settings["parameters"]):
                TrainingCLI(command(settings, point)[2:])
        elif script == "prepare.py":
            assert prepare.main(args) == 0
        else:
            assert script == "evaluate.py", line
            evaluate.main(args)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_published_numbers_say_that_they_were_not_run(page):
    tables = re.findall(r"(?:^\|.*\n)+", page.read_text(), re.MULTILINE)
    for row in (row for table in tables for row in table.splitlines() if "paper" in row):
        assert "not run here" in row
