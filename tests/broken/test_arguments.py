"""Arguments and configs that are broken end before anything is loaded, in a line that names them."""

import pickle
import time
from pathlib import Path

import pytest
import torch

from datamodules.streaming import said_after, stream
from datamodules.temporal import TemporalDataModule
from evaluation.protocol import check_trained_on
from lightning_modules.answering import Generation, GenerationChange
from lightning_modules.boundary_perception import LoraSettings
from lightning_modules.optimization import Optimization
from lightning_modules.run_config import query_files
from localizers.text_timestamps import TextTimestamps
from models.checkpoints import compute_type, load_llm
from preparation.captioning.jobs import read_dialogue
from preparation.captioning.quality import Malformed

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: compute_type("float99"), "dtype 'float99' is none to compute in; known: float32"),
        (lambda: compute_type("nn"), "dtype 'nn'"),
        (lambda: compute_type("int8"), "dtype 'int8'"),
        (lambda: Generation(temperature=-1), "temperature must be 0"),
        (lambda: Generation(temperature=NAN), "temperature must be 0"),
        (lambda: Generation(temperature=INF), "temperature must be 0"),
        (lambda: GenerationChange(temperature=-0.5).of(Generation()), "temperature must be 0"),
        (lambda: Generation(max_new_tokens=0), "max_new_tokens must be"),
        (lambda: GenerationChange(max_new_tokens=-3).of(Generation()), "max_new_tokens must be"),
        (lambda: Optimization(lr=NAN), "lr must be a finite number"),
        (lambda: Optimization(lr=-1), "lr must be"),
        (lambda: Optimization(head_lr=INF), "head_lr must be"),
        (lambda: Optimization(weight_decay=-1), "weight_decay must be"),
        (lambda: Optimization(warmup_ratio=2), "warmup_ratio must be between 0 and 1"),
        (lambda: Optimization(betas=(0.9, 1.0)), "betas in"),
        (lambda: Optimization(eps=0), "eps must be positive"),
        (lambda: LoraSettings(r=0), "lora needs r of 1 or more"),
        (lambda: LoraSettings(alpha=NAN), "a positive alpha"),
        (lambda: LoraSettings(dropout=1.0), "dropout in"),
        (lambda: TemporalDataModule(None, batch_size=0), "data.batch_size must be 1 or more, got 0"),
        (lambda: TemporalDataModule(None, batch_size=-1), "data.batch_size must be 1 or more, got -1"),
        (lambda: TemporalDataModule(None, eval_batch_size=0), "data.eval_batch_size must be 1 or more"),
        (lambda: TemporalDataModule(None, queries_per_video=-2), "data.queries_per_video must be 1 or more"),
        (lambda: TemporalDataModule(None, global_batch_size=0), "data.global_batch_size must be 1 or more"),
        (lambda: TemporalDataModule(None, num_workers=-1), "data.num_workers must be 0 or more"),
    ],
)
def test_settings_that_cannot_be_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


GOOD = "data:\n  train:\n  - queries: q.jsonl\nmodel:\n  init_args:\n    previous: null\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "expected keys and values, found NoneType"),
        ("- a\n- b\n", "expected keys and values, found list"),
        ("a", "found str"),
        ("{", "no YAML"),
        ("a: [" * 2000, "no YAML"),
        ("data: !!python/object/apply:os.system ['touch owned']\n", "no YAML"),
        ("data: 3\nmodel: {init_args: {}}\n", "data must be an object"),
        ("data: {}\nmodel: {init_args: {}}\n", "data: key 'train' is missing"),
        ("data: {train: null}\nmodel: {init_args: {}}\n", "data.train must be a list"),
        ("data: {train: [{shards: x}]}\nmodel: {init_args: {}}\n", "data.train.0: key 'queries' is missing"),
        ("data: {train: []}\nmodel: null\n", "model must be an object"),
        (GOOD.replace("null", "3"), "model.init_args.previous must be text"),
        (GOOD.replace("null", "RUN"), "previous leads back to this run"),
    ],
)
def test_a_broken_config_of_a_run_is_refused_before_anything_is_asked(text, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(text.replace("RUN", str(tmp_path / "run")))
    with pytest.raises(ValueError, match=words) as error:
        check_trained_on(tmp_path / "run")
    assert str(tmp_path / "run" / "config.yaml") in str(error.value)
    assert not (tmp_path / "owned").exists()


def test_a_run_without_a_config_may_be_asked(tmp_path):
    check_trained_on(tmp_path)
    with pytest.raises(OSError, match="config.yaml"):
        query_files(tmp_path)


def test_the_files_of_all_stages_are_found(tmp_path):
    for name, previous in (("one", "null"), ("two", str(tmp_path / "one"))):
        (tmp_path / name).mkdir()
        text = GOOD.replace("null", previous).replace("q.jsonl", f"{name}.jsonl")
        (tmp_path / name / "config.yaml").write_text(text)
    assert [path.name for path in query_files(tmp_path / "two")] == ["two.jsonl", "one.jsonl"]


class Evil:
    """Writes a file where it is unpickled."""

    def __reduce__(self):
        return open, ("owned", "w")


@pytest.mark.parametrize("kind", ["pickle", "torch", "empty", "html"])
def test_a_base_whose_pickle_is_not_plain_weights_is_refused(kind, llm, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    base = tmp_path / "base"
    base.mkdir()
    (base / "config.json").write_text((Path(llm) / "config.json").read_text())
    file = base / "pytorch_model.bin"
    if kind == "torch":
        torch.save({"x": Evil()}, file)
    else:
        file.write_bytes({"pickle": pickle.dumps({"x": Evil()}), "empty": b"", "html": b"<html>"}[kind])
    with pytest.raises(ValueError, match="llm '.*base' ") as error:
        load_llm(str(base), torch.float32)
    assert "weights_only" not in str(error.value)
    assert not (tmp_path / "owned").exists()


ODD = ("[" * 100_000 + "]", "[" * 3000 + "]" * 3000, '[{"event": 5, "timestamps": "from 01 to 02"}]', "[1, null]")


@pytest.mark.parametrize("answer", ODD, ids=range(4))
def test_answers_in_deep_or_odd_json_are_read_as_nothing(answer):
    assert TextTimestamps.read_events(answer) == (None, [])
    with pytest.raises(Malformed):
        read_dialogue(answer, ())


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("s3://bucket/x.tar", "shards at s3:// cannot be opened"),
        ("gs://bucket/x-{000..003}.tar", "opened with gsutil, which is not installed"),
        ("PIPE:touch owned", "runs a shell command"),
        (" pipe:touch owned", "runs a shell command"),
        ("nothing://x.tar", "cannot be opened"),
    ],
)
def test_shards_that_nothing_here_opens_are_refused_at_once(url, words, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda program: None)
    with pytest.raises(ValueError, match=words):
        stream(url)


def test_a_server_that_is_silent_is_said_to_be(capsys):
    with said_after(0.01, "x: no byte"):
        time.sleep(0.3)
    assert capsys.readouterr().out == "x: no byte\n"
    with said_after(10, "y"):
        pass
    assert not capsys.readouterr().out
