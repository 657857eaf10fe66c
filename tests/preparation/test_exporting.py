"""Exported runs load as they were, name what others can load, and go to a hub only where that was asked."""

import json
from types import SimpleNamespace

import pytest
import torch
from peft import PeftModel

import prepare
from datamodules.query_files import read_queries
from evaluation.benchmark import benchmark
from lightning_modules.answering import Generation
from models.checkpoints import load_llm, read_weights


def flat(weights) -> dict[str, torch.Tensor]:
    loras = {f"lora{number}": lora.tensors for number, lora in enumerate(weights.loras)}
    parts = {"adapter": weights.adapter, "head": weights.head, **loras}
    return {f"{part}.{name}": tensor for part, tensors in parts.items() for name, tensor in tensors.items()}


def test_what_was_exported_answers_as_the_run_does(runs, world, llm, tmp_path):
    known = {"shards": str(world / "videos"), "queries": world / "test" / "grounding.jsonl", "num_workers": 0}
    short = Generation(max_new_tokens=8)
    benchmark(runs[3], output=tmp_path / "run", generation=short, **known)
    told = [f"--results=[{tmp_path / 'run'}]", "--base=lmsys/vicuna-7b-v1.5"]
    assert prepare.main(["export", f"--checkpoint={runs[3]}", f"--to={tmp_path / 'out'}", *told]) == 0
    mine, theirs = flat(read_weights(tmp_path / "out")), flat(read_weights(runs[3]))
    assert mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in theirs)
    benchmark(tmp_path / "out", output=tmp_path / "exported", generation=short, llm=llm, **known)
    answers = [(tmp_path / name / "predictions.jsonl").read_bytes() for name in ("run", "exported")]
    assert answers[0] == answers[1] and len(answers[0].splitlines()) == len(
        list(read_queries(world / "test" / "grounding.jsonl"))
    )
    assert PeftModel.from_pretrained(load_llm(llm, torch.float32), tmp_path / "out" / "lora-1").peft_config
    settings = json.loads((tmp_path / "out" / "lora-1" / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == "lmsys/vicuna-7b-v1.5"
    card = (tmp_path / "out" / "README.md").read_text()
    assert "base_model: lmsys/vicuna-7b-v1.5" in card and "run:\n\n| metric" in card and "* setting: " in card
    assert str(tmp_path) not in card
    suffixes = {path.suffix for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert suffixes == {".json", ".md", ".safetensors"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--checkpoint={run}", "--to={full}"], "is not empty"),
        (["--checkpoint={full}", "--to={new}"], "holds no trained weights"),
        (["--checkpoint={run}", "--to={new}", "--results=[{full}]"], "holds no metrics.json"),
        (["--checkpoint={run}", "--to={new}", "--push=me/it"], "a folder of this machine; give its name on the hub"),
    ],
)
def test_what_cannot_be_exported_is_said_in_a_line(runs, tmp_path, words, message, capsys, monkeypatch):
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: pytest.fail("the hub was asked"))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("x")
    places = {"run": runs[3], "full": tmp_path / "full", "new": tmp_path / "new"}
    assert prepare.main(["export", *(word.format(**places) for word in words)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("prepare.py: error: ") and message in line
    assert not (tmp_path / "new").exists()


def test_the_hub_gets_the_folder_where_that_was_asked(runs, tmp_path, monkeypatch, capsys):
    class Hub:
        asked: list = []

        def create_repo(self, name, **settings):
            self.asked.append((name, settings))
            return SimpleNamespace(repo_id=name, __str__=lambda self: name)

        def upload_folder(self, repo_id, folder_path, **settings):
            self.asked.append((repo_id, sorted(path.name for path in folder_path.iterdir())))

    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    known = [f"--checkpoint={runs[2]}", f"--to={tmp_path / 'out'}", "--base=a/base", "--encoder=a/clip", "--push=me/it"]
    assert prepare.main(["export", *known]) == 0
    made, uploaded = Hub.asked
    assert made == ("me/it", {"private": True, "exist_ok": True})
    assert {"README.md", "manifest.json", "adapter.safetensors", "lora-1"} <= set(uploaded[1])
    assert "Uploaded: " in capsys.readouterr().out


def test_a_checkpoint_can_be_exported(runs, tmp_path):
    (last,) = (runs[2] / "checkpoints").glob("last.ckpt")
    assert prepare.main(["export", f"--checkpoint={last}", f"--to={tmp_path / 'out'}"]) == 0
    mine, theirs = flat(read_weights(tmp_path / "out")), flat(read_weights(runs[2]))
    assert mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in theirs)
    assert "| train |" in (tmp_path / "out" / "README.md").read_text()
