"""train.py on the tiny world: who learns what in each stage, and what a run leaves behind."""

import json
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lightning.fabric.utilities.warnings import PossibleUserWarning
from lightning.pytorch.callbacks import Callback
from safetensors.torch import load_file

import train
from datamodules.chat import IGNORE
from datamodules.query_files import read_queries, write_queries
from datamodules.schema import Event, Query, Turn
from datamodules.shards import ShardReader
from lightning_modules.batching import step_size
from lightning_modules.loggers import default_loggers
from lightning_modules.trained import TrainedModel
from lightning_modules.training_cli import TrainingCLI
from models.checkpoints import read_weights
from preparation.features.shard_writer import ShardWriter
from preparation.world.tiny import save_tiny_lm, tiny_lm

ROOT = Path(__file__).parent.parent
LORA_LAYERS = [f"self_attn.{name}_proj" for name in "qkvo"] + [f"mlp.{name}_proj" for name in ("gate", "up", "down")]
LORA = {
    f"llm.base_model.model.model.layers.{layer}.{name}.lora_{side}.default.weight"
    for layer in range(2)
    for name in LORA_LAYERS
    for side in "AB"
}
ADAPTER = {"adapter.weight", "adapter.bias"}
NO_DROPOUT = "--model.lora.dropout=0"


def build(args: list[str]) -> TrainingCLI:
    """What train.main does, up to the first step."""
    cli = TrainingCLI(args)
    cli.model.configure_model()
    cli.datamodule.trainer = cli.trainer
    return cli


def parameters(cli: TrainingCLI) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in cli.model.model.named_parameters()}


def batches(cli: TrainingCLI, count: int = 1) -> list:
    loader = iter(cli.datamodule.train_dataloader())
    return [next(loader) for _ in range(count)]


def loss(cli: TrainingCLI, batch) -> torch.Tensor:
    return cli.model.model(batch).lm_loss


def gradients(cli: TrainingCLI, batch) -> dict[str, torch.Tensor]:
    cli.model.zero_grad()
    loss(cli, batch).backward()
    return {name: p.grad.clone() for name, p in cli.model.model.named_parameters() if p.requires_grad}


class Recorder(Callback):
    """Learning rate and gradients of every optimiser step, before clipping."""

    def __init__(self):
        self.lrs: list[float] = []
        self.gradients: list[dict] = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.lrs.append(optimizer.param_groups[0]["lr"])
        named = pl_module.model.named_parameters()
        self.gradients.append({name: p.grad.clone() for name, p in named if p.grad is not None})


def recorded(args: list[str]) -> Recorder:
    cli, recorder = TrainingCLI(args), Recorder()
    cli.trainer.callbacks.append(recorder)
    cli.trainer.fit(cli.model, cli.datamodule)
    return recorder


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_three_stages_hand_their_weights_on(runs):
    stage1, stage2, stage3 = (read_weights(runs[stage]) for stage in (1, 2, 3))
    stages = [weights.manifest["stage"] for weights in (stage1, stage2, stage3)]
    assert stages == ["FeatureAlignment", "BoundaryPerception", "InstructionTuning"]
    assert [len(weights.loras) for weights in (stage1, stage2, stage3)] == [0, 1, 2]
    assert same(stage1.adapter, stage2.adapter)
    assert same(stage1.adapter, stage3.adapter)
    assert same(stage2.loras[0].tensors, stage3.loras[0].tensors)
    assert all(tensor.any() for key, tensor in stage3.loras[1].tensors.items() if "lora_B" in key)
    bases = [weights.manifest["base"] for weights in (stage1, stage2, stage3)]
    assert bases[0] == bases[1] == bases[2]
    assert stage3.manifest["features"]["sampling"] == "uniform 16"
    for run in runs.values():
        assert (run / "config.yaml").is_file()
        assert (run / "curves.png").read_bytes().startswith(b"\x89PNG")
        assert (run / "checkpoints" / "last.ckpt").is_file()
        size = sum(path.stat().st_size for path in run.rglob("*") if path.is_file() and path.suffix != ".png")
        assert size < 400_000  # the base is referred to, not copied


