"""The choice of an adapter: what learns, what is kept, and that the frame compressor reads each question anew."""

import json
from dataclasses import replace
from random import Random

import numpy as np
import pytest
import torch
from test_frame_compressor import QFORMER, public_file
from transformers import BertTokenizer

import evaluate
import train
from datamodules.batch import collate, collate_prompts
from datamodules.query_files import read_queries
from datamodules.schema import Event, Query, Turn, Video
from datamodules.shards import ShardReader
from lightning_modules.trained import TrainedModel
from lightning_modules.training_cli import TrainingCLI
from models.adapters import Compressor, Linear, Mlp
from models.checkpoints import read_weights
from models.frame_compressor import PROJECTIONS, FrameCompressor
from preparation.features.shard_writer import ShardWriter

PATCHES = 4
SIZES = {
    name: getattr(QFORMER, name)
    for name in ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
} | {"vocab_size": 60, "max_position_embeddings": 300}
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "where", "is", "the", "robot", "dog", "cat", "?"]
WORDS += ["<", "vid", ">"]


@pytest.fixture(scope="module")
def settings(tmp_path_factory) -> Compressor:
    """A tiny Q-Former in the public layout, and a tokenizer."""
    folder = tmp_path_factory.mktemp("qformer")
    BertTokenizer(vocab={word: number for number, word in enumerate(WORDS)}).save_pretrained(folder / "bert")
    settings = Compressor(str(folder / "qformer.pth"), str(folder / "bert"), 3, SIZES)
    torch.manual_seed(0)
    torch.save({"model": public_file(settings.build(10, 8))}, folder / "qformer.pth")
    return settings


@pytest.fixture(scope="module")
def patched(world, tmp_path_factory):
    """The world's shards with patch tokens of width 10."""
    folder, random = tmp_path_factory.mktemp("patched"), np.random.default_rng(0)
    for kind in ("images", "videos"):
        reader = ShardReader(world / kind)
        header = replace(reader.header, patches="made up", patch_count=PATCHES, patch_width=10)
        with ShardWriter(folder / kind, header) as writer:
            for name in reader.ids:
                video = reader.read(name)
                patches = random.standard_normal((len(video.features), PATCHES, 10)).astype(np.float16)
                writer.add(replace(video, patches=patches))
    return folder


@pytest.fixture(scope="module")
def command(arguments, patched, world, settings):
    """Command line of a short run with the compressor."""

    def line(stage: int, output, *more: str, settings: Compressor = settings, **options) -> list[str]:
        source = patched / ("images" if stage == 1 else "videos")
        adapter = json.dumps({"class_path": "Compressor", "init_args": vars(settings)})
        lines = [f"--model.adapter={adapter}", "--model.feature_width=10"]
        lines += [f"--data.train=[{{shards: {source}, queries: {world / f'stage{stage}.jsonl'}}}]"]
        return arguments(stage, output, *lines, *more, **options)

    return line


@pytest.fixture(scope="module")
def trained(command, tmp_path_factory) -> dict:
    """Runs of stages 1 and 2 with the compressor."""
    folder = tmp_path_factory.mktemp("trained")
    train.main(command(1, folder / "1"))
    tuned = ("--model.localizer=StructuralTokens", "--model.tune_adapter=true")
    train.main(command(2, folder / "2", *tuned, previous=folder / "1"))
    return {stage: folder / str(stage) for stage in (1, 2)}


@pytest.fixture(scope="module")
def module(trained) -> TrainedModel:
    module = TrainedModel.from_run(trained[2])
    module.configure_model()
    return module


def video(frames: int = 6) -> Video:
    random = np.random.default_rng(frames)
    features, patches = (random.standard_normal((frames, *s)).astype(np.float16) for s in ((8,), (PATCHES, 10)))
    return Video("v", float(frames), np.arange(frames, dtype=float), features, patches)


def grounding(name: str, text: str) -> Query:
    return Query(name, "v", "grounding", text, events=(Event(1.0, 3.0, text),))


def learned(before: dict, after: dict) -> set[str]:
    return {name for name in before if not torch.equal(before[name], after[name])}


