"""VideoExpert on the tiny world: training, its weights, routing, S-tokens, packing, two processes, shipped configs."""

import os
import subprocess
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch.nn.functional import pad

import evaluate
import train
from datamodules.batch import collate, collate_prompts
from datamodules.packing import pack
from datamodules.query_files import read_queries, write_queries
from datamodules.sampling import Part
from datamodules.schema import Event, Query, Turn, Video
from datamodules.shards import ShardReader
from lightning_modules.answering import Generation
from lightning_modules.trained import TrainedModel
from lightning_modules.training_cli import TrainingCLI
from models.checkpoints import read_weights
from models.routed_lora import route
from preparation.features.shard_writer import ShardWriter
from sweep import command, grid, read_sweep

ROOT = Path(__file__).parent.parent
SPATIAL = "--model.spatial=2x3"
PARTS = ("temporal", "spatial")


PATCHES = {"patches": "test", "patch_count": 5, "patch_width": 8, "cls_attention": "test"}
STORED = {"spatial": "2x3", "spatial_count": 6, "spatial_source": "test; test"}


def with_spatial(world: Path, folder: Path, **more) -> Path:
    """The world's videos with made-up S-tokens (2x3), or with ``patches`` of each frame."""
    reader, rng = ShardReader(world / "videos"), np.random.default_rng(0)
    header = replace(reader.header, **(more or STORED))
    with ShardWriter(folder, header) as writer:
        for video in map(reader.read, reader.ids):
            shapes = {"patches": (16, 5, 8), "cls_attention": (16, 5)} if more else {"spatial": (6, 8)}
            arrays = {name: rng.random(shape).astype(np.float16) for name, shape in shapes.items()}
            writer.add(replace(video, **arrays))
    return folder


@pytest.fixture(scope="module")
def shards(world, tmp_path_factory) -> Path:
    return with_spatial(world, tmp_path_factory.mktemp("spatial"))


@pytest.fixture(scope="module")
def expert(world, llm, runs, shards):
    """Gives the command line of a short run: ``expert(output, *more, max_steps=..)``."""

    def command_line(output: Path, *more: str, previous: Path | None = None, max_steps: int = 3) -> list[str]:
        lines = ["--model=ExpertTuning", f"--model.llm={llm}", "--model.localizer=TemporalExpert"]
        lines += ["--model.feature_width=8", "--model.optimization.lr=1e-2", f"--output={output}", SPATIAL]
        lines += ["--model.experts={rank: 8, dropout: 0.1}", f"--model.previous={previous or runs[1]}"]
        lines += [f"--data.train=[{{shards: {shards}, queries: {world / 'stage2.jsonl'}}}]"]
        lines += ["--data.batch_size=4", "--data.num_workers=0", f"--trainer.max_steps={max_steps}"]
        lines += ["--trainer.logger=false", "--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu"]
        return [*lines, "--trainer.enable_model_summary=false", *more]

    return command_line


def build(args: list[str]) -> TrainingCLI:
    """What train.main does, up to the first step."""
    cli = TrainingCLI(args)
    cli.model.configure_model()
    cli.datamodule.trainer = cli.trainer
    return cli


def terms(module, batch) -> dict[str, torch.Tensor]:
    """The loss terms of a batch, as training adds them up."""
    output = module.model(batch)
    ids = {token: number for number, token in module.dialogue.special.items()}
    return {"lm": output.lm_loss, **module.localizer.loss(module.model.head, output.states, batch, ids)}


def gradients(module, batch) -> dict[str, torch.Tensor]:
    module.zero_grad()
    sum(terms(module, batch).values()).backward()
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.requires_grad}


def video(name: str = "v", frames: int = 16, spatial: int = 6) -> Video:
    rng = np.random.default_rng(frames)
    features, tokens = (rng.standard_normal((n, 8)).astype(np.float16) for n in (frames, spatial))
    return Video(name, 40.0, (np.arange(frames) + 0.5) * 40 / frames, features, spatial=tokens)


def grounding(name: str, start_s: float) -> Query:
    text = f"a {name} robot sings"
    return Query(name, "v", "grounding", text, (Event(start_s, start_s + 9, text),))