@pytest.mark.parametrize(
    ("stage", "more", "learning"),
    [
        (1, [], ADAPTER),
        (2, [], LORA),
        (2, ["--model.tune_adapter=true"], LORA | ADAPTER),
        (3, [], LORA),
        (3, ["--model.previous_lora=continue"], LORA),
        (3, ["--model.tune_adapter=true"], LORA | ADAPTER),
    ],
)
def test_only_what_should_learn_changes(arguments, runs, tmp_path, stage, more, learning):
    previous = runs[stage - 1] if stage > 1 else None
    cli = build(arguments(stage, tmp_path / "run", *more, previous=previous, max_steps=3))
    assert {name for name, p in cli.model.model.named_parameters() if p.requires_grad} == learning
    before = parameters(cli)
    cli.trainer.fit(cli.model, cli.datamodule)
    after = parameters(cli)
    assert {name for name in before if not torch.equal(before[name], after[name])} == learning
    (group,) = cli.trainer.optimizers[0].param_groups
    assert len(group["params"]) == len(learning)
    kept = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert same(kept["state_dict"], {f"model.{name}": after[name] for name in learning})
    assert kept["base"] == cli.model.base


def test_stage_3_starts_where_stage_2_ended(arguments, runs, tmp_path):
    merged = build(arguments(3, tmp_path / "a", previous=runs[2]))
    kept = build(arguments(3, tmp_path / "b", "--model.previous_lora=continue", previous=runs[2]))
    trained = TrainedModel.from_run(runs[2])
    trained.configure_model()
    stage2 = read_weights(runs[2]).loras[0].tensors
    (batch,) = batches(merged)
    losses = [loss(cli, batch) for cli in (merged, kept) if cli.model.eval()] + [trained.model.eval()(batch).lm_loss]
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(losses[0], losses[2], rtol=1e-6, atol=0)
    new = parameters(merged)
    assert not any(value.any() for name, value in new.items() if "lora_B" in name)
    base = parameters(build(arguments(2, tmp_path / "c", previous=runs[1])))
    for name in LORA_LAYERS:
        place = f"base_model.model.model.layers.1.{name}"
        update = stage2[f"{place}.lora_B.weight"] @ stage2[f"{place}.lora_A.weight"]
        weight = f"llm.{place}.base_layer.weight"
        torch.testing.assert_close(new[weight], base[weight] + 8 / 4 * update, rtol=1e-5, atol=1e-6)
        assert not torch.equal(new[f"llm.{place}.lora_A.default.weight"], stage2[f"{place}.lora_A.weight"])
        for side in "AB":
            going_on = parameters(kept)[f"llm.{place}.lora_{side}.default.weight"]
            assert torch.equal(going_on, stage2[f"{place}.lora_{side}.weight"])


def test_a_continued_lora_stays_one_and_later_stages_merge_all(arguments, runs, tmp_path):
    train.main(arguments(3, tmp_path / "go_on", "--model.previous_lora=continue", previous=runs[2]))
    assert len(read_weights(tmp_path / "go_on").loras) == 1
    train.main(arguments(3, tmp_path / "third", previous=runs[3]))
    weights = read_weights(tmp_path / "third")
    assert len(weights.loras) == 3
    for old, new in zip(read_weights(runs[3]).loras, weights.loras, strict=False):
        assert same(old.tensors, new.tensors)


@pytest.fixture(scope="module")
def aligned(arguments, runs, world, tmp_path_factory) -> dict[str, Path | None]:
    """Stage-1 runs of Table 2: on images, on videos, on both, and none at all."""
    folder = tmp_path_factory.mktemp("aligned")
    captions = [
        Query(q.id, q.video, "dialogue", turns=(Turn("?", q.events[0].caption),))
        for q in read_queries(world / "stage2.jsonl")
    ]
    write_queries(folder / "captions.jsonl", captions)
    videos = f"--data.train+={{shards: {world / 'videos'}, queries: {folder / 'captions.jsonl'}}}"
    train.main(arguments(1, folder / "V", f"--data.train=[{videos.partition('=')[2]}]", max_steps=2))
    train.main(arguments(1, folder / "I+V", videos, max_steps=2))
    return {"I": runs[1], "V": folder / "V", "I+V": folder / "I+V", "-": None}