def test_each_stage_trains_its_parts_and_hands_them_on(trained, settings):
    start = settings.build(10, 32)
    settings.start(start)
    weights = {stage: read_weights(run) for stage, run in trained.items()}
    projections = {name for name in weights[1].adapter if name.split(".")[0] in PROJECTIONS}
    fixed = start.state_dict().keys() - projections
    assert all(torch.equal(weights[1].adapter[name], start.state_dict()[name]) for name in fixed)
    changed = learned(weights[1].adapter, weights[2].adapter)
    assert {"queries", "norm.weight", "up.weight", "qformer.encoder.layer.0.crossattention.attention.value.weight"} < (
        changed
    )
    assert not any("intermediate" in name or "embeddings" in name for name in changed)


def test_evaluation_rebuilds_the_adapter_from_the_manifest(trained, settings, patched, world, tmp_path):
    assert read_weights(trained[2]).manifest["adapter"] == settings.config()
    module = TrainedModel.from_run(trained[2])
    assert module.adapter_settings == settings
    module.configure_model()
    assert isinstance(module.model.adapter, FrameCompressor)
    torch.testing.assert_close(dict(module.model.adapter.state_dict()), read_weights(trained[2]).adapter)
    queries = world / "test" / "grounding.jsonl"
    args = [f"--checkpoint={trained[2]}", f"--queries={queries}", "--num_workers=0", "--generation.max_new_tokens=4"]
    evaluate.main(["benchmark", *args, f"--shards={patched / 'videos'}", f"--output={tmp_path / 'out'}"])
    report = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert report["metrics"]["grounding/n"] == len(list(read_queries(queries)))
    assert report["protocol"]["missing"] == 0
    with pytest.raises(ValueError, match="videos has no patch tokens, which the adapter reads"):
        evaluate.main(["benchmark", *args, f"--shards={world / 'videos'}", f"--output={tmp_path / 'no'}"])


@pytest.mark.parametrize("choice", [Linear(), Mlp()])
def test_adapters_of_pooled_features_round_trip(choice, arguments, tmp_path):
    train.main(arguments(1, tmp_path / "1", f"--model.adapter={type(choice).__name__}"))
    train.main(arguments(2, tmp_path / "2", f"--model.adapter={type(choice).__name__}", previous=tmp_path / "1"))
    weights = read_weights(tmp_path / "2")
    keys = {Linear: {"weight", "bias"}, Mlp: {"0.weight", "0.bias", "2.weight", "2.bias"}}[type(choice)]
    assert weights.adapter.keys() == keys
    assert not learned(read_weights(tmp_path / "1").adapter, weights.adapter)
    module = TrainedModel.from_run(tmp_path / "2")
    module.configure_model()
    assert module.adapter_settings == choice
    assert module.model.adapter(torch.zeros(2, 3, 8, dtype=torch.float16)).shape == (2, 3, 32)


def test_a_run_without_the_entry_has_the_linear_adapter(runs, tmp_path):
    manifest = read_weights(runs[2]).manifest
    assert manifest.pop("adapter") == {"class_path": "models.adapters.Linear", "init_args": {}}
    (tmp_path / "model").mkdir()
    for path in (runs[2] / "model").glob("*.safetensors"):
        (tmp_path / "model" / path.name).symlink_to(path)
    (tmp_path / "model" / "manifest.json").write_text(json.dumps(manifest))
    assert TrainedModel.from_run(tmp_path).adapter_settings == Linear()


def test_the_first_question_goes_to_the_compressor_and_keeps_its_end(module):
    turns = (Turn("<video>\nWhere is the <s0> robot?", "there.", times={"<s0>": 2.0}), Turn("the cat?", "no."))
    example = module.dialogue.example(Query("q", "v", "dialogue", turns=turns), video(), Random(0))
    asked = ["[CLS]", "where", "is", "the", "<", "vid", ">", "robot", "?", "[SEP]"]
    assert example.question_ids.tolist() == [WORDS.index(word) for word in asked]
    assert example.features.shape == (6, PATCHES, 10)
    long = Turn("dog " * 300 + "cat ?", "no.")
    ids = module.dialogue.example(Query("q", "v", "dialogue", turns=(long,)), video(), Random(0)).question_ids
    assert len(ids) == 256
    assert [WORDS[i] for i in ids[-3:]] == ["cat", "?", "[SEP]"]


