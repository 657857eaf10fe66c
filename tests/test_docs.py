"""What docs and README show can be done: commands parse, links and anchors lead somewhere, examples run."""

import re
import shlex
import sys
import types
from importlib import import_module
from pathlib import Path
from random import Random

import pytest

import ask
import localizers
import prepare
import sweep
from command_line.parser import CommandParser
from datamodules.clip import Clip
from datamodules.schema import Event, Query, Turn
from lightning_modules.training_cli import TrainingCLI
from localizers.answer import Answer

ROOT = Path(__file__).parent.parent
TEXTS = sorted([ROOT / "README.md", *ROOT.glob("docs/**/*.md")])
PAGES = [path for path in TEXTS if path.parts[-2] == "docs"]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
SCRIPT = re.compile(r"(?:^|\s)(train|evaluate|prepare|ask|sweep)\.py(?:\s|$)")


def blocks(path: Path, language: str) -> list[str]:
    return [body for name, body in BLOCK.findall(path.read_text(encoding="utf-8")) if name == language]


def commands(path: Path) -> list[str]:
    """Commands of our scripts that are written out: those with ``..`` leave something to the reader."""
    lines = [line for block in blocks(path, "bash") for line in block.replace("\\\n", " ").splitlines()]
    lines = [re.sub(r"\s+#.*", "", line).strip() for line in lines]
    return [line for line in lines if SCRIPT.search(line) and not re.search(r"(^|\s)\.\.(\s|$)", line)]


SHOWN = sorted({command for path in TEXTS if path.parent.name != "reproduce" for command in commands(path)})
"""Those of ``docs/reproduce`` are in ``test_reproduce.py``."""


def parse(command: str) -> None:
    """Parse the arguments of a command. Raises SystemExit with another status than 0 where they are wrong."""
    words = shlex.split(command)
    place = next(number for number, word in enumerate(words) if SCRIPT.fullmatch(word))
    script, arguments = words[place].removesuffix(".py"), words[place + 1 :]
    if script == "ask":
        parser = ask.parser()
        parser.parse_args(ask.sorted_out(parser, arguments))
    elif script == "prepare":
        prepare.command_line().parse_args(arguments)
    elif script == "evaluate":
        name, *rest = arguments
        parser = CommandParser()
        parser.add_function_arguments(getattr(import_module(f"evaluation.{name}"), name))
        parser.parse_args(rest)
    elif script == "sweep":
        sweep.read_sweep(ROOT / arguments[0])
    else:
        TrainingCLI([*arguments, "--print_config"])


def tutorial_localizer() -> types.ModuleType:
    """The module that docs/new-localizer.md tells its reader to write."""
    (source,) = blocks(ROOT / "docs" / "new-localizer.md", "python")
    module = types.ModuleType("localizers.seconds_as_text")
    exec(compile(source, "new-localizer.md", "exec"), module.__dict__)
    return module


@pytest.fixture(scope="module")
def tutorial():
    """The tutorial's localizer, where a command line finds it. It stays there: jsonargparse remembers its class."""
    sys.modules["localizers.seconds_as_text"] = localizers.seconds_as_text = tutorial_localizer()


@pytest.mark.parametrize("command", SHOWN)
def test_commands_parse(command, tutorial, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    try:
        parse(command)
    except SystemExit as left:
        assert left.code in (0, None), capsys.readouterr().err


def test_commands_were_found():
    assert len(SHOWN) > 30
    assert {SCRIPT.search(command)[1] for command in SHOWN} == {"train", "evaluate", "prepare", "ask", "sweep"}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_pages_end_with_a_command(page):
    last = BLOCK.findall(page.read_text(encoding="utf-8"))[-1]
    tail = page.read_text(encoding="utf-8").rstrip().rpartition("```bash")[2]
    assert last[0] in ("bash", "") and tail.count("## ") == 0, "a page ends with a command that one can run"


def anchors(path: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", BLOCK.sub("", path.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("text", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_and_anchors_lead_somewhere(text):
    content = BLOCK.sub("", text.read_text(encoding="utf-8"))
    for link in re.findall(r"\]\((?!https?://)([^)\s]+)", content):
        file, _, anchor = link.partition("#")
        target = text.parent / file if file else text
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_every_page_is_in_the_navigation():
    listed = re.findall(r"[\w/-]+\.md", (ROOT / "mkdocs.yml").read_text())
    assert sorted(listed) == sorted(str(path.relative_to(ROOT / "docs")) for path in ROOT.glob("docs/**/*.md"))


def test_the_example_of_python_runs(watcher, clip, tmp_path, monkeypatch, capsys):
    """That of docs/python.md and that of the README, on another run and another clip."""
    (tmp_path / "predictions.jsonl").write_text('{"id": "a", "pred": [0, 10]}\n')
    (tmp_path / "charades_sta_test.json").write_text('[{"id": "a", "vid": "v", "query": "x", "gt": [0, 10]}]')
    monkeypatch.setattr("asking.model.CACHE", tmp_path / "cache")
    monkeypatch.chdir(tmp_path)
    for path in (ROOT / "docs" / "python.md", ROOT / "README.md"):
        (example,) = blocks(path, "python")
        assert len(example.strip().splitlines()) <= 12
        example = example.replace("runs/clip/run", str(watcher)).replace("runs/clip/clip.mp4", str(clip))
        exec(compile(example, str(path), "exec"), {})
    assert "mIoU" in capsys.readouterr().out


def test_the_localizer_of_the_tutorial_reads_what_it_writes():
    localizer, clip = tutorial_localizer().SecondsAsText(), Clip(20.0, 20, 1.0)
    turn = Turn("when?", task="grounding", events=(Event(3.2, 7.9), Event(10.0, 12.5)))
    rendered = localizer.render(turn, clip, Random(0))
    assert rendered.answer == "From 3.2s to 7.9s. From 10.0s to 12.5s."
    found = localizer.decode(Query("q", "v", "grounding", "x"), Answer(rendered.answer), clip)
    assert found.spans == ((3.2, 7.9, 1.0), (10.0, 12.5, 1.0)) and found.rule == "seconds"
    assert localizer.decode(Query("q", "v", "grounding", "x"), Answer("No."), clip).rule is None