@pytest.fixture(scope="module")
def trained(expert, tmp_path_factory) -> Path:
    """A run of 40 steps on grounding, dense captions and captions of segments."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    train.main(expert(folder, "--trainer.log_every_n_steps=1", max_steps=40))
    return folder


@pytest.fixture(scope="module")
def module(trained) -> TrainedModel:
    """The model of that run."""
    model = TrainedModel.from_run(trained, dtype="float32")
    model.configure_model()
    return model


def test_a_run_learns_every_term_and_leaves_two_ordinary_adapters(expert, trained, module, tmp_path):
    cli = build(expert(tmp_path / "untrained"))
    batch = next(iter(cli.datamodule.train_dataloader()))
    before, after = terms(cli.model.eval(), batch), terms(module, batch)
    assert list(after) == ["lm", "indicator", "smooth_l1", "giou"]
    for name in after:
        assert after[name] < before[name], name
    files = {str(path.relative_to(trained / "model")) for path in (trained / "model").rglob("*") if path.is_file()}
    adapters = {f"{part}/adapter_{name}" for part in PARTS for name in ("config.json", "model.safetensors")}
    assert adapters | {"adapter.safetensors", "head.safetensors", "manifest.json"} <= files
    weights = read_weights(trained)
    assert weights.loras == []
    assert {name: lora.config.r for name, lora in weights.experts.items()} == {"temporal": 4, "spatial": 4}
    rows = {part: [key for key in weights.experts[part].tensors if "token_adapter" in key] for part in PARTS}
    assert (len(rows["temporal"]), len(rows["spatial"])) == (0, 2)
    assert weights.manifest["spatial"] == "2x3"


def test_adapter_experts_head_and_new_rows_learn_and_nothing_else(expert, tmp_path):
    # The head begins with zeros: it learns first, then B of the last layer's temporal expert, then its A.
    cli = build(expert(tmp_path / "run", max_steps=5))
    before = {name: value.detach().clone() for name, value in cli.model.model.named_parameters()}
    cli.trainer.fit(cli.model, cli.datamodule)
    changed = {name for name, value in cli.model.model.named_parameters() if not torch.equal(value, before[name])}
    kinds = {name.split(".")[0] if not name.startswith("llm") else name.split(".")[-2] for name in changed}
    assert changed == {name for name, value in cli.model.model.named_parameters() if value.requires_grad}
    assert {"adapter", "head", "temporal", "spatial"} <= kinds
    assert sum("token_adapter" in name for name in changed) == 2
    frozen = build(expert(tmp_path / "frozen", "--model.tune_adapter=false"))
    assert not any(p.requires_grad for p in frozen.model.model.adapter.parameters())


def test_a_finished_run_is_the_model_that_was_trained(expert, trained, module, tmp_path):
    again = build(expert(tmp_path / "again", previous=trained)).model.eval()
    batch = collate([module.dialogue.example(grounding("red", 8.0), video(), Random(0))], 0)
    for name, term in terms(again, batch).items():
        torch.testing.assert_close(term, terms(module, batch)[name], rtol=1e-4, atol=1e-6)
    trained_names = {name for name, p in again.named_parameters() if p.requires_grad}
    assert {name.split(".")[-2] for name in trained_names if "lora_" in name} == set(PARTS)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--model.experts.rank=16"], r"has temporal \(r 4, alpha 8\), spatial .*ask for temporal \(r 8, alpha 16\)"),
        (["--model.experts.scale=1"], r"has temporal \(r 4, alpha 8\), .*ask for temporal \(r 4, alpha 4\)"),
        (["--model.experts.joint=true"], r"has temporal \(r 4, .*ask for joint \(r 8, alpha 16\)"),
        (["--model.localizer=TextTimestamps"], "spatial expert weights do not fit this model: 2 not expected"),
        (["--model.localizer.interaction=concat"], "head weights do not fit this model: 2 missing, first join"),
    ],
)
def test_experts_that_do_not_fit_are_refused(expert, trained, tmp_path, more, words):
    with pytest.raises(ValueError, match=words):
        build(expert(tmp_path / "run", *more, previous=trained))


def test_stages_with_one_lora_refuse_experts_and_experts_refuse_its_lora(arguments, expert, runs, trained, tmp_path):
    for stage in (1, 2, 3):
        with pytest.raises(ValueError, match="has experts, which cannot be merged; go on from it with ExpertTuning"):
            build(arguments(stage, tmp_path / f"{stage}", previous=trained))
    with pytest.raises(ValueError, match=r"stage2 has joint \(r 4, alpha 8\), the settings of the experts ask for"):
        build(expert(tmp_path / "run", previous=runs[2]))


def test_a_run_goes_on_exactly_where_it_stopped(expert, whole_and_parts):
    whole, parts = whole_and_parts(expert)
    tensors = [{n: lora.tensors for n, lora in w.experts.items()} | {"head": w.head} for w in (whole, parts)]
    for name, part in tensors[0].items():
        for key, tensor in part.items():
            assert torch.equal(tensors[1][name][key], tensor), key


def prompts(module) -> list:
    """Two videos of different lengths, three questions."""
    asked = [("v", 16, grounding("red", 1.0)), ("v", 16, grounding("very small green", 1.0))]
    asked += [("w", 9, Query("d", "w", "dense_captioning", events=(Event(0, 1, "x"),)))]
    return [module.dialogue.prompt(query, video(name, frames)) for name, frames, query in asked]


def test_cached_and_uncached_generation_give_the_same_ids_and_spans(module):
    """Uncached: the whole sequence is computed anew for each token, alone."""
    model, asked, tokens = module.model, prompts(module), 12
    module.answering = replace(module.answering, generation=Generation(max_new_tokens=tokens))
    cached = model.generate(collate_prompts(asked, 0), max_new_tokens=tokens, do_sample=False, pad_token_id=0)
    predicted = module.answer(collate_prompts(asked, 0))
    for prompt, answer, prediction in zip(asked, cached, predicted, strict=True):
        ids, start = torch.cat([prompt.prefix_ids, prompt.suffix_ids]), len(prompt.prefix_ids) + len(prompt.suffix_ids)
        every_frame = torch.ones(1, len(prompt.features), dtype=torch.bool)
        for _ in range(len(answer.ids) + 1):  # the last token is read, too
            behind = (0, len(ids) - len(prompt.prefix_ids))
            frames, tokens = (pad(mask, behind)[None] for mask in (prompt.frame_mask, prompt.spatial_mask))
            video = (frames, prompt.features[None], every_frame, prompt.spatial[None], tokens)
            with torch.inference_mode(), route(model.llm, frames):
                inputs, _ = model.embed(ids[None], *video)
                states = model.causal_lm.get_decoder()(inputs_embeds=inputs, use_cache=False).last_hidden_state[0]
            ids = torch.cat([ids, model.causal_lm.lm_head(states[-1:]).argmax(-1)])
        end = (answer.ids == module.dialogue.encoder.end[0]).nonzero()
        length = int(end[0]) + 1 if len(end) else len(answer.ids)
        assert answer.ids[:length].tolist() == ids[start:][:length].tolist()
        uncached = states[start:][:length]
        torch.testing.assert_close(answer.reading["after_norm"][:length], uncached, rtol=1e-3, atol=1e-4)
        frames = states[frames[0]]
        torch.testing.assert_close(answer.frames["after_norm"], frames, rtol=1e-3, atol=1e-4)
        text = module.answering.read(replace(answer, ids=answer.ids[:length]))
        text = replace(text, frames={"after_norm": frames}, reading={"after_norm": uncached})
        expected = module.localizer.decode(prompt.query, text, prompt.clip, model.head)
        assert prediction.rule == expected.rule is not None
        assert prediction.answer == expected.answer
        np.testing.assert_allclose(prediction.spans, expected.spans, rtol=1e-3, atol=1e-3)


def test_a_finished_run_answers_as_the_model_that_was_trained(expert, trained, module, tmp_path):
    """It has the spatial expert and the rows of <LOC> in its weights; in float32 the answers are the same."""
    settings = ["--model.generation={max_new_tokens: 12, merge_spatial: true}"]  # older configs may ask for it
    training = build(expert(tmp_path / "run", *settings, previous=trained)).model.eval()
    module.answering = replace(module.answering, generation=Generation(12))
    expected = torch.inference_mode()(training.answer)(collate_prompts(prompts(module), 0))
    for one, other in zip(expected, module.answer(collate_prompts(prompts(module), 0)), strict=True):
        assert one.answer == other.answer
        np.testing.assert_allclose(other.spans, one.spans, rtol=1e-3, atol=1e-3)
    beside = {name.split(".")[-2] for name, _ in module.named_parameters() if "lora_" in name}
    assert beside == {"temporal"}
    assert not any("token_adapter" in name for name, _ in module.named_parameters())


@pytest.mark.parametrize("part", PARTS)
def test_the_temporal_expert_acts_on_frames_alone(expert, trained, module, tmp_path, part):
    """Of the first layer: S-tokens and words see the spatial expert."""
    batch = collate([module.dialogue.example(grounding("red", 1.0), video(frames=n), Random(0)) for n in (16, 9)], 0)
    model, seen = build(expert(tmp_path / "run", previous=trained)).model.eval().model, []
    layer = model.causal_lm.get_decoder().layers[0].self_attn.q_proj
    layer.register_forward_hook(lambda _, inputs, output: seen.append(output))
    with torch.no_grad():
        model(batch)
        layer.lora_B[part].weight.add_(1.0)
        model(batch)
    changed = (seen[1] - seen[0]).abs().amax(-1) > 1e-4
    real = batch.frame_mask | batch.spatial_mask | (batch.labels >= 0)  # unknown words of a question are zero
    assert torch.equal(changed[real], (batch.frame_mask == (part == "temporal"))[real])


def test_s_tokens_stand_behind_the_frames(module):
    example = module.dialogue.example(grounding("red", 1.0), video(frames=9), Random(0))
    frames, tokens = (mask.nonzero().flatten().tolist() for mask in (example.frame_mask, example.spatial_mask))
    start = frames[0]
    assert frames == list(range(start, start + 9))
    assert tokens == list(range(start + 9, start + 15))
    assert (example.labels[start : start + 15] == -100).all()
    batch = collate([example], 0)
    inputs, _ = module.model.embed(
        batch.input_ids, batch.frame_mask, batch.features, batch.feature_mask, batch.spatial, batch.spatial_mask
    )
    torch.testing.assert_close(inputs[batch.spatial_mask], module.model.adapter(batch.spatial[0]))
    prompt = module.dialogue.prompt(grounding("red", 1.0), video(frames=9))
    assert prompt.spatial_mask[-6:].all()
    assert torch.equal(prompt.prefix_ids, example.input_ids[: len(prompt.prefix_ids)])


def test_packed_dialogues_have_the_terms_and_gradients_they_have_apart(module):
    queries = [grounding("red", 1.0), grounding("very small green", 20.0)]
    queries += [Query("t", "v", "dialogue", turns=(Turn("what is this?", "a robot."),))]
    queries += [Query("d", "v", "dense_captioning", events=(Event(1, 9, "a dog sings"), Event(9, 39, "it jumps")))]
    examples = [module.dialogue.example(query, video(), Random(0)) for query in queries]
    other = module.dialogue.example(grounding("blue", 3.0), video(frames=9), Random(0))
    module.model.head.requires_grad_(True)
    apart, packed = collate([*examples, other], 0), collate([pack(examples), other], 0)
    assert packed.spatial_mask.sum() == 12
    found = {}
    for name, batch in (("apart", apart), ("packed", packed)):
        found[name] = terms(module, batch), gradients(module, batch)
    for name, term in found["apart"][0].items():
        torch.testing.assert_close(found["packed"][0][name], term, rtol=1e-4, atol=1e-6)
    assert found["apart"][1]
    for name, gradient in found["apart"][1].items():
        torch.testing.assert_close(found["packed"][1][name], gradient, rtol=1e-3, atol=1e-5)
    module.model.requires_grad_(False)


class KeepGradients(Callback):
    """Writes down the gradients of the first step.

    Args:
        path: where to.
    """

    def __init__(self, path: str):
        self.path = path

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        if trainer.global_step == 0 and trainer.is_global_zero:
            named = pl_module.model.named_parameters()
            torch.save({name: p.grad for name, p in named if p.grad is not None}, self.path)


def test_two_processes_one_of_them_without_any_loc(expert, python, world, shards, tmp_path):
    """They end, with the gradients that one process has of both batches."""
    (first, *_) = read_queries(world / "stage2.jsonl")
    queries = [Query("when", first.video, "grounding", "x", first.events[:1], duration_s=first.duration_s)]
    queries += [Query("what", first.video, "dialogue", turns=(Turn("what is this?", "a robot."),))]
    write_queries(tmp_path / "two.jsonl", queries)
    more = [f"--data.train=[{{shards: {shards}, queries: {tmp_path / 'two.jsonl'}}}]", "--data.batch_size=1"]
    more += ["--model.experts={rank: 8, dropout: 0}"]

    cli = TrainingCLI(expert(tmp_path / "one", *more, "--trainer.accumulate_grad_batches=2", max_steps=1))
    cli.trainer.callbacks.append(KeepGradients(tmp_path / "one.pt"))
    cli.trainer.fit(cli.model, cli.datamodule)

    callback = f"[{{class_path: test_videoexpert.KeepGradients, init_args: {{path: {tmp_path / 'two.pt'}}}}}]"
    more += [f"--trainer.callbacks={callback}", "--trainer.devices=2"]
    command = [python, str(ROOT / "train.py"), *expert(tmp_path / "two", *more, max_steps=1)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr

    one, two = (torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in ("one", "two"))
    assert one.keys() == two.keys()
    assert any("temporal" in name and gradient.any() for name, gradient in one.items())
    for name, gradient in one.items():
        torch.testing.assert_close(two[name], gradient, rtol=1e-4, atol=1e-7)


def test_s_tokens_that_the_shards_cannot_give_are_refused(expert, world, tmp_path):
    plain = f"--data.train=[{{shards: {world / 'videos'}, queries: {world / 'stage2.jsonl'}}}]"
    with pytest.raises(ValueError, match=r"videos: S-tokens 2x3 are requested, but the shards hold neither S-tokens"):
        train.main(expert(tmp_path / "a", plain, "--data.on_error=skip"))
    with pytest.raises(ValueError, match="holds S-tokens 2x3, 2x4 are requested; extract them again"):
        train.main(expert(tmp_path / "b", "--model.spatial=2x4"))
    with pytest.raises(ValueError, match="S-tokens must read like '4x64'"):
        train.main(expert(tmp_path / "c", "--model.spatial=many"))


def test_locs_without_their_windows_name_the_query(module):
    turn = Turn("When?", "During <LOC> and <LOC>.", events=(Event(1, 2),))
    with pytest.raises(ValueError, match="query q: an answer with 2 <LOC> does not fit its 1 windows"):
        module.dialogue.example(Query("q", "v", "dialogue", turns=(turn,)), video(), Random(0))


def test_turns_with_a_single_time_are_left_out_and_counted(expert, world, tmp_path, capsys):
    """Their dialogues go on without them, and a dialogue of nothing else is left out, whatever on_error says."""
    (first, second, *_) = read_queries(world / "stage2.jsonl")
    times = {"<s0>": 1.0, "<e0>": 2.0}
    point, span = (
        Turn("When?", "At <s0>.", times=times),
        Turn("And from when to when?", "From <s0> to <e0>.", times=times),
    )
    mixed = Query("mixed", first.video, "dialogue", turns=(point, span, point))
    write_queries(tmp_path / "q.jsonl", [mixed, Query("alone", second.video, "dialogue", turns=(point,))])
    source = f"--data.train=[{{shards: {world / 'videos'}, queries: {tmp_path / 'q.jsonl'}}}]"
    train.main(expert(tmp_path / "run", source, "--model.spatial=null", max_steps=1))
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "a single time in its answer" in line]
    assert line.split()[-2] == "3"
    example = build(expert(tmp_path / "one", source, "--model.spatial=null")).model.dialogue.example(
        mixed, ShardReader(world / "videos").read(first.video), Random(0)
    )
    assert sum(example.counts.values()) == 2 and len(example.targets) == 1


def test_s_tokens_compressed_while_reading(expert, world, tmp_path):
    """From an odd number of patches; 17 groups do not fit 16 frames, nor 6 tokens 5 patches."""
    folder = with_spatial(world, tmp_path / "patches", **PATCHES)
    source = f"--data.train=[{{shards: {folder}, queries: {world / 'stage2.jsonl'}}}]"
    cli = build(expert(tmp_path / "run", source))
    assert next(iter(cli.datamodule.train_dataloader())).spatial.shape == (4, 6, 8)
    for size, words in (("17x3", "at least 17 frames, there are 16"), ("2x6", "at least 6 patches a frame")):
        cli = build(expert(tmp_path / size, source, f"--model.spatial={size}"))
        with pytest.raises(ValueError, match=f"video train.*{words}"):
            next(iter(cli.datamodule.train_dataloader()))
    skipping = expert(tmp_path / "skip", source, "--model.spatial=17x3", "--data.on_error=skip")
    assert sum(next(iter(build(skipping).datamodule.train_dataloader())).counts.values()) == 4


def test_shards_may_hold_more_than_is_read(expert, trained, shards, world, tmp_path):
    """S-tokens stored or made while reading, in one mixture and from training to evaluation, or none read at all."""
    patches = with_spatial(world, tmp_path / "patches", **PATCHES)
    sources = [f"{{shards: {folder}, queries: {world / 'stage2.jsonl'}}}" for folder in (shards, patches)]
    assert next(
        iter(build(expert(tmp_path / "mix", f"--data.train=[{', '.join(sources)}]")).datamodule.train_dataloader())
    )
    run = tmp_path / "frames"
    train.main(expert(run, "--model.spatial=null", f"--data.train=[{sources[0]}]", max_steps=1))
    asked = [f"--queries={world / 'test' / 'grounding.jsonl'}", "--num_workers=0", "--generation.max_new_tokens=4"]
    for checkpoint, folder in ((trained, patches), (run, patches), (run, shards), (run, world / "videos")):
        output = tmp_path / f"{checkpoint.name}-{folder.name}"
        where = [f"--checkpoint={checkpoint}", f"--shards={folder}", f"--output={output}"]
        evaluate.main(["benchmark", *asked, *where])
        assert (output / "metrics.json").is_file()
    with pytest.raises(ValueError, match="videos: S-tokens 2x3 are requested, but the shards hold neither"):
        where = [f"--checkpoint={trained}", f"--shards={world / 'videos'}", f"--output={tmp_path / 'no'}"]
        evaluate.main(["benchmark", *asked, *where])
    with pytest.raises(ValueError, match="were made differently: spatial_source: 'test; test' .* 'test; other'"):
        other = with_spatial(world, tmp_path / "other", **PATCHES | {"cls_attention": "other"})
        where = [f"--checkpoint={trained}", f"--shards={other}", f"--output={tmp_path / 'no'}"]
        evaluate.main(["benchmark", *asked, *where])


def test_features_of_another_width_need_an_adapter_of_their_own(expert, world, tmp_path):
    """As raw hidden states do (1024 where the projected space has 768)."""
    raw = f"--data.train=[{{shards: {other_width(world, tmp_path / 'raw')}, queries: {world / 'stage2.jsonl'}}}]"
    from_scratch = ["--model.previous=null", "--model.feature_width=12"]
    train.main(expert(tmp_path / "run", raw, *from_scratch, max_steps=1))
    assert TrainedModel.from_run(tmp_path / "run").feature_width == 12
    with pytest.raises(ValueError, match="the features are 12 wide, the adapter reads 8: set model.feature_width"):
        train.main(expert(tmp_path / "narrow", raw, max_steps=1))
    with pytest.raises(ValueError, match="adapter weights do not fit this model"):
        build(expert(tmp_path / "previous", raw, "--model.feature_width=12"))
    with pytest.raises(ValueError, match="the visual adapter would stay random"):
        build(expert(tmp_path / "frozen", raw, *from_scratch, "--model.tune_adapter=false"))


def other_width(world: Path, folder: Path) -> Path:
    """The world's videos with features and S-tokens of width 12."""
    reader = ShardReader(world / "videos")
    with ShardWriter(folder, replace(reader.header, **STORED, width=12)) as writer:
        for found in map(reader.read, reader.ids):
            features = np.pad(found.features, ((0, 0), (0, 4)))
            writer.add(replace(found, features=features, spatial=features[:6]))
    return folder