def test_padding_of_questions_and_frames_changes_no_loss(module):
    examples = [
        module.dialogue.example(grounding("a", "the robot"), video(6), Random(0)),
        module.dialogue.example(grounding("b", "where is the dog"), video(9), Random(0)),
    ]
    together = collate(examples, 0)
    assert (together.question_ids[0] == -1).any()
    apart = [collate([example], 0) for example in examples]
    counts = torch.tensor([float((batch.labels != -100).sum()) for batch in apart])
    alone = torch.stack([module.model(batch).lm_loss for batch in apart])
    torch.testing.assert_close(module.model(together).lm_loss, (alone * counts).sum() / counts.sum())


def test_a_video_is_read_once_for_each_question(module):
    texts = ("the robot", "the dog", "the dog")
    prompts = [module.dialogue.prompt(grounding(str(i), text), video()) for i, text in enumerate(texts)]
    batch = collate_prompts(prompts, 0)
    assert batch.video_of_query.tolist() == [0, 1, 1]
    assert len(batch.features) == len(batch.question_ids) == 2
    settings = {"max_new_tokens": 4, "do_sample": False, "pad_token_id": 0, "eos_token_id": -1}
    for prompt, answer in zip(prompts, module.model.generate(batch, **settings), strict=True):
        (alone,) = module.model.generate(collate_prompts([prompt], 0), **settings)
        assert alone.ids.tolist() == answer.ids.tolist()
        for point, states in alone.frames.items():
            torch.testing.assert_close(answer.frames[point], states, rtol=1e-4, atol=1e-5)


def test_the_question_changes_the_frames(module):
    prompts = [module.dialogue.prompt(grounding("q", text), video()) for text in ("the robot", "the dog")]
    batches = [collate_prompts([prompt], 0) for prompt in prompts]
    frames = [module.model.adapter(b.features, b.question_ids, b.question_ids >= 0) for b in batches]
    assert not torch.allclose(*frames)


def test_queries_do_not_share_a_sequence(command, trained, tmp_path):
    with pytest.raises(ValueError, match=r"a video anew for every question: set data.queries_per_video to 1"):
        train.main(command(2, tmp_path, "--data.queries_per_video=2", previous=trained[1]))


def test_shards_and_videos_without_patches_are_named(module, command, world, trained, tmp_path):
    with pytest.raises(ValueError, match=r"video v has no patch tokens.* --patches true"):
        module.dialogue.prompt(grounding("a", "cat"), replace(video(), patches=None))
    source = f"--data.train=[{{shards: {world / 'videos'}, queries: {world / 'stage2.jsonl'}}}]"
    with pytest.raises(ValueError, match=r"world.*videos has no patch tokens.* --patches true"):
        train.main(command(2, tmp_path, source, previous=trained[1]))


@pytest.mark.parametrize(
    ("change", "more", "words"),
    [
        ({"weights": None}, [], "the Q-Former would stay random and frozen"),
        ({"tokenizer": "/no/where"}, [], "adapter tokenizer '/no/where' is neither a folder"),
        ({"qformer": {"vocab_size": 9}}, [], "has 15 words, the Q-Former 9"),
        ({}, ["--model.feature_width=11"], r"qformer.pth: frame compressor weights do not fit.* of another shape"),
        ({}, ["--model.spatial=2x2"], "S-tokens go through the adapter as they are"),
    ],
)
def test_settings_that_do_not_fit_are_refused(command, settings, tmp_path, change, more, words):
    with pytest.raises(ValueError, match=words):
        TrainingCLI(command(1, tmp_path, *more, settings=replace(settings, **change))).model.configure_model()


def test_another_adapter_than_the_previous_stage_is_refused(arguments, runs, tmp_path):
    with pytest.raises(ValueError, match="adapter weights do not fit this model"):
        TrainingCLI(arguments(2, tmp_path, "--model.adapter=Mlp", previous=runs[1])).model.configure_model()


@pytest.mark.parametrize("stage", ["stage1", "stage2", "stage3"])
def test_the_shipped_overlay_fits_every_stage(stage, monkeypatch):
    monkeypatch.setattr(TrainingCLI, "instantiate_classes", lambda self: None)
    data = {"stage1": "lcs558k", "stage2": "videoinstruct", "stage3": "et_instruct"}[stage]
    files = [f"configs/meco/{stage}.yaml", "configs/meco/compressor.yaml", f"configs/data/{data}.yaml"]
    model = TrainingCLI([f"--config={file}" for file in files]).config.as_dict()["model"]["init_args"]
    assert model["adapter"]["class_path"] == "models.adapters.Compressor"
    assert model["feature_width"] == 1408