TABLE_2 = [
    ("I", "freeze", "-"),
    ("I", "tune", "-"),
    ("V", "freeze", "-"),
    ("V", "tune", "-"),
    ("I+V", "freeze", "-"),
    ("I+V", "tune", "-"),
    ("-", "tune", "-"),
    ("I", "-", "new"),
    ("I", "freeze", "reuse"),
    ("I", "freeze", "new"),
]


@pytest.mark.parametrize(("stage1", "stage2", "stage3"), TABLE_2)
def test_every_row_of_table_2_is_a_matter_of_arguments(arguments, runs, aligned, tmp_path, stage1, stage2, stage3):
    previous = aligned[stage1]
    learning = LORA | (ADAPTER if stage2 == "tune" else set())
    if stage2 != "-":
        tune = f"--model.tune_adapter={str(stage2 == 'tune').lower()}"
        cli = build(arguments(2, tmp_path / "2", tune, previous=previous))
        if previous:
            assert same(cli.model.model.adapter.state_dict(), read_weights(previous).adapter)
        previous = runs[2]
    if stage3 != "-":
        how = {"new": "merge_then_new", "reuse": "continue"}[stage3]
        cli = build(arguments(3, tmp_path / "3", f"--model.previous_lora={how}", previous=previous))
        assert len(cli.model.merged) == (1 if (stage2, stage3) == ("freeze", "new") else 0)
    assert {name for name, p in cli.model.model.named_parameters() if p.requires_grad} == learning
    assert loss(cli, *batches(cli)).isfinite()


@pytest.mark.parametrize(
    ("stage", "previous", "more", "words"),
    [
        (1, 2, [], "feature alignment comes first, but .*stage2 already holds a LoRA"),
        (2, 2, [], "stage2 already holds a LoRA; go on from it with InstructionTuning"),
        (2, None, [], "the visual adapter would stay random: give `previous`, or set tune_adapter: true"),
        (3, None, [], "the visual adapter would stay random"),
        (3, 1, ["--model.previous_lora=continue"], "previous_lora: continue needs a LoRA, and .*stage1 has none"),
        (2, 1, ["--model.feature_width=9"], "adapter weights do not fit this model: 1 of another shape, first weight"),
        (
            2,
            1,
            ["--model.llm=/no/where"],
            "llm '/no/where' is neither a folder with a checkpoint nor a model of the hub",
        ),
    ],
)
def test_stages_that_do_not_fit_are_refused(arguments, runs, tmp_path, stage, previous, more, words):
    with pytest.raises(ValueError, match=words):
        build(arguments(stage, tmp_path / "run", *more, previous=previous and runs[previous]))