@pytest.mark.parametrize("joint", ["false", "true"])
def test_experts_may_sit_on_some_layers_only(expert, tmp_path, joint):
    settings = f"--model.experts={{rank: 8, target_modules: [q_proj, v_proj], joint: {joint}}}"
    model = build(expert(tmp_path / "run", settings)).model
    adapted = {name.split(".lora_")[0].rsplit(".")[-1] for name, _ in model.named_parameters() if "lora_" in name}
    assert adapted == {"q_proj", "v_proj"}


def test_the_papers_role_word_is_a_chat_format_of_its_own(expert, tmp_path):
    dialogue = build(expert(tmp_path / "run", "--model.chat=vicuna_videoexpert")).model.dialogue
    segments = list(dialogue.encoder.segments([("<video>\nWhen?", "During <LOC>.")]))
    assert "".join(text for text, _ in segments).endswith("USER: <video>\nWhen? VideoExpert: During <LOC>.</s>")


def test_a_batch_without_s_tokens_carries_none(expert, tmp_path):
    cli = build(expert(tmp_path / "run", "--model.spatial=null"))
    batch = next(iter(cli.datamodule.train_dataloader()))
    assert (batch.spatial, batch.spatial_mask) == (None, None)


def test_multiple_choice_is_learned_by_letter_and_grounded_by_its_question(module):
    query = Query("c", "v", "qa", "why does it sing?", options=("a dog", "a cat"), answer=1)
    dialogue = type(module.dialogue)(
        module.dialogue.tokenizer, module.dialogue.encoder.chat, module.localizer, "videoexpert"
    )
    wording = "why does it sing?\nA. a dog\nB. a cat\nAnswer with the option's letter from the given choices directly."
    turns = [turn for seed in range(40) for turn in dialogue.writer.turns(query, Random(seed))]
    assert {turn.answer for turn in turns} == {"B"}
    assert len({turn.question for turn in turns}) == 5
    assert all("why does it sing?" in turn.question and "A. a dog\nB. a cat" in turn.question for turn in turns)
    assert dialogue.writer.asked(query) == [Turn(wording, task="qa")]
    grounded = replace(query, task="grounded_qa", events=(Event(1, 2),))
    when = Turn("During which frames why does it sing? happen?", task="grounded_qa")
    assert dialogue.writer.asked(grounded) == [Turn(wording, task="qa"), when]
    dialogue.writer.one_prompt = True
    (both,) = dialogue.writer.asked(grounded)
    assert both.question.startswith("why does it sing?\nA. a dog\nB. a cat\n")
    assert "during which frames" in both.question
    own = replace(grounded, turns=(Turn("who sings, and when?"),))
    assert [turn.question for turn in dialogue.writer.asked(own)] == ["who sings, and when?"]
    with pytest.raises(ValueError, match="query c: its right option is not known"):
        dialogue.writer.turns(replace(query, answer=None), Random(0))


