"""Which packages that take seconds to import a command may load to say how it is used, or that a file is not there."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HEAVY = {
    "torch", "torch._dynamo", "lightning", "torchmetrics", "transformers", "peft", "accelerate", "bitsandbytes",
    "wandb", "tensorboard", "scipy", "sklearn", "pandas", "matplotlib", "av", "sentencepiece", "webdataset", "datasets",
}  # fmt: skip
WITH_LIGHTNING = HEAVY - {"peft", "bitsandbytes", "wandb", "tensorboard", "av", "datasets", "sklearn", "pandas"}
"""What Lightning and the signatures of Trainer, stages and data bring; they are where train.py's options stand."""
PROGRAM = """
import gc, runpy, sys
script, *sys.argv[1:] = sys.argv[1:]
sys.argv[0] = script
status = 0
try:
    runpy.run_path(script, run_name="__main__")
except SystemExit as left:
    status = left.code or 0
print("STATUS", status)
print("COLLECTS", gc.isenabled(), gc.get_freeze_count() > 0)
print("LOADED", *sys.modules)
"""


def loaded(*command: str) -> tuple[int, set[str], str]:
    """Exit status of a command, the heavy packages that it imported, and what it said."""
    here = [sys.executable, "-c", PROGRAM, *command]
    done = subprocess.run(here, cwd=ROOT, capture_output=True, text=True, check=True)
    *_, status, _, names = done.stdout.splitlines()
    return int(status.removeprefix("STATUS ")), HEAVY & set(names.split()), done.stdout + done.stderr


@pytest.mark.parametrize(
    "command",
    [
        ["evaluate.py", "--help"],
        ["evaluate.py", "benchmark", "--help"],
        ["evaluate.py", "similarity", "--help"],
        ["evaluate.py", "served", "--help"],
        ["evaluate.py", "dialogue", "--help"],
        ["evaluate.py", "export", "--help"],
        ["evaluate.py", "page", "--help"],
        ["evaluate.py", "report", "--help"],
        ["prepare.py", "--help"],
        ["prepare.py", "features", "--help"],
        ["ask.py", "--help"],
        ["sweep.py", "--help"],
    ],
    ids=" ".join,
)
def test_help_loads_nothing_heavy(command):
    status, heavy, said = loaded(*command)
    assert (status, heavy) == (0, set())
    assert "--help" in said


def test_help_of_training_loads_lightning_and_no_more():
    status, heavy, said = loaded("train.py", "--help")
    assert status == 0
    assert heavy <= WITH_LIGHTNING, heavy - WITH_LIGHTNING
    assert "--trainer.max_steps" in said
    assert "COLLECTS True True" in said  # not while it imports, but from then on


DATA = ["--data.train=[{shards: ., queries: README.md}]"]


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["train.py", "--config", "no.yaml"], "--config no.yaml: there is no such file"),
        (["train.py", "--config=configs/vtimellm/stage2.yaml", "-c", "no.yaml"], "--config no.yaml: there is no such"),
        (["train.py", "--data.train", "[{shards: ., queries: no.jsonl}]"], "data.train names no.jsonl, which is not"),
        (["train.py", "--data.train+=[{shards: nowhere, queries: README.md}]"], "data.train names nowhere, which"),
        (["train.py", *DATA, "--data.val=[{shards: ., queries: no.jsonl}]"], "no.jsonl, which is not there: `prepare"),
        (["train.py", *DATA, "--model.previous=nowhere"], "nowhere holds no trained weights"),
        (["train.py", *DATA, "--model.llm=./no"], "llm './no' is neither a folder"),
        (["evaluate.py", "benchmark", "--checkpoint=no", "--shards=.", "--queries=README.md", "--output=x"],
         "no holds no trained weights"),
        (["evaluate.py", "benchmark", "--checkpoint=.", "--shards=.", "--queries=no.jsonl", "--output=x"],
         "--queries no.jsonl is missing: there is no such file"),
        (["evaluate.py", "similarity", "--shards=no", "--queries=README.md", "--threshold=0", "--output=x"],
         "--shards no is missing"),
        (["evaluate.py", "dialogue", "--predictions=no.jsonl", "--queries=README.md", "--output=x"],
         "--predictions no.jsonl is missing"),
        (["evaluate.py", "served", "--queries=README.md", "--videos=no", "--output=x"], "--videos no is missing"),
        (["ask.py", "--checkpoint=no", "docs/page.png", "a box", "--output=x"], "no holds no trained weights"),
    ],
)  # fmt: skip
def test_a_missing_file_is_refused_before_anything_heavy(command, words):
    status, heavy, said = loaded(*command)
    assert (status, heavy) == (2, set()), said
    assert words in said


def test_files_of_earlier_settings_need_not_be_there(tmp_path, monkeypatch):
    """Only what the last config, and then the command, names is read."""
    from command_line.training_files import check_files

    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.jsonl").touch()
    (tmp_path / "a.yaml").write_text(
        "data: {train: [{shards: gone, queries: gone}], val: [{shards: gone, queries: gone}]}\n"
        "model: {init_args: {previous: gone}}\n"
    )
    sources = (
        "--data.train=[{shards: 's3://bucket/{0..9}.tar', queries: there.jsonl}, {videos: ., queries: there.jsonl}]"
    )
    check_files(["--config=a.yaml", sources, "--data.val", "null", "--model.init_args.previous=null", "--dry_run"])
    with pytest.raises(FileNotFoundError, match="data.val names gone, which is not there"):
        check_files(["--config=a.yaml", sources])
    check_files(["--config=a.yaml", "--print_config"])
    check_files(["--config=a.yaml", "--help"])
    check_files(["--config={data: {batch_size: 2}}", "--data=[", "--output"])
