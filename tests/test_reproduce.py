"""The commands of the pages on papers and released weights: every one is taken by its parser, with all its options."""

import functools
import re
import shlex
from pathlib import Path

import pytest

import evaluate
import prepare
from lightning_modules.training_cli import TrainingCLI
from sweep import grid, read_sweep

ROOT = Path(__file__).parent.parent
PAGES = [*sorted((ROOT / "docs" / "reproduce").glob("*.md")), ROOT / "docs" / "released-weights.md"]


def commands(script: str) -> list[list[str]]:
    """The arguments of each ``python script`` in these pages, loops with one of their values."""
    blocks = "\n".join(block for page in PAGES for block in re.findall(r"```bash\n(.*?)```", page.read_text(), re.S))
    values = dict(re.findall(r"^for (\w+) in (\w+)", blocks, re.M))
    for name, value in values.items():
        blocks = blocks.replace(f"${{{name}}}", value).replace(f"${name}", value)
    lines = re.findall(rf"^\s*python {re.escape(script)} (.*)$", blocks, re.M)
    return list(map(list, sorted({tuple(shlex.split(line, comments=True)) for line in lines})))


def named(arguments: list[str]) -> str:
    return "-".join(Path(value).stem for value in arguments[:6] if not value.startswith("-"))


@pytest.fixture
def called(monkeypatch) -> list[str]:
    """Names of the commands that would have run."""
    names = []

    def stand_in(command):
        @functools.wraps(command)
        def told(*args, **kwargs):
            names.append(command.__name__)

        return told

    for name, command in prepare.COMMANDS.items():
        monkeypatch.setitem(prepare.COMMANDS, name, stand_in(command))
    for name in ("benchmark", "video", "dialogue", "score"):
        monkeypatch.setattr(evaluate, name, stand_in(getattr(evaluate, name)))
    return names


@pytest.mark.parametrize("arguments", commands("prepare.py"), ids=named)
def test_data_is_prepared(called, arguments):
    assert prepare.main(arguments) == 0
    assert called == [arguments[0]]


@pytest.mark.parametrize("arguments", commands("evaluate.py"), ids=named)
def test_answers_are_scored(called, arguments):
    evaluate.main(arguments)
    assert called == [arguments[0]]


@pytest.mark.parametrize("arguments", commands("train.py"), ids=named)
def test_a_run_is_described(llm, tmp_path, monkeypatch, arguments):
    """The shipped configs and the options of a row, on a tiny base; two rows never share a folder."""
    monkeypatch.chdir(ROOT)
    cli = TrainingCLI([*arguments, f"--model.init_args.llm={llm}", "--trainer.logger=false"])
    assert cli.datamodule.sources["train"]


def test_runs_have_folders_of_their_own():
    outputs = [words[words.index("--output") + 1] for words in commands("train.py") if "--output" in words]
    assert len(outputs) == len(set(outputs)) > 8


@pytest.mark.parametrize("arguments", commands("sweep.py"), ids=named)
def test_sweeps_have_points(arguments):
    assert len(list(grid(read_sweep(ROOT / arguments[0])["parameters"]))) > 3


def test_numbers_are_marked_as_the_papers():
    """Every table of scores says whose they are."""
    for page in PAGES[:-1]:
        tables = re.findall(r"(?:^\|.*\n)+", page.read_text(), re.M)
        scores = [table for table in tables if re.search(r"\| \d+\.\d+ \|", table)]
        assert scores and all("not run here" in table for table in scores), page.name