def test_the_papers_style_asks_for_moments_and_dense_captions_alone(module, world):
    dialogue = type(module.dialogue)(
        module.dialogue.tokenizer, module.dialogue.encoder.chat, module.localizer, "videoexpert"
    )
    queries = list(read_queries(world / "stage2.jsonl"))
    turns = [turn for query in queries for turn in dialogue.writer.turns(query, Random(query.id))]
    assert {turn.task for turn in turns} == {"grounding", "dense_captioning"}
    with pytest.raises(ValueError, match="style 'videoexpert' has no question for the caption of a segment"):
        dialogue.writer.turns(replace(queries[0], task="segment_captioning"), Random(0))


@pytest.fixture
def parsing_only(monkeypatch):
    monkeypatch.setattr(TrainingCLI, "instantiate_classes", lambda self: None)  # Vicuna is not here


def test_shipped_configs_hold_the_published_values(parsing_only):
    """VideoExpert, section 4.1; where it is silent, VTimeLLM's."""
    files = [f"--config={ROOT / 'configs' / name}.yaml" for name in ("videoexpert/pretrain", "data/videoexpert")]
    config = TrainingCLI(files).config.as_dict()
    model, trainer = config["model"]["init_args"], config["trainer"]
    assert (config["data"]["global_batch_size"], trainer["accumulate_grad_batches"]) == (128, None)
    assert (model["llm"], model["style"], model["spatial"]) == ("lmsys/vicuna-7b-v1.5", "videoexpert", "4x64")
    ranks = {"rank": 64, "temporal_share": 0.5, "scale": 2.0, "dropout": 0.05}
    assert model["experts"] == {**ranks, "target_modules": "all-linear", "joint": False}
    assert (model["optimization"]["lr"], model["optimization"]["warmup_ratio"]) == (1e-4, 0.03)
    assert (model["generation"]["max_new_tokens"], trainer["max_epochs"]) == (512, 2)
    assert model["localizer"]["init_args"]["smooth_l1_weight"] == 10
    tuned = TrainingCLI([*files, f"--config={ROOT / 'configs/videoexpert/finetune.yaml'}"]).config.as_dict()
    assert (str(tuned["model"]["init_args"]["previous"]), tuned["trainer"]["max_epochs"]) == ("runs/videoexpert", 3)
    changed = {"previous": tuned["model"]["init_args"]["previous"]}
    assert tuned["model"]["init_args"] == model | changed