def test_a_previous_run_that_is_none_is_refused(arguments, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty holds no trained weights: neither model/manifest.json"):
        build(arguments(2, tmp_path / "run", previous=tmp_path / "empty"))


@pytest.fixture(scope="module")
def other_llm(llm, tmp_path_factory) -> Path:
    """Same shapes, other weights."""
    from transformers import AutoTokenizer

    folder, tokenizer = tmp_path_factory.mktemp("other_llm"), AutoTokenizer.from_pretrained(llm)
    save_tiny_lm(folder, tiny_lm(len(tokenizer), width=32, layers=2, heads=2, seed=1), tokenizer)
    return folder


def test_weights_of_another_base_are_refused(arguments, runs, other_llm, tmp_path):
    with pytest.raises(ValueError, match=r"previous stage .*stage1 was trained on the base model .*llm.*fingerprint"):
        build(arguments(2, tmp_path / "run", f"--model.llm={other_llm}", previous=runs[1]))


@pytest.fixture
def finished(arguments, tmp_path) -> list[str]:
    """Arguments of a run that was trained for two of three epochs, and can be resumed."""
    args = arguments(1, tmp_path / "run", max_steps=-1)
    train.main([*args, "--trainer.max_epochs=2"])
    return [*args, "--trainer.max_epochs=3", "--resume_changed=true", "--resume=true"]


def test_a_checkpoint_of_another_base_is_refused(finished, other_llm):
    with pytest.raises(ValueError, match="the checkpoint was trained on the base model"):
        train.main([*finished, f"--model.llm={other_llm}"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state: state.pop("model.adapter.bias"), "1 missing, first model.adapter.bias"),
        (lambda state: state.update(extra=torch.ones(1)), "1 not expected, first extra"),
        (lambda state: state.update({"model.adapter.bias": torch.ones(1)}), "1 of another shape, first model.adapter"),
    ],
)
def test_a_checkpoint_with_other_keys_is_refused(finished, tmp_path, change, words):
    path = tmp_path / "run" / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    change(checkpoint["state_dict"])
    torch.save(checkpoint, path)
    with pytest.raises(ValueError, match=f"checkpoint weights do not fit this model: {words}"):
        train.main(finished)


def test_a_run_is_neither_overwritten_nor_resumed_from_nothing(finished, arguments, tmp_path):
    with pytest.raises(ValueError, match=r"last\.ckpt exists: add --resume true"):
        train.main(finished[:-1])
    with pytest.raises(ValueError, match=r"--resume true, but there is no .*last\.ckpt"):
        train.main(arguments(1, tmp_path / "new", "--resume=true"))
    train.main(finished)
    checkpoint = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert (checkpoint["epoch"], checkpoint["global_step"]) == (3, 18)  # all three epochs are complete


@pytest.mark.parametrize("stage", [1, 2])
def test_gradient_checkpointing_recomputes_and_changes_nothing(arguments, runs, tmp_path, stage):
    """It is silently off in modules that are in eval mode, as from_pretrained leaves them."""
    calls, found = Counter(), {}
    for active in (False, True):
        more = [f"--model.gradient_checkpointing={str(active).lower()}"] + ([NO_DROPOUT] if stage == 2 else [])
        cli = build(arguments(stage, tmp_path / f"{active}", *more, previous=runs[1] if stage == 2 else None))
        (batch,) = batches(cli)
        found[active] = gradients(cli, batch)
        attention = cli.model.model.causal_lm.model.layers[0].self_attn
        attention.register_forward_hook(lambda *_, active=active: calls.update([active]))
        cli.trainer.fit(cli.model, cli.datamodule)
    assert calls == {False: 4, True: 8}
    for name, gradient in found[False].items():
        torch.testing.assert_close(found[True][name], gradient, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("more", "steps", "warmup"),
    [
        (["--trainer.max_steps=10", "--model.optimization.warmup_ratio=0.3"], 10, 3),
        (["--trainer.max_steps=10", "--model.optimization.warmup_ratio=0.03"], 10, 1),
        (["--trainer.max_steps=10", "--model.optimization.warmup_ratio=0"], 10, 0),
        (["--trainer.max_steps=-1", "--trainer.max_epochs=2", "--trainer.accumulate_grad_batches=4"], 4, 1),
    ],
)
def test_learning_rates(arguments, tmp_path, more, steps, warmup):
    recorder = recorded(arguments(1, tmp_path / "run", *more))
    cosine = [0.5 * (1 + math.cos(math.pi * (k - warmup) / (steps - warmup))) for k in range(steps)]
    expected = [1e-2 * (k / warmup if k < warmup else cosine[k]) for k in range(steps)]
    assert recorder.lrs == pytest.approx(expected, abs=1e-12)


