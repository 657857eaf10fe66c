"""What docs and README show can be done: commands parse, links and anchors lead somewhere, examples run."""

import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest
import tutorial
import yaml

import ask
import evaluate
import prepare
import sweep
import train
from command_line.parser import CommandParser
from lightning_modules.training_cli import TrainingCLI
from models.checkpoints import read_weights

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


@pytest.fixture(scope="module")
def made():
    """The tutorial's localizer, where a command line finds it."""
    return tutorial.module()


@pytest.mark.parametrize("command", SHOWN)
def test_commands_parse(command, made, monkeypatch, capsys):
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


def test_the_localizer_of_the_tutorial_trains_by_its_config_and_answers(made, runs, arguments, world, tmp_path):
    """On another base: its own part learns, and a test question gets a span with a score."""
    config = yaml.safe_load(tutorial.block("yaml"))
    localizer = config["model"]["init_args"]["localizer"]["class_path"]
    assert localizer == f"{made.__name__}.{made.FramePointers.__name__}"
    train.main([*arguments(2, tmp_path / "run", f"--model.localizer={localizer}", previous=runs[1], max_steps=2)])
    asked = [f"--shards={world / 'videos'}", f"--queries={world / 'test/grounding.jsonl'}", "--num_workers=0"]
    evaluate.main(
        ["benchmark", f"--checkpoint={tmp_path / 'run'}", f"--output={tmp_path / 'out'}", *asked,
         "--generation.max_new_tokens=8"]
    )  # fmt: skip
    assert (tmp_path / "out" / "predictions.jsonl").is_file()
    assert read_weights(tmp_path / "run").head


def test_what_the_tutorial_says_of_its_size_is_so(made):
    lines, config = len(tutorial.block("python").splitlines()), len(tutorial.block("yaml").splitlines())
    page = tutorial.PAGE.read_text(encoding="utf-8")
    assert f"{lines} lines of code, {config} of a config" in page.replace("\n", " ")
    assert f"frame_pointers.py           | {lines} +" in page and f"{lines + config + 1} insertions" in page