def test_the_shipped_mixture_is_that_of_table_1(parsing_only):
    """With the published numbers of records; and nothing in it asks what happens at some time."""
    files = [f"--config={ROOT / 'configs' / name}.yaml" for name in ("videoexpert/pretrain", "data/videoexpert")]
    sources = {Path(source.shards).parent.name: source for source in TrainingCLI(files).config["data"]["train"]}
    records = {"internvid": 107_300, "activitynet": 10_009, "nextqa": 34_132}
    samples = {"internvid": 107_300, "activitynet": 28_200, "nextqa": 35_100}
    assert sources.keys() == records.keys()
    for name, source in sources.items():
        assert Part(records[name], source.weight).draws == pytest.approx(samples[name], rel=0.003)
    assert [source.queries.name for source in sources.values()] == ["events.jsonl", "events.jsonl", "train.jsonl"]


def test_the_shipped_configs_train_the_tiny_model_one_after_the_other(runs, llm, world, shards, tmp_path):
    """In bfloat16 and with recomputed activations."""
    source = f"[{{shards: {shards}, queries: {world / 'stage2.jsonl'}}}]"
    changes = [f"--model.llm={llm}", "--model.feature_width=8", SPATIAL, f"--data.train={source}"]
    changes += ["--data.num_workers=0", "--data.batch_size=4", "--trainer.max_steps=2", "--trainer.logger=false"]
    changes += ["--data.global_batch_size=8", "--trainer.enable_progress_bar=false"]
    configs = [f"--config={ROOT / 'configs/videoexpert' / name}.yaml" for name in ("pretrain", "finetune")]
    first, second = tmp_path / "first", tmp_path / "second"
    train.main([configs[0], *changes, f"--model.previous={runs[1]}", f"--output={first}"])
    train.main([*configs, *changes, f"--model.previous={first}", f"--output={second}"])
    weights = [read_weights(run) for run in (first, second)]
    for name in PARTS:
        before, after = (w.experts[name].tensors for w in weights)
        assert {tensor.dtype for tensor in after.values()} == {torch.float32}
        assert any(not torch.equal(before[key], after[key]) for key in after)


