"""The corpus and broken arguments through the commands that people type: one line, status 2, and nothing was loaded."""

import json

import pytest
from corpus import FOLDERS, GROUNDING, INDICES, LINES, shards, weights
from lightning.pytorch.utilities.exceptions import MisconfigurationException

import evaluate
import train
from command_line.errors import failed

FEW = {"lines": LINES[::7], "indices": list(INDICES)[::8], "folders": list(FOLDERS)[::7]}
"""What goes through all commands; the readers beneath them meet every row."""


def refusal(main, program: str, args: list[str], capsys) -> str:
    """The line in which a command ends, as it is started by people."""
    capsys.readouterr()
    try:
        main([*map(str, args)])
    except SystemExit as end:
        assert end.code == 2
    except Exception as error:  # noqa: BLE001 (as the script does)
        assert failed(program, error, (MisconfigurationException,)) == 2
    else:
        raise AssertionError("it went on")
    said = capsys.readouterr().err
    assert "Traceback" not in said and "traceback in" not in said
    return said.splitlines()[-1] if said.startswith("usage") else said


@pytest.fixture
def no_model(monkeypatch):
    """Nothing of a language model is loaded."""

    def load(*args, **settings):
        raise AssertionError("a model was loaded before its input was checked")

    monkeypatch.setattr("models.checkpoints.load_llm", load)
    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", load)


@pytest.fixture
def queries(tmp_path):
    path = tmp_path / "queries.jsonl"
    path.write_text(f"{json.dumps(GROUNDING)}\n")
    return path


@pytest.fixture
def videos(tmp_path):
    return shards(tmp_path / "shards")


@pytest.mark.parametrize("case", FEW["lines"], ids=lambda case: case.name)
def test_broken_lines(case, world, arguments, runs, tmp_path, no_model, capsys):
    path = tmp_path / "queries.jsonl"
    good = (world / "test" / "grounding.jsonl").read_text().splitlines()[0]
    path.write_text(f"{good}\n{case.text}\n", encoding="utf-8", errors="surrogatepass")
    source = f"--data.train=[{{shards: {world / 'videos'}, queries: {path}}}]"
    said = refusal(train.main, "train.py", [*arguments(2, tmp_path / "run", previous=runs[1]), source], capsys)
    assert f"{path}, line 2" in said
    asked = [
        f"--checkpoint={runs[3]}",
        f"--shards={world / 'videos'}",
        f"--queries={path}",
        f"--output={tmp_path / 'out'}",
    ]
    assert f"{path}, line 2" in refusal(evaluate.main, "evaluate.py", ["benchmark", *asked], capsys)
    served = ["served", f"--queries={path}", f"--videos={tmp_path}", f"--output={tmp_path / 'served'}"]
    served += ["--url=http://127.0.0.1:9/v1", "--model=x"]
    assert f"{path}, line 2" in refusal(evaluate.main, "evaluate.py", served, capsys)
    page = ["page", f"--predictions={path}", f"--queries={path}", f"--output={tmp_path / 'page.html'}"]
    assert str(path) in refusal(evaluate.main, "evaluate.py", page, capsys)
    about = json.loads(good)
    answer = {"query_id": about["id"], "video": about["video"], "task": "grounding", "answer": "x", "spans": []}
    (tmp_path / "answers.jsonl").write_text(json.dumps(answer) + "\n")
    scored = ["score", "--benchmark=queries", f"--predictions={tmp_path / 'answers.jsonl'}", f"--annotations={path}"]
    assert f"{path}, line 2" in refusal(evaluate.main, "evaluate.py", scored, capsys)


@pytest.mark.parametrize("name", FEW["indices"])
def test_broken_indices(name, videos, queries, arguments, runs, tmp_path, no_model, capsys):
    INDICES[name](videos)
    source = f"--data.train=[{{shards: {videos}, queries: {queries}}}]"
    assert str(videos) in refusal(
        train.main, "train.py", [*arguments(2, tmp_path / "run", previous=runs[1]), source], capsys
    )
    asked = [f"--checkpoint={runs[3]}", f"--shards={videos}", f"--queries={queries}", f"--output={tmp_path / 'out'}"]
    assert str(videos) in refusal(evaluate.main, "evaluate.py", ["benchmark", *asked], capsys)


@pytest.mark.parametrize("name", FEW["folders"])
def test_broken_weights(name, videos, queries, arguments, tmp_path, no_model, capsys):
    run = tmp_path / "before"
    folder = weights(run / "model")
    FOLDERS[name][0](folder)
    args = arguments(2, tmp_path / "run", previous=run)
    assert str(folder) in refusal(train.main, "train.py", args, capsys)
    asked = [f"--checkpoint={run}", f"--shards={videos}", f"--queries={queries}", f"--output={tmp_path / 'o'}"]
    assert str(folder) in refusal(evaluate.main, "evaluate.py", ["benchmark", *asked], capsys)


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("--devices=0", "devices"),
        ("--devices=-1", "devices"),
        ("--batch_size=-1", "batch_size"),
        ("--batch_size=0", "batch_size"),
        ("--num_workers=-1", "num_workers"),
        ("--dtype=float99", "dtype 'float99'"),
        ("--generation.temperature=-1", "temperature"),
        ("--generation.temperature=.nan", "temperature"),
        ("--generation.max_new_tokens=0", "max_new_tokens"),
        ("--frames=upside_down", "frames"),
        ("--on_error=ignore", "on_error"),
        ("--localizer.nothing=1", "nothing"),
        ("--localizer=3", "localizer"),
        ("--quantization=int3", "quantization"),
        ("--llm=/nowhere", "/nowhere"),
        ("--checkpoint=/nowhere", "/nowhere"),
        ("--queries=/nowhere", "/nowhere"),
        ("--shards=/nowhere", "/nowhere"),
    ],
)
def test_broken_arguments_of_an_evaluation(argument, words, runs, world, tmp_path, no_model, capsys):
    args = [f"--checkpoint={runs[3]}", f"--shards={world / 'videos'}", f"--queries={world / 'test/grounding.jsonl'}"]
    said = refusal(evaluate.main, "evaluate.py", ["benchmark", *args, f"--output={tmp_path / 'out'}", argument], capsys)
    assert words in said
    assert not (tmp_path / "out" / "metrics.json").exists()


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("--output=", "--output is empty"),
        ("--trainer.max_steps=0", "trainer.max_steps is 0"),
        ("--trainer.max_epochs=0", "trainer.max_epochs is 0"),
        ("--trainer.limit_train_batches=0", "trainer.limit_train_batches is 0"),
        ("--trainer.gradient_clip_val=-1", "trainer.gradient_clip_val must be"),
        ("--trainer.gradient_clip_val=.nan", "trainer.gradient_clip_val must be"),
        ("--trainer.gradient_clip_val=.inf", "trainer.gradient_clip_val must be"),
        ("--trainer.devices=0", "devices"),
        ("--trainer.precision=17", "precision"),
        ("--model.optimization.lr=.nan", "lr must be a finite number"),
        ("--model.lora={r: 0}", "r"),
        ("--data.batch_size=-1", "batch_size"),
        ("--data.num_workers=-1", "num_workers"),
        ("--model.llm=/nowhere", "/nowhere"),
        ("--model.previous=/nowhere", "/nowhere"),
    ],
)
def test_broken_arguments_of_a_training(argument, words, arguments, runs, tmp_path, no_model, capsys):
    said = refusal(train.main, "train.py", [*arguments(2, tmp_path / "run", previous=runs[1]), argument], capsys)
    assert words in said
    assert not (tmp_path / "run" / "model").exists()
