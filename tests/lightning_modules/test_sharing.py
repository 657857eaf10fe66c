"""Queries about one video share it, as many as suit a step, unless a config or the run of before says otherwise."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from transformers import AutoConfig

import train
from lightning_modules.sharing import can_share, queries_together, settle_sharing
from localizers import SentenceMatching, TextTimestamps


@pytest.mark.parametrize(
    ("dialogues", "together"), [(1, 1), (7, 1), (8, 2), (16, 4), (31, 7), (32, 8), (128, 8), (4096, 8)]
)
def test_a_step_is_about_four_videos_at_least(dialogues, together):
    assert queries_together(dialogues) == together


def made(folder: Path, family: str = "llama", localizer=None, questions=None, shares: bool = True):
    """What is asked of a module before its language model is loaded."""
    more = {"attention_types": [[["global", "local"], 1]], "num_layers": 2} if family == "gpt_neo" else {}
    AutoConfig.for_model(family, **more).save_pretrained(folder)
    splicer = SimpleNamespace(question_tokenizer=questions)
    dialogue = SimpleNamespace(splicer=splicer, shares=shares)
    return SimpleNamespace(localizer=localizer or TextTimestamps(), dialogue=dialogue, llm_name=str(folder))


def test_what_cannot_share_does_not(tmp_path):
    """Attention that follows no pattern, adapters that read the question, systems without a language model, and queries
    that have two answers already.
    """
    assert can_share(made(tmp_path))
    assert not can_share(made(tmp_path, "gpt_neo"))
    assert not can_share(made(tmp_path, questions=object()))
    assert not can_share(made(tmp_path, shares=False))
    assert not can_share(made(tmp_path, localizer=SentenceMatching()))
    data = SimpleNamespace()
    assert settle_sharing(None, made(tmp_path, "gpt_neo"), data, 128, None) == data.queries_per_video == 1


def test_a_config_comes_first_and_then_the_run_of_before(tmp_path):
    module, data = made(tmp_path), SimpleNamespace()
    before = {"run": {"settings": {"data": {"queries_per_video": 3}}}}
    assert settle_sharing(5, module, data, 128, before) == data.queries_per_video == 5
    assert settle_sharing(None, module, data, 128, before) == data.queries_per_video == 3
    assert settle_sharing(None, module, data, 128, {}) == data.queries_per_video == 1  # older than the setting
    assert settle_sharing(None, module, data, 128, None) == data.queries_per_video == 8


def test_a_run_keeps_its_number_when_it_goes_on(arguments, runs, tmp_path):
    """Also one of before, which had another default, and where a step has more dialogues now."""
    run = tmp_path / "run"
    more = ["--data.global_batch_size=8", "--data.batch_size=4", "--checkpoint.every_n_train_steps=1"]
    train.main([*arguments(2, run, previous=runs[1], max_steps=1), *more])
    assert yaml.safe_load((run / "config.yaml").read_text())["data"]["queries_per_video"] == 2
    kept = run / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(kept, weights_only=True)
    assert checkpoint["run"]["settings"]["data"]["queries_per_video"] == 2
    checkpoint["run"]["settings"]["data"]["queries_per_video"] = 1
    torch.save(checkpoint, kept)
    train.main([*arguments(2, run, previous=runs[1], max_steps=2), *more, "--resume=true", "--resume_changed=true"])
    assert yaml.safe_load((run / "config.yaml").read_text())["data"]["queries_per_video"] == 1
    assert torch.load(kept, weights_only=True)["global_step"] == 2