def test_accumulation_averages_the_means_of_its_batches(arguments, runs, tmp_path):
    more = [NO_DROPOUT, "--trainer.accumulate_grad_batches=2", "--trainer.gradient_clip_val=0.001"]
    args = arguments(2, tmp_path / "run", *more, previous=runs[1], max_steps=1)
    cli = build(args)
    parts = [gradients(cli, batch) for batch in batches(cli, 2)]
    (found,) = recorded(args).gradients
    assert found.keys() == LORA
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, (parts[0][name] + parts[1][name]) / 2, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("stage", [1, 2])
def test_a_batch_that_teaches_nothing_gives_zeros(arguments, runs, tmp_path, stage):
    cli = build(arguments(stage, tmp_path / "run", previous=runs[1] if stage == 2 else None))
    (batch,) = batches(cli)
    empty = replace(batch, labels=torch.full_like(batch.labels, IGNORE))
    assert loss(cli, empty).item() == 0
    assert all(not gradient.any() for gradient in gradients(cli, empty).values())


def test_loss_is_the_mean_over_supervised_tokens(arguments, runs, tmp_path):
    cli = build(arguments(2, tmp_path / "run", NO_DROPOUT, previous=runs[1]))
    (batch,) = batches(cli)
    model = cli.model.model
    inputs, _ = model.embed(batch.input_ids, batch.frame_mask, batch.features, batch.feature_mask)
    logits = model.causal_lm(inputs_embeds=inputs, attention_mask=batch.attention_mask).logits[:, :-1]
    nll = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch.labels[:, 1:].flatten(), ignore_index=IGNORE)
    torch.testing.assert_close(loss(cli, batch), nll, rtol=1e-5, atol=0)


def test_cut_texts_are_counted_and_told(arguments, tmp_path, capsys):
    train.main(arguments(1, tmp_path / "run", "--model.max_text_tokens=5", "--trainer.max_epochs=1", max_steps=-1))
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "truncated" in line]
    assert "24" in line


@pytest.fixture
def broken(world, tmp_path) -> str:
    """A source of stage 3 with a query about an absent video and one whose times leave the video."""
    queries = [replace(query, duration_s=None) for query in read_queries(world / "stage3.jsonl")]
    queries[3] = replace(queries[3], video="nowhere")
    events = replace(next(read_queries(world / "stage2.jsonl")).events[0], end_s=9999.0)
    queries[5] = Query("late", queries[5].video, "grounding", "a robot", events=(events,))
    write_queries(tmp_path / "broken.jsonl", queries)
    return f"--data.train=[{{shards: {world / 'videos'}, queries: {tmp_path / 'broken.jsonl'}}}]"


@pytest.mark.parametrize("size", [1, 4])
def test_skipped_samples_are_counted_and_told(arguments, runs, broken, tmp_path, capsys, monkeypatch, size):
    monkeypatch.setenv("COLUMNS", "200")
    more = [broken, f"--data.batch_size={size}", "--trainer.max_epochs=1"]
    args = arguments(3, tmp_path / "run", *more, previous=runs[2], max_steps=-1)
    with pytest.raises(ValueError, match=r"broken\.jsonl: query .* is about video 'nowhere', .*on_error: skip"):
        train.main(args)
    train.main([*args, "--data.on_error=skip"])
    out = capsys.readouterr().out
    (absent,) = [line for line in out.splitlines() if "video not in shards" in line]
    (late,) = [line for line in out.splitlines() if "query late" in line]
    for line in (absent, late):
        assert line.split()[-2] == "1"
    checkpoint = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == math.ceil(19 / size)
    assert all(tensor.isfinite().all() for tensor in checkpoint["state_dict"].values())


