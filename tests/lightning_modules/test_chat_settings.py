"""The conversation format of a run: by name, written into the config, or refused before a language model is loaded."""

import json

import pytest

import train
from datamodules.chat_formats import ChatFormat
from lightning_modules import video_language
from lightning_modules.trained import TrainedModel


def test_a_format_that_a_config_writes_out_is_trained_with_and_kept(arguments, runs, tmp_path):
    written = "{system: 'Watch. ', user: 'Question: ', assistant: ' Answer:', before_answer: ' ', end: </s>}"
    train.main(arguments(2, tmp_path / "run", f"--model.chat={written}", previous=runs[1], max_steps=1))
    kept = json.loads((tmp_path / "run" / "model" / "manifest.json").read_text())
    assert kept["chat"]["user"] == "Question: "
    chat = TrainedModel.from_run(tmp_path / "run", dtype="float32").dialogue.encoder.chat
    assert chat == ChatFormat("Watch. ", "Question: ", " Answer:", " ", end="</s>")


@pytest.mark.parametrize(
    ("chat", "reason"),
    [
        ("phi3", r"'phi3' \(end token '<\|end\|>'\) does not fit .*: its vocabulary has no special token <\|end\|>"),
        ("template", "has no chat template"),
        ("gemma", "unknown chat format 'gemma'; known: vicuna_v1, .*, chatml, template"),
        ("bare", "'bare' has no end token, so no answer would ever end"),
    ],
)
def test_a_format_that_does_not_fit_is_refused_before_the_model_is_loaded(
    chat, reason, arguments, runs, tmp_path, monkeypatch
):
    monkeypatch.setattr(video_language, "load_llm", None)
    with pytest.raises(ValueError, match=reason):
        train.main(arguments(2, tmp_path / "run", f"--model.chat={chat}", previous=runs[1]))