ROWS = {"table6": 12, "table7": 15, "table8": 15, "fig5": 15, "quickstart": 9}


@pytest.mark.parametrize("table", ROWS)
def test_every_point_of_every_sweep_is_a_valid_command(parsing_only, monkeypatch, table):
    monkeypatch.chdir(ROOT)
    settings = read_sweep(f"configs/sweeps/videoexpert_{table}.yaml")
    points = list(grid(settings["parameters"]))
    made = [TrainingCLI([*command(settings, p)[2:], "--output=x"]).config.as_dict() for p in points]
    different = {str((m["model"]["init_args"], m["seed_everything"])) for m in made}
    assert len(points) == len(different) == ROWS[table]
    assert {m["model"]["class_path"] for m in made} == {"lightning_modules.ExpertTuning"}


ABLATIONS = [
    *(f"--model.localizer.interaction={name}" for name in ("none", "concat", "attention")),
    *(f"--model.experts.temporal_share={share}" for share in (0, 1)),
    "--model.localizer.state=predicting",
    "--model.localizer.head_dim=4",
    "--model.localizer=TextTimestamps",
    "--model.experts.joint=true",
]


@pytest.mark.parametrize("change", ABLATIONS)
def test_every_ablation_learns_and_can_be_asked(expert, world, shards, tmp_path, change):
    output = tmp_path / "run"
    train.main(expert(output, change, max_steps=1))
    model = TrainedModel.from_run(output, dtype="float32")
    model.configure_model()
    prompt = model.dialogue.prompt(grounding("red", 1.0), video())
    (answer,) = model.answer(collate_prompts([prompt], 0))
    assert answer.query_id == "red"
    if "joint" in change:
        assert [lora.config.r for lora in read_weights(output).loras] == [8]
        build(expert(tmp_path / "more", change, previous=output))
