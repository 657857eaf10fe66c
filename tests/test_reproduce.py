"""The commands of the pages on papers and released weights: every one is taken by its parser, with all its options."""

import functools
import json
import re
import shlex
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import yaml

import evaluate
import prepare
import train
from datamodules.query_files import read_queries, write_queries
from datamodules.schema import Query, Turn
from datamodules.shards import ShardReader
from lightning_modules.training_cli import TrainingCLI
from preparation.features.shard_writer import ShardWriter

ROOT = Path(__file__).parent.parent
RUN = [ROOT / "docs/reproduce" / name for name in ("vtimellm.md", "videoexpert.md")]
"""Pages whose stages are run on the made-up world here; MeCo's are in test_meco.py."""
TABLES = sorted((ROOT / "docs/reproduce").glob("*.md"))
PAGES = [*TABLES, ROOT / "docs/released-weights.md"]


def commands(script: str, pages: list[Path] = PAGES) -> list[list[str]]:
    """The arguments of each ``python script`` in these pages, with variables filled in, loops with one value."""
    found = []
    for page in pages:
        text = "\n".join(re.findall(r"```bash\n(.*?)```", page.read_text(), re.S)).replace("\\\n", " ")
        values = dict(re.findall(r"^for (\w+) in ([^\s;]+)", text, re.M) + re.findall(r'^(\w+)="(.*)"$', text, re.M))
        for name, value in values.items():
            text = text.replace(f"${{{name}}}", value).replace(f"${name}", value)
        found += re.findall(rf"^\s*python {re.escape(script)} (.*)$", text, re.M)
    return list(map(list, dict.fromkeys(tuple(shlex.split(line, comments=True)) for line in found)))


def named(arguments: list[str]) -> str:
    return "-".join(Path(value).stem for value in arguments[:6] if not value.startswith("-"))


@pytest.fixture
def called(monkeypatch) -> list[str]:
    """Names of the commands that would have run."""
    names = []

    def stand_in(name, command):
        @functools.wraps(command)
        def told(*args, **kwargs):
            names.append(name)

        return told

    for name, command in prepare.COMMANDS.items():
        monkeypatch.setitem(prepare.COMMANDS, name, stand_in(name, command))
    for name in evaluate.COMMANDS:
        module = import_module(f"evaluation.{name}")
        monkeypatch.setattr(module, name, stand_in(name, getattr(module, name)))
    return names


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_page_has_commands(page):
    scripts = ("prepare.py", "train.py", "sweep.py", "evaluate.py")
    assert sum(len(commands(script, [page])) for script in scripts) > 2


@pytest.mark.parametrize("arguments", commands("prepare.py"), ids=named)
def test_data_is_prepared(called, arguments):
    assert prepare.main(arguments) == 0
    assert called == [arguments[0]]


@pytest.mark.parametrize("arguments", commands("evaluate.py"), ids=named)
def test_answers_are_scored(called, arguments):
    evaluate.main(arguments)
    assert called == [arguments[0]]


@pytest.mark.parametrize("arguments", commands("train.py", RUN), ids=named)
def test_a_run_is_described(llm, monkeypatch, arguments):
    """The shipped configs and the options of a row, on a tiny base."""
    monkeypatch.chdir(ROOT)
    cli = TrainingCLI([*arguments, f"--model.init_args.llm={llm}", "--trainer.logger=false"])
    assert cli.datamodule.sources["train"]