def test_validation_scores_are_logged_and_can_choose_the_checkpoint(arguments, runs, world, tmp_path):
    source = f"[{{shards: {world / 'videos'}, queries: {world / 'val' / 'grounding.jsonl'}}}]"
    more = [f"--data.val={source}", "--checkpoint.monitor=val/grounding/mIoU", "--checkpoint.mode=max"]
    more += ["--model.generation.max_new_tokens=8", "--trainer.max_epochs=2", "--trainer.num_sanity_val_steps=1"]
    more += ["--trainer.log_every_n_steps=1"]
    more += [
        "--model.gradient_checkpointing=true",
        "--trainer.logger=CSVLogger",
        f"--trainer.logger.save_dir={tmp_path}",
    ]
    train.main(arguments(2, tmp_path / "run", *more, previous=runs[1], max_steps=-1))
    header, *rows = next(tmp_path.rglob("metrics.csv")).read_text().splitlines()
    for name in ("train/lm_loss", "train/loss", "train/grad_norm", "val/grounding/R1@0.5", "val/grounding/n"):
        assert name in header.split(",")
    questions = sum(1 for _ in read_queries(world / "val" / "grounding.jsonl"))
    column = header.split(",").index("val/grounding/n")
    assert [float(row.split(",")[column]) for row in rows if row.split(",")[column]] == [questions, questions]
    assert read_weights(tmp_path / "run").manifest["features"]["width"] == 8


def test_mixture_is_printed_and_leakage_is_warned_of_once(arguments, runs, world, tmp_path, capsys, monkeypatch):
    """Pictures and videos in one run, with weights; validation asks about videos that are trained on."""
    monkeypatch.setattr("command_line.tables.console.width", 300)
    images = f"{{shards: {world / 'images'}, queries: {world / 'stage1.jsonl'}, weight: 0.5}}"
    videos = f"{{shards: {world / 'videos'}, queries: {world / 'stage3.jsonl'}}}"
    write_queries(tmp_path / "val.jsonl", [
        Query("seen", "train00000.mp4", "grounding", "a robot", (Event(0, 1),)),
        *read_queries(world / "val" / "grounding.jsonl"),
    ])  # fmt: skip
    more = [f"--data.train=[{images}, {videos}]", "--trainer.max_epochs=2", "--model.generation.max_new_tokens=4"]
    reader = ShardReader(world / "videos")
    with ShardWriter(tmp_path / "shards", reader.header) as writer:
        writer.add(replace(reader.read("train00000"), id="train00000.mp4"))
        for name in sorted({query.video for query in read_queries(world / "val" / "grounding.jsonl")}):
            writer.add(reader.read(name))
    more += [f"--data.val=[{{shards: {tmp_path / 'shards'}, queries: {tmp_path / 'val.jsonl'}}}]"]
    more += ["--trainer.logger=CSVLogger", f"--trainer.logger.save_dir={tmp_path}"]
    with pytest.warns(PossibleUserWarning, match=r"data\.val is not unseen: 1 of \d+ .*train00000.*in-domain") as told:
        train.main(arguments(3, tmp_path / "run", *more, previous=runs[2], max_steps=-1))
    assert sum("data.val" in str(warning.message) for warning in told) == 1
    out = capsys.readouterr().out
    rows = [line.split() for line in out.splitlines() if ".jsonl" in line]
    assert [row[-6:-1:2] for row in rows] == [["0.5", "24", "12"], ["1.0", "20", "20"]]
    hparams = next(tmp_path.rglob("hparams.yaml")).read_text()
    assert "drawn_an_epoch" in hparams


