"""Validation while training: the best weights, checkpoints as weights, and what is found before a model is loaded."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from lightning.pytorch.callbacks import Callback

import prepare
import train
from callbacks.resuming import BestCheckpoint
from datamodules.query_files import read_queries
from evaluation.benchmark import benchmark
from lightning_modules import video_language
from lightning_modules.training_cli import TrainingCLI
from models.checkpoints import read_weights

ROOT = Path(__file__).parent.parent


@pytest.fixture
def validated(world):
    """Arguments that validate after every second step."""
    source = f"[{{shards: {world / 'videos'}, queries: {world / 'val' / 'grounding.jsonl'}}}]"
    more = [f"--data.val={source}", "--model.generation.max_new_tokens=4", "--trainer.val_check_interval=2"]
    return [*more, "--trainer.check_val_every_n_epoch=null", "--trainer.num_sanity_val_steps=0"]


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def tensors(weights) -> dict:
    loras = {f"{n}/{key}": value for n, lora in enumerate(weights.loras) for key, value in lora.tensors.items()}
    experts = {f"{n}/{key}": value for n, lora in weights.experts.items() for key, value in lora.tensors.items()}
    return weights.adapter | loras | experts | {f"head/{key}": value for key, value in weights.head.items()}


@pytest.fixture
def scored(monkeypatch):
    """Makes validation give chosen scores, one after the other."""

    def give(*scores: float) -> None:
        left = iter(scores)
        monkeypatch.setattr(video_language, "compute_metrics", lambda *_: {"val/grounding/mIoU": next(left)})

    return give


SYSTEMS = {
    "vtimellm": ["--model.localizer=TextTimestamps"],
    "meco": ["--model.localizer=StructuralTokens", "--model.tune_adapter=true"],
    "meco_full": ["--model.localizer=StructuralTokens", "--model.lora.new_tokens=full"],
    "videoexpert": ["--model=ExpertTuning", "--model.localizer=TemporalExpert", "--model.style=videoexpert"],
}


@pytest.mark.parametrize("system", SYSTEMS)
def test_the_best_weights_are_kept_and_a_checkpoint_is_weights(
    system, arguments, runs, validated, scored, world, tmp_path
):
    """The best of five validations is the second: each is filed under its own score."""
    scored(10.0, 30.0, 20.0, 25.0, 5.0)
    output = tmp_path / "run"
    more = [*validated, *SYSTEMS[system], "--checkpoint.monitor=val/grounding/mIoU", "--checkpoint.mode=max"]
    more += ["--checkpoint.every_n_train_steps=3", "--checkpoint.save_top_k=2"]
    args = arguments(2, output, *more, previous=runs[1], max_steps=10)
    if system == "videoexpert":
        args = [arg for arg in args if "lora" not in arg]
    train.main(args)
    kept = {path.name for path in (output / "checkpoints").iterdir()}
    assert {"best-step=4.ckpt", "best-step=8.ckpt", "last.ckpt"} <= kept
    about = read_weights(output).manifest["weights"]
    assert about == {
        "checkpoint": "best-step=4.ckpt", "step": 4, "epoch": 0, "monitor": "val/grounding/mIoU", "score": 30.0,
    }  # fmt: skip
    last = torch.load(output / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == 10  # the end of the run, though 10 is no multiple of 3
    for name in ("best-step=4", "best-step=8", "last"):
        to = tmp_path / name
        path = output / "checkpoints" / f"{name}.ckpt"
        assert prepare.main(["export", "--checkpoint", str(path), "--to", str(to)]) == 0
        exported = tensors(read_weights(to))
        assert exported.keys() == tensors(read_weights(output)).keys()
        assert same(exported, tensors(read_weights(output))) is (name == "best-step=4")
        assert same(exported, tensors(read_weights(path)))
    if system == "meco_full":
        return  # its matrices are whole, and reading them is test_meco's
    scores = [
        benchmark(
            checkpoint=folder, shards=str(world / "videos"), queries=world / "test" / "grounding.jsonl",
            output=tmp_path / f"eval{number}", num_workers=0,
        )
        for number, folder in enumerate((output, output / "checkpoints" / "best-step=4.ckpt"))
    ]  # fmt: skip
    assert scores[0] == scores[1]
    protocol = json.loads((tmp_path / "eval1" / "metrics.json").read_text())["protocol"]
    assert protocol["generation"]["max_new_tokens"] == 4  # of the training config
    assert protocol["setting"] == "zero-shot: 0 of 6 evaluation videos (0.0%) are in the training data"


def test_a_run_that_goes_on_still_knows_its_best(arguments, runs, validated, scored, tmp_path):
    scored(10.0, 30.0, 20.0, 25.0)
    more = [*validated, "--checkpoint.monitor=val/grounding/mIoU", "--checkpoint.mode=max"]
    args = arguments(2, tmp_path / "run", *more, previous=runs[1])
    train.main([*args, "--trainer.max_steps=4"])
    train.main([*args, "--trainer.max_steps=8", "--resume_changed=true", "--resume=true"])
    assert read_weights(tmp_path / "run").manifest["weights"]["step"] == 4


def test_training_ends_where_nothing_gets_better(arguments, runs, validated, scored, tmp_path):
    scored(*[10.0, 30.0, 20.0, 25.0, 26.0, 27.0])
    more = [*validated, "--checkpoint.monitor=val/grounding/mIoU", "--checkpoint.mode=max", "--checkpoint.patience=2"]
    train.main(arguments(2, tmp_path / "run", *more, previous=runs[1], max_steps=40))
    assert torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 8


def test_a_monitor_that_validation_does_not_give_is_refused_with_what_it_gives(arguments, runs, validated, tmp_path):
    more = [*validated, "--checkpoint.monitor=val/grounding/mIOU", "--checkpoint.mode=max"]
    with pytest.raises(ValueError, match="val/grounding/mIOU is no score of this validation, which gives .*mIoU"):
        train.main(arguments(2, tmp_path / "run", *more, previous=runs[1]))


def test_without_questions_the_last_weights_are_kept(arguments, runs, tmp_path):
    train.main(arguments(2, tmp_path / "run", "--checkpoint.monitor=val/grounding/mIoU", previous=runs[1], max_steps=2))
    assert read_weights(tmp_path / "run").manifest["weights"] == {"checkpoint": "last", "step": 2}


def test_time_too_is_a_reason_to_save(arguments, runs, tmp_path):
    more = ["--checkpoint.every_n_minutes=0", "--trainer.log_every_n_steps=2", "--checkpoint.every_n_train_steps=100"]
    cli = TrainingCLI(arguments(2, tmp_path / "run", *more, previous=runs[1], max_steps=5))
    saved = []

    class Watch(Callback):
        def on_save_checkpoint(self, trainer, pl_module, checkpoint):
            saved.append(checkpoint["global_step"])

    cli.trainer.callbacks.append(Watch())
    cli.trainer.fit(cli.model, cli.datamodule)
    assert sorted(set(saved)) == [2, 4, 5]


def test_stage_1_validates_by_its_loss(arguments, world, tmp_path):
    """Captions have no times to score. Neither batch size nor order change the mean over tokens."""
    source = f"--data.val=[{{shards: {world / 'images'}, queries: {world / 'stage1.jsonl'}}}]"
    found = []
    for size in (3, 24):
        more = [source, "--checkpoint.monitor=val/lm_loss", f"--data.eval_batch_size={size}", "--trainer.max_epochs=2"]
        output = tmp_path / f"{size}"
        train.main(arguments(1, output, *more, max_steps=-1))
        found.append(read_weights(output).manifest["weights"])
    assert found[0]["monitor"] == "val/lm_loss"
    assert found[0]["step"] == found[1]["step"] == 12
    assert found[0]["score"] == pytest.approx(found[1]["score"], rel=1e-5)


def test_a_dry_run_says_what_a_run_will_be_and_writes_nothing(
    arguments, runs, validated, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("command_line.tables.console.width", 200)
    monkeypatch.setattr(video_language, "load_llm", lambda *_: pytest.fail("the language model was loaded"))
    output = tmp_path / "run"
    more = [*validated, "--data.global_batch_size=8", "--trainer.max_epochs=2", "--dry_run"]
    train.main(arguments(2, output, *more, previous=runs[1], max_steps=-1))
    out = capsys.readouterr().out
    assert not output.exists()
    for words in ("8 dialogues a step = 4", "20 of 20 queries", "steps, epochs", "6, 2.0", "memory", "time of a step"):
        assert words in out
    learning = sum(value.numel() for value in read_weights(runs[2]).loras[0].tensors.values())
    assert f"{learning:,}" in out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--model.previous=nowhere"], "nowhere holds no trained weights"),
        (["--data.train=[{shards: nowhere, queries: x.jsonl}]"], "nowhere"),
        (["--model.feature_width=9"], "the features are 8 wide, the adapter reads 9"),
        (["--data.val=[{shards: a, queries: b.val.jsonl}]"], r"b\.val\.jsonl, which is not there: .*--hold_out 200"),
        (["--model.lora.target_modules=[q_prj]"], "q_prj"),
        (["--model.adapter=Mlp"], "adapter weights do not fit this model"),
        (["--data.batch_size=0"], "data.batch_size must be at least 1"),
        (["--data.global_batch_size=8", "--trainer.accumulate_grad_batches=2"], "how many batches are accumulated"),
        (["--data.global_batch_size=9"], "data.batch_size can be 1 or 3"),
    ],
)  # fmt: skip
def test_cheap_mistakes_are_found_before_the_model_is_loaded(arguments, runs, tmp_path, monkeypatch, change, message):
    monkeypatch.setattr(video_language, "load_llm", lambda *_: pytest.fail("the language model was loaded"))
    output = tmp_path / "run"
    with pytest.raises((ValueError, OSError), match=message):
        train.main([*arguments(2, output, previous=runs[1]), *change, "--trainer.logger=true"])
    assert not (output / "logs").exists()


def test_a_refused_run_leaves_a_finished_one_as_it_is(arguments, runs, tmp_path):
    args = [*arguments(1, tmp_path / "run", max_steps=1), "--trainer.logger=true"]
    train.main(args)
    before = (tmp_path / "run" / "logs" / "wandb-id").read_text()
    with pytest.raises(ValueError, match="add --resume true"):
        train.main(args)
    assert (tmp_path / "run" / "logs" / "wandb-id").read_text() == before


@pytest.mark.parametrize(("change", "words"), [("r=2", "lora.r 4, not 2"), ("alpha=9", "alpha 8, not 9")])
def test_a_continued_lora_has_its_own_settings(arguments, runs, tmp_path, change, words):
    more = ["--model.previous_lora=continue", f"--model.lora.{change}"]
    with pytest.raises(ValueError, match=words):
        train.main(arguments(3, tmp_path / "run", *more, previous=runs[2]))


def test_a_checkpoint_of_before_is_refused_with_the_remedy(runs, tmp_path):
    checkpoint = torch.load(runs[2] / "checkpoints" / "last.ckpt", weights_only=True)
    checkpoint.pop("parts")
    torch.save(checkpoint, tmp_path / "old.ckpt")
    with pytest.raises(ValueError, match=r"old\.ckpt does not say .*--resume true"):
        read_weights(tmp_path / "old.ckpt")
    (tmp_path / "no.ckpt").write_text("html")
    with pytest.raises(ValueError, match=r"no\.ckpt cannot be read as a checkpoint"):
        read_weights(tmp_path / "no.ckpt")


def test_videos_are_held_out(world, tmp_path):
    """Events become one question each, about videos that are not trained on."""
    args = ["annotations", "plain", "--input", str(world / "stage2.jsonl"), "--output", str(tmp_path / "train.jsonl")]
    assert prepare.main([*args, "--hold_out", "5"]) == 0
    left, asked = list(read_queries(tmp_path / "train.jsonl")), list(read_queries(tmp_path / "train.val.jsonl"))
    assert len(asked) == 5
    assert {query.task for query in asked} == {"grounding"}
    assert not {query.video for query in asked} & {query.video for query in left}
    first = (tmp_path / "train.val.jsonl").read_text()
    assert prepare.main([*args, "--hold_out", "5"]) == 0
    assert (tmp_path / "train.val.jsonl").read_text() == first
    assert prepare.main([*args, "--hold_out", "100000"]) == 2


def test_an_agents_run_has_a_folder_of_its_own(arguments, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_SWEEP_ID", "s1")
    monkeypatch.setenv("WANDB_RUN_ID", "r1")
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({"output": "runs/x"}))
    monkeypatch.chdir(tmp_path)
    args = [arg for arg in arguments(1, tmp_path) if not arg.startswith("--output")]
    assert TrainingCLI([f"--config={tmp_path / 'c.yaml'}", *args]).config["output"] == "runs/sweeps/s1/r1"
    assert TrainingCLI([*args, "--output=own"]).config["output"] == "own"


def test_only_validation_chooses_the_best():
    assert BestCheckpoint(Path("x"), "val/a").save_last is None