@pytest.mark.parametrize("arguments", commands("train.py", [ROOT / "docs/reproduce/meco.md"]), ids=named)
def test_a_run_with_a_compressor_is_parsed(monkeypatch, arguments):
    """MeCo's adapter comes from the hub, so that its runs can be read here but not built."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(TrainingCLI, "instantiate_classes", lambda cli: None)
    assert TrainingCLI(arguments).config["data"]["train"]


def test_runs_have_folders_of_their_own():
    outputs = [words[words.index("--output") + 1] for words in commands("train.py") if "--output" in words]
    assert len(outputs) == len(set(outputs)) > 2


@pytest.mark.parametrize("arguments", commands("sweep.py"), ids=named)
def test_sweeps_have_points(arguments):
    parameters = yaml.safe_load((ROOT / arguments[0]).read_text())["parameters"]
    assert max(len(parameter.get("values", ())) for parameter in parameters.values()) > 3


def test_numbers_are_marked_as_the_papers():
    """Every table of scores says whose they are."""
    for page in TABLES:
        tables = re.findall(r"(?:^\|.*\n)+", page.read_text(), re.M)
        scores = [table for table in tables if re.search(r"\| \d+\.\d+ \|", table)]
        assert scores and all("not run here" in table for table in scores), page.name


STEP = ["--model.init_args.feature_width=8", "--model.init_args.dtype=float32", "--trainer.precision=32-true"]
STEP += ["--trainer.max_steps=1", "--trainer.accelerator=cpu", "--data.num_workers=0", "--trainer.logger=false"]
STEP += ["--data.val=[]", "--data.global_batch_size=4", "--data.batch_size=4", "--checkpoint.monitor=null"]
QUICK = ["--generation.max_new_tokens=4", "--num_workers=0"]


def add_spatial(source: Path, folder: Path) -> None:
    """The same videos with made-up S-tokens, 4x64."""
    reader, random = ShardReader(source), np.random.default_rng(0)
    header = replace(reader.header, spatial="4x64", spatial_count=256, spatial_source="made up")
    with ShardWriter(folder, header) as writer:
        for video in map(reader.read, reader.ids):
            writer.add(replace(video, spatial=random.random((256, 8)).astype(np.float16)))


def asked(world: Path) -> dict[str, list[Query]]:
    """Questions of every kind about the made-up test videos, by what the pages call their files."""
    moments = list(read_queries(world / "test" / "grounding.jsonl"))[:4]
    events = list(read_queries(world / "test" / "dense_captioning.jsonl"))[:4]
    choices = [replace(query, task="grounded_qa", options=("a robot", "a cat"), answer=0) for query in moments]
    turns = (Turn("What is this?", "A red robot."),)
    talk = [Query(f"t{k}", query.video, "dialogue", turns=turns) for k, query in enumerate(moments)]
    talk = {f"video_chatgpt/{part}": talk for part in ("generic", "temporal", "consistency")}
    data = {"activitynet/val_2": moments + events, "youcook2/val": events, "nextgqa/test": choices}
    return data | talk | {"charades_sta/test": moments, "qvhighlights/val": moments}


@pytest.fixture
def place(world, tmp_path, monkeypatch) -> Path:
    """A folder with the shipped configs, and with made-up data where the pages have theirs."""
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    add_spatial(world / "videos", tmp_path / "videos")
    for page in RUN:
        for name, file in re.findall(r"data/(\w+)/(shards|val_shards|\w+(?=\.jsonl))", page.read_text()):
            (tmp_path / "data" / name).mkdir(parents=True, exist_ok=True)
            images, path = name in ("lcs558k", "webvid"), tmp_path / "data" / name / file
            shards, queries = ("images", "stage1") if images else ("videos", "stage2")
            if "shards" not in file:
                path.with_suffix(".jsonl").unlink(missing_ok=True)
                path.with_suffix(".jsonl").symlink_to(world / f"{queries}.jsonl")
            elif not path.exists():
                path.symlink_to(world / shards if images else tmp_path / shards)
    for name, queries in asked(world).items():
        path = tmp_path / "data" / f"{name}.jsonl"
        path.unlink(missing_ok=True)
        path.parent.mkdir(exist_ok=True)
        write_queries(path, queries)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_the_pages_run(place, llm):
    """Every stage and row for one step, every evaluation of what came out of it, on the made-up world."""
    for arguments in commands("train.py", RUN):
        train.main([*arguments, f"--model.init_args.llm={llm}", *STEP])
    for name, *options in commands("evaluate.py", RUN):
        if name not in ("benchmark", "dialogue"):
            continue  # published annotations
        options = [option for option in options if option not in ("--judge.model", "gpt-3.5-turbo")]
        evaluate.main([name, *options, *(QUICK if name == "benchmark" else ())])
        metrics = json.loads((place / options[options.index("--output") + 1] / "metrics.json").read_text())
        assert metrics["metrics"]