CONFIGS = {1: "lcs558k", 2: "internvid", 3: "instruct36k"}


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_shipped_configs_hold_the_published_values(stage, monkeypatch):
    """VTimeLLM, section 4.1, and its training scripts."""
    monkeypatch.setattr(TrainingCLI, "instantiate_classes", lambda self: None)  # Vicuna is not here
    files = [ROOT / "configs" / "vtimellm" / f"stage{stage}.yaml", ROOT / "configs" / "data" / f"{CONFIGS[stage]}.yaml"]
    config = TrainingCLI([f"--config={path}" for path in files]).config.as_dict()
    model, trainer = config["model"]["init_args"], config["trainer"]
    kinds = {1: "FeatureAlignment", 2: "BoundaryPerception", 3: "InstructionTuning"}
    assert config["model"]["class_path"] == f"lightning_modules.{kinds[stage]}"
    optimization = {"warmup_ratio": 0.03, "weight_decay": 0.0, "betas": (0.9, 0.999), "eps": 1e-8}
    optimization |= {"lr": 1e-3 if stage == 1 else 1e-4, "other_lr": None, "head_lr": None}
    assert model["optimization"] == optimization
    assert (config["data"]["global_batch_size"], trainer["accumulate_grad_batches"]) == (128, None)
    assert all(step_size(128, config["data"]["batch_size"], n, None).dialogues == 128 for n in (1, 2, 4, 8))
    monitor, mode = ("val/lm_loss", "min") if stage == 1 else ("val/grounding/mIoU", "max")
    assert (config["checkpoint"]["monitor"], config["checkpoint"]["mode"]) == (monitor, mode)
    assert [str(source["queries"]) for source in config["data"]["val"]] == [
        str(source["queries"]).replace(".jsonl", ".val.jsonl") for source in config["data"]["train"]
    ]
    assert trainer["max_epochs"] == (1 if stage == 1 else 2)
    assert (trainer["precision"], model["dtype"]) == ("bf16-mixed", "bfloat16")
    assert (model["llm"], model["feature_width"], model["max_text_tokens"]) == ("lmsys/vicuna-7b-v1.5", 768, 2048)
    assert model["localizer"]["init_args"] == {
        "captions": "none",
        "bidirectional": False,
        "ticks": 100,
        "legacy_negative": False,
    }
    assert model["chat"] == ("plain" if stage == 1 else "vicuna_v1")
    assert trainer["gradient_clip_val"] == 1.0
    if stage > 1:
        layers = {"target_modules": "all-linear", "new_tokens": "rows"}
        assert model["lora"] == {"r": 64, "alpha": 128, "dropout": 0.05} | layers
        assert model["tune_adapter"] is False
        assert str(model["previous"]) == f"runs/vtimellm-stage{stage - 1}"
    if stage == 3:
        assert model["previous_lora"] == "merge_then_new"
    (source,) = config["data"]["train"]
    assert str(source["queries"]).endswith(f"stage{stage}.jsonl")
    for path in files:
        first = path.read_text().splitlines()[0]
        assert first.startswith("# python ")
        if path.parent.name == "vtimellm":
            named = [ROOT / word for word in first.split() if word.endswith(".yaml")]
            assert named == files


def test_a_shipped_config_trains_the_tiny_model(runs, llm, world, tmp_path):
    source = f"[{{shards: {world / 'videos'}, queries: {world / 'stage3.jsonl'}}}]"
    changes = ["--model.llm", llm, "--model.feature_width=8", "--model.previous", str(runs[2]), "--data.train", source]
    changes += ["--data.num_workers=0", "--data.batch_size=4", "--trainer.max_steps=2", "--trainer.logger=false"]
    changes += ["--data.global_batch_size=8", "--output", str(tmp_path / "run")]
    train.main(["--config", str(ROOT / "configs" / "vtimellm" / "stage3.yaml"), *changes])
    weights = read_weights(tmp_path / "run")
    assert {tensor.dtype for tensor in weights.loras[1].tensors.values()} == {torch.float32}
    settings = json.loads((tmp_path / "run" / "model" / "lora-2" / "adapter_config.json").read_text())
    assert (settings["r"], settings["lora_alpha"], settings["lora_dropout"]) == (64, 128, 0.05)
    assert load_file(tmp_path / "run" / "model" / "adapter.safetensors")["weight"].dtype == torch.float32


@pytest.mark.parametrize("strategy", ["fsdp", "deepspeed_stage_2", "lightning.pytorch.strategies.FSDPStrategy"])
def test_other_ways_to_split_parameters_are_refused(arguments, tmp_path, strategy):
    with pytest.raises(ValueError, match=f"trainer.strategy .*{strategy}.*--trainer.strategy fsdp2; or use ddp"):
        TrainingCLI(arguments(1, tmp_path, f"--trainer.strategy={strategy}"))


def test_a_run_that_goes_on_is_the_same_one_for_wandb(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    first, again, other = (default_loggers(tmp_path, resume)[1].version for resume in (False, True, False))
    assert first == again != other
