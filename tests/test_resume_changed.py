"""A run goes on as what it is: other settings are free, taken where that is asked for, or refused by name."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

import train
from lightning_modules.training_cli import TrainingCLI
from lightning_modules.video_language import VideoLanguageModule

STEPS = 3
"""Of five that an epoch has."""


@pytest.fixture(scope="module")
def middle(arguments, runs, tmp_path_factory) -> Path:
    """The same, cut behind its third step as a kill would."""
    folder = tmp_path_factory.mktemp("middle") / "run"
    args = arguments(2, folder, previous=runs[1], max_steps=-1)
    cli = TrainingCLI([*args, "--trainer.max_epochs=2", "--checkpoint.every_n_train_steps=1"])
    save = cli.trainer.strategy.checkpoint_io.save_checkpoint

    def copy(checkpoint, path, storage_options=None):
        save(checkpoint, path, storage_options)
        if checkpoint["global_step"] == STEPS and Path(path).name == "last.ckpt":
            shutil.copy(path, folder / "kept")

    cli.trainer.strategy.checkpoint_io.save_checkpoint = copy
    cli.fit()
    cli.lock.release()
    shutil.rmtree(folder / "checkpoints")
    (folder / "checkpoints").mkdir()
    (folder / "kept").rename(folder / "checkpoints" / "last.ckpt")
    return folder


@pytest.fixture
def resumed(middle, arguments, runs, tmp_path):
    """Goes on with a copy of that run; gives its last checkpoint, or raises what train.py raises."""

    def go(*more: str, previous: Path = runs[1], stage: int = 2) -> dict:
        shutil.copytree(middle, tmp_path / "run")
        args = arguments(stage, tmp_path / "run", previous=previous, max_steps=-1)
        args += ["--trainer.max_epochs=2", "--checkpoint.every_n_train_steps=1", "--resume=true", *more]
        train.main(args)
        return torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)

    return go


def first_of(world, tmp_path, count: int) -> Path:
    lines = (world / "stage2.jsonl").read_text().splitlines()
    (tmp_path / "other.jsonl").write_text("\n".join(lines[:count]) + "\n")
    return tmp_path / "other.jsonl"


TAKEN = {
    "data.batch_size": ["--data.batch_size=2"],
    "accumulation": ["--trainer.accumulate_grad_batches=2"],
    "lr": ["--model.optimization.lr=1e-3"],
    "other_lr": ["--model.optimization.other_lr=1e-3"],
    "weight_decay": ["--model.optimization.weight_decay=0.1"],
    "betas": ["--model.optimization.betas=[0.8, 0.9]"],
    "warmup": ["--model.optimization.warmup_ratio=0.5"],
    "max_epochs": ["--trainer.max_epochs=4"],
    "max_steps": ["--trainer.max_steps=4"],
    "clipping": ["--trainer.gradient_clip_val=0.1"],
    "dropout": ["--model.lora.dropout=0.0"],
    "max_text_tokens": ["--model.max_text_tokens=1000"],
    "on_error": ["--data.on_error=skip"],
}
FIXED = {
    "seed": ["--seed_everything=1"],
    "alpha": ["--model.lora.alpha=9"],
    "rank": ["--model.lora.r=2"],
    "ticks": ["--model.localizer.ticks=50"],
    "style": ["--model.style=meco"],
    "chat": ["--model.chat=vicuna_videoexpert"],
    "adapter": ["--model.tune_adapter=true"],
    "dtype": ["--model.dtype=bfloat16"],
    "sharing": ["--data.queries_per_video=2"],
    "localizer": ["--model.localizer=StructuralTokens"],
}


@pytest.mark.parametrize("change", [*TAKEN, *FIXED])
def test_no_change_is_taken_in_silence(resumed, change):
    with pytest.raises(ValueError, match=r"last\.ckpt is of a run with other settings") as told:
        resumed(*(TAKEN | FIXED)[change])
    assert ("never taken: " if change in FIXED else "taken with --resume_changed true: ") in str(told.value)
    assert "->" in str(told.value)


@pytest.mark.parametrize("change", FIXED)
def test_what_means_nothing_is_refused_in_any_case(resumed, change):
    with pytest.raises(ValueError, match="never taken"):
        resumed(*FIXED[change], "--resume_changed=true")


def test_other_data_is_refused_and_the_same_under_another_name_is_not(resumed, world, tmp_path, capsys):
    def source(path: Path, more: str = "") -> str:
        return f"--data.train=[{{shards: {world / 'videos'}, queries: {path}{more}}}]"

    for path, more in ((first_of(world, tmp_path, 10), ""), (world / "stage2.jsonl", ", weight: 2")):
        with pytest.raises(ValueError, match="taken with --resume_changed true: data.train .*drawn anew"):
            resumed(source(path, more))
        shutil.rmtree(tmp_path / "run")
    (tmp_path / "copy.jsonl").write_bytes((world / "stage2.jsonl").read_bytes())
    assert resumed(source(tmp_path / "copy.jsonl"))["global_step"] == 10


def test_another_stage_before_is_refused(resumed, arguments, tmp_path, runs):
    train.main(arguments(1, tmp_path / "stage1", "--seed_everything=5"))
    with pytest.raises(ValueError, match="never taken: weights of model.previous"):
        resumed(previous=tmp_path / "stage1")
    shutil.rmtree(tmp_path / "run")
    shutil.copytree(runs[1], tmp_path / "moved")
    assert resumed(previous=tmp_path / "moved")["global_step"] == 10


def test_every_number_of_the_base_counts(arguments, llm, tmp_path):
    """Scaled by 1.5 all signs are the same."""
    shutil.copytree(llm, tmp_path / "llm")
    model = AutoModelForCausalLM.from_pretrained(llm)
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight.mul_(1.5)
    model.save_pretrained(tmp_path / "llm")
    train.main(arguments(1, tmp_path / "run", max_steps=2))
    with pytest.raises(ValueError, match="the checkpoint was trained on the base model .*give the same llm"):
        train.main(arguments(1, tmp_path / "run", "--resume=true", f"--model.llm={tmp_path / 'llm'}", max_steps=2))


def test_what_changes_nothing_is_taken_with_a_line(resumed, capsys):
    assert resumed("--data.num_workers=1", "--trainer.log_every_n_steps=3")["global_step"] == 10
    assert "trainer.log_every_n_steps None -> 3, data.num_workers 0 -> 1" in (capsys.readouterr().out)


def test_the_same_step_in_other_batches_goes_on_at_its_sample(resumed, monkeypatch, capsys):
    """Four dialogues a step as 4 or as 2 x 2: the other two steps of the epoch learn from what is left of it."""
    seen = watch(monkeypatch)
    last = resumed("--data.batch_size=2", "--trainer.accumulate_grad_batches=2")
    assert last["global_step"] == 10
    assert [len(batch) for batch in seen] == [2] * 14
    assert_a_whole_epoch(seen[:4], seen[4:])
    assert (
        "what a step learns from: 4 dialogues a step = 4 (data.batch_size) x 1 process x 1 accumulated -> 4"
        in capsys.readouterr().out
    )


def test_another_step_begins_at_the_very_sample(resumed, monkeypatch, capsys):
    """Twelve samples are done; the next multiple of five is 15, so the first batch has three."""
    seen = watch(monkeypatch)
    last = resumed("--data.batch_size=5", "--resume_changed=true")
    assert [len(batch) for batch in seen] == [3, 5, 5, 5, 5, 5]
    assert_a_whole_epoch(seen[:2], seen[2:])
    assert last["global_step"] == STEPS + 6
    assert "goes on at the sample where it was" in capsys.readouterr().out


def watch(monkeypatch) -> list[list[str]]:
    """The queries of each batch that is trained on."""
    seen, step = [], VideoLanguageModule.training_step

    def training_step(self, batch):
        seen.append([query.id for query in batch.queries])
        return step(self, batch)

    monkeypatch.setattr(VideoLanguageModule, "training_step", training_step)
    return seen


def assert_a_whole_epoch(rest: list, epoch: list) -> None:
    """What is left of the first epoch are eight others, and the second epoch has every query once."""
    rest, epoch = [query for batch in rest for query in batch], [query for batch in epoch for query in batch]
    assert len(set(rest)) == len(rest) == 8
    assert len(set(epoch)) == len(epoch) == 20


def test_another_rate_decay_and_length_hold_from_here_on(resumed, capsys):
    change = ["--model.optimization.lr=1e-3", "--model.optimization.other_lr=1e-4", "--trainer.max_epochs=4"]
    last = resumed(*change, "--model.optimization.weight_decay=0.1", "--resume_changed=true")
    (group,) = last["optimizer_states"][0]["param_groups"]
    assert (group["initial_lr"], group["weight_decay"]) == (1e-3, 0.1)
    assert last["lr_schedulers"][0]["base_lrs"] == [1e-3]
    assert last["global_step"] == 20
    assert last["optimizer_states"][0]["state"][0]["step"] == 20  # moments were kept
    assert "model.optimization.lr 0.01 -> 0.001" in capsys.readouterr().out


def test_auto_starts_and_goes_on(arguments, tmp_path):
    args = arguments(1, tmp_path / "run", "--resume=auto", max_steps=2)
    train.main(args)
    first = (tmp_path / "run" / "model" / "adapter.safetensors").read_bytes()
    train.main(args)
    assert (tmp_path / "run" / "model" / "adapter.safetensors").read_bytes() == first
    assert not [path for path in (tmp_path / "run").rglob("*") if "partial" in path.name or path.name == "run.lock"]


def test_a_checkpoint_without_a_record_goes_on_with_a_line(resumed, middle, capsys, monkeypatch):
    load = torch.load

    def without(*args, **settings):
        checkpoint = load(*args, **settings)
        checkpoint.pop("run", None)
        return checkpoint

    monkeypatch.setattr(torch, "load", without)
    assert resumed()["global_step"] == 10
    assert "does not say what its run was made of: its settings are not compared" in capsys.readouterr().out


def test_a_checkpoint_names_what_its_run_is_made_of(middle):
    checkpoint = torch.load(middle / "checkpoints" / "last.ckpt", weights_only=True)
    run = checkpoint["run"]
    assert run["position"] == {"samples": 12, "whole_epoch": False}
    assert run["step"] == {"batch_size": 4, "processes": 1, "accumulate": 1}
    assert run["settings"]["model"]["init_args"]["lora"]["alpha"] == 8
    assert {"tensors", "dtype", "fingerprint"} <= checkpoint["base"].keys()
    assert json.loads(json.dumps(run)) == run


@pytest.mark.parametrize("how", ["config", "argument", "two words"])
def test_a_list_replaces_a_list(arguments, tmp_path, monkeypatch, how):
    """Sources of data are not merged with those of an earlier config, item by item."""
    monkeypatch.setattr(TrainingCLI, "instantiate_classes", lambda self: None)
    sources = "[{shards: a, queries: a.jsonl, weight: 0.25}, {shards: b, queries: b.jsonl}]"
    others = "[{shards: c, queries: c.jsonl}, {shards: d, queries: d.jsonl}]"
    (tmp_path / "first.yaml").write_text(f"data: {{train: {sources}}}\n")
    (tmp_path / "second.yaml").write_text(f"data: {{train: {others}}}\n")
    later = {
        "config": [f"--config={tmp_path / 'second.yaml'}"],
        "argument": [f"--data.train={others}"],
        "two words": ["--data.train", others],
    }[how]
    args = [arg for arg in arguments(1, tmp_path) if not arg.startswith("--data.train")]
    found = TrainingCLI([f"--config={tmp_path / 'first.yaml'}", *args, *later]).config["data"]["train"]
    assert [(source["shards"], str(source["queries"]), source["weight"]) for source in found] == [
        ("c", "c.jsonl", 1.0),
        ("d", "d.jsonl", 1.0),
    ]
    short = [f"--config={tmp_path / 'first.yaml'}", *args, "--data.train", "[{shards: c}, {shards: d}]"]
    found = TrainingCLI(short).config["data"]["train"]
    assert [str(source["queries"]) for source in found] == [".", "."]  # which a Source refuses
