"""VTimeLLM against numbers from its official code: prompts, tokens, loss, gradients, training, answers, weights."""

import json
from random import Random

import lightning as L
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from callbacks.randomness import StepRandomness
from datamodules.batch import Batch, collate, collate_prompts
from datamodules.chat import CHAT_FORMATS, ChatEncoder, chat_format
from datamodules.clip import Clip
from datamodules.dialogue import Dialogue
from datamodules.schema import Event, Query, Turn, Video
from lightning_modules import BoundaryPerception, FeatureAlignment, InstructionTuning
from lightning_modules.boundary_perception import LoraSettings
from lightning_modules.optimization import Optimization
from lightning_modules.trained import TrainedModel
from localizers import TextTimestamps
from localizers.answer import Answer
from metrics.grounding import grounding_scores
from models.adapters import LinearAdapter
from models.checkpoints import Lora, Weights, add_lora, lora_config, merge_loras, write_weights
from models.video_llm import VideoLLM

pytestmark = pytest.mark.golden


@pytest.fixture(scope="module")
def files(golden):
    return golden / "models" / "vtimellm"


@pytest.fixture(scope="module")
def read(files):
    return lambda name: json.loads((files / name).read_text())


@pytest.fixture(scope="module")
def tokenizer(files):
    return AutoTokenizer.from_pretrained(files / "tokenizer")


@pytest.fixture(scope="module")
def base(files, read, tokenizer, tmp_path_factory):
    """The tiny Vicuna as an ordinary checkpoint folder."""
    config = read("config.json")
    config.pop("clip_feature_dim")
    model = LlamaForCausalLM(LlamaConfig(**config))
    model.load_state_dict(load_file(files / "base.safetensors"))
    folder = tmp_path_factory.mktemp("base")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def weights(files, read):
    """Adapter and both LoRAs."""
    lora = read("expected.json")["lora"]
    config = lora_config(lora["r"], lora["alpha"], 0.0)
    projector = load_file(files / "projector.safetensors")
    adapter = {key.removeprefix("mm_projector."): value for key, value in projector.items()}
    return Weights(adapter, [Lora(config, load_file(files / f"lora_stage{n}.safetensors")) for n in (2, 3)])


@pytest.fixture(scope="module")
def make_batch(files, read, tokenizer):
    features = load_file(files / "features.safetensors")

    def video(name: str) -> Video:
        array = features[name].numpy()
        array = array[None] if array.ndim == 1 else array
        return Video(name, 1.0, np.zeros(len(array)), array)

    def batch(stage: int) -> Batch:
        dialogue = Dialogue(tokenizer, chat_format(FORMATS[stage]), TextTimestamps())
        examples = [
            dialogue.example(as_query(raw), video(raw["id"]), Random(0)) for raw in read("data.json")[f"stage{stage}"]
        ]
        return collate(examples, dialogue.pad_id)

    batch.video = video
    return batch


FORMATS = {1: "plain", 2: "vicuna_v1", 3: "vicuna_v1"}


def as_turns(raw: dict) -> tuple[Turn, ...]:
    turns, times = raw["conversations"], raw.get("meta", {}).get("token", {})
    turns = turns[1:] if turns[0]["from"] != "human" else turns  # as released: what the assistant begins with is lost
    return tuple(
        Turn(ask["value"].replace("<image>", "<video>"), say["value"], times=times)
        for ask, say in zip(turns[::2], turns[1::2], strict=True)
    )


def as_query(raw: dict) -> Query:
    duration_s = raw.get("meta", {}).get("duration")
    return Query(raw["id"], raw["id"], "dialogue", turns=as_turns(raw), duration_s=duration_s)


def rendered(raw: dict) -> list[tuple[str, str]]:
    localizer, duration_s = TextTimestamps(legacy_negative=True), raw.get("meta", {}).get("duration")
    turns = [localizer.render(turn, Clip(duration_s, 1, 1.0), Random(0)) for turn in as_turns(raw)]
    return [(turn.question, turn.answer) for turn in turns]


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_vtimellm_prompts_ids_and_labels(stage, read, tokenizer):
    encoder = ChatEncoder(tokenizer, CHAT_FORMATS[FORMATS[stage]])
    expected = read("text.json")[f"stage{stage}"]["legacy_false"]
    for raw, item in zip(read("data.json")[f"stage{stage}"], expected, strict=True):
        turns = rendered(raw)
        assert "".join(text for text, _ in encoder.segments(turns)) == item["prompt"]
        assert encoder.encode(turns) == (item["input_ids"], item["labels"])


def test_vtimellm_edge_case_prompts(read, tokenizer):
    encoder = ChatEncoder(tokenizer, CHAT_FORMATS["vicuna_v1"])
    for name, item in read("text.json")["extra"].items():
        ids, labels = encoder.encode(rendered(item["raw"]))
        expected = item["legacy_false"]
        assert "".join(text for text, _ in encoder.segments(rendered(item["raw"]))) == expected["prompt"]
        if "<unk>" in expected["prompt"]:
            # The official code loses all labels of such a sample (and its tokenizer adds a lone prefix): not repeated.
            assert any(label >= 0 for label in labels), name
        else:
            assert (ids, labels) == (expected["input_ids"], expected["labels"]), name


def test_vtimellm_truncation(read, make_batch, tokenizer):
    for length, expected in read("text.json")["truncation"].items():
        for raw, ids, labels in zip(
            read("data.json")["stage2"], expected["input_ids"], expected["labels"], strict=True
        ):
            dialogue = Dialogue(tokenizer, CHAT_FORMATS["vicuna_v1"], TextTimestamps(), max_text_tokens=int(length))
            video = make_batch.video(raw["id"])
            if -200 not in ids:  # the official code goes on without the video; here that is refused
                with pytest.raises(ValueError, match="max_text_tokens"):
                    dialogue.example(as_query(raw), video, Random(0))
                continue
            example = dialogue.example(as_query(raw), video, Random(0))
            words = example.input_ids[~example.frame_mask].tolist()
            real = [i for i in ids if i not in (0, -200)]
            assert words == real
            assert example.labels[~example.frame_mask].tolist() == [
                label for i, label in zip(ids, labels, strict=True) if i not in (0, -200)
            ]


def model_of(stage: int, base, weights: Weights) -> VideoLLM:
    llm = LlamaForCausalLM.from_pretrained(base, dtype=torch.float32).requires_grad_(False)
    adapter = LinearAdapter(*reversed(weights.adapter["weight"].shape))
    adapter.load_state_dict(weights.adapter)
    if stage > 1:
        llm = merge_loras(llm, weights.loras[: stage - 2])
        llm = add_lora(llm, weights.loras[stage - 2].config, weights.loras[stage - 2].tensors)
        adapter.requires_grad_(False)
    return VideoLLM(llm, adapter)


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_vtimellm_loss_logits_and_every_gradient(stage, files, read, base, weights, make_batch):
    expected = load_file(files / f"stage{stage}.safetensors")
    batch = make_batch(stage)
    assert torch.equal(batch.labels, expected["spliced.labels"].long())
    assert torch.equal(batch.attention_mask.bool(), expected["spliced.attention_mask"].bool())
    model = model_of(stage, base, weights)
    embedded, _ = model.embed(batch.input_ids, batch.frame_mask, batch.features, batch.feature_mask)
    real = batch.attention_mask.bool()
    torch.testing.assert_close(embedded.sum(-1)[real], expected["spliced.embeds_rowsum"][real], rtol=1e-4, atol=1e-4)

    output = model(batch)
    assert output.lm_loss.item() == pytest.approx(expected["loss"].item(), rel=1e-5)
    supervised = (batch.labels[:, 1:] != -100).nonzero().tolist()
    row = {tuple(place): number for number, place in enumerate(supervised)}
    compared = 0
    for place, logits in zip(expected["logits_pos"].tolist(), expected["logits_at_pos"], strict=True):
        if tuple(place) in row:
            torch.testing.assert_close(output.logits[row[tuple(place)]], logits, rtol=0, atol=1e-4)
            compared += 1
    assert compared > 0
    nll = torch.nn.functional.cross_entropy(
        output.logits, batch.labels[:, 1:][batch.labels[:, 1:] != -100], reduction="none"
    )
    official = expected["token_nll"][batch.labels[:, 1:] != -100]
    torch.testing.assert_close(nll, official, rtol=1e-4, atol=1e-4)

    output.lm_loss.backward()
    gradients = {
        name.replace("adapter.", "model.mm_projector.").removeprefix("llm."): parameter.grad
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }
    assert sorted(gradients) == sorted(read("expected.json")[f"stage{stage}"]["trainable"])
    for name, gradient in gradients.items():
        wanted = expected[f"grad.{name}"]
        assert (gradient - wanted).norm() <= 1e-4 * wanted.norm(), name


class FixedBatch(L.LightningDataModule):
    """The golden batch, again and again."""

    def __init__(self, batch: Batch):
        super().__init__()
        self.batch = batch

    def train_dataloader(self):
        return torch.utils.data.DataLoader([0] * 100, batch_size=1, collate_fn=lambda _: self.batch)


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_vtimellm_four_training_steps(stage, read, base, weights, make_batch, tmp_path):
    """Our stage modules under Lightning walk the path of the official trainer: losses, learning rates, norms."""
    expected = read("expected.json")[f"stage{stage}"]["train_run"]
    settings = expected["args"]
    previous = Weights(weights.adapter, weights.loras[: stage - 2] if stage > 1 else [])
    write_weights(tmp_path / "previous", Weights(previous.adapter, previous.loras, {"stage": "before"}))
    kind = {1: FeatureAlignment, 2: BoundaryPerception, 3: InstructionTuning}[stage]
    config = weights.loras[0].config
    lora = {} if stage == 1 else {"lora": LoraSettings(config.r, config.lora_alpha, 0.0)}
    module = kind(
        llm=str(base),
        localizer=TextTimestamps(),
        previous=tmp_path / "previous",
        chat=FORMATS[stage],
        optimization=Optimization(settings["lr"], settings["warmup_ratio"]),
        **lora,
    )
    module.configure_model()
    if stage > 1:
        start = weights.loras[stage - 2].tensors
        own = dict(module.model.llm.named_parameters())
        for name, tensor in start.items():
            own[name.replace(".weight", ".default.weight")].data.copy_(tensor)
    before = {n: p.detach().clone() for n, p in module.model.named_parameters() if p.requires_grad}
    steps = Steps()
    L.Trainer(
        max_steps=settings["max_steps"],
        gradient_clip_val=settings["max_grad_norm"],
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[StepRandomness(), steps],
    ).fit(module, FixedBatch(make_batch(stage)))
    for (loss, rate), (official_loss, official_rate) in zip(
        steps.seen, expected["loss_and_lr_used_per_step"], strict=True
    ):
        assert rate == pytest.approx(official_rate, abs=1e-12)
        assert loss == pytest.approx(official_loss, rel=2e-5)
    for name, parameter in module.model.named_parameters():
        if parameter.requires_grad:
            official = name.replace("adapter.", "model.mm_projector.").removeprefix("llm.")
            assert parameter.norm().item() == pytest.approx(expected["param_norm_after"][official], rel=1e-4)
            change = (parameter - before[name]).norm().item()
            assert change == pytest.approx(expected["param_delta_norm"][official], rel=1e-3)


class Steps(L.Callback):
    """Loss and learning rate of each step."""

    def __init__(self):
        self.seen = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.rate = trainer.optimizers[0].param_groups[0]["lr"]

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.seen.append((outputs["loss"].item(), self.rate))


@pytest.mark.parametrize(("kind", "loras"), [("stage1_only", 0), ("stage2", 1), ("stage3", 2)])
def test_vtimellm_greedy_answers_with_shared_prefix(kind, loras, read, base, weights, make_batch, tokenizer):
    """All queries in one batch; those of one video share its prefix. Equal to the official one-by-one generation."""
    model = model_of(1, base, weights).eval()
    model.llm = merge_loras(model.llm, weights.loras[:loras])
    dialogue = Dialogue(tokenizer, CHAT_FORMATS["vicuna_v1"], TextTimestamps())
    items = [item for item in read("generation.json") if item["weights"] == kind]
    assert items
    prompts = []
    for number, item in enumerate(items):
        query = Query(str(number), item["video"], "dialogue", turns=(Turn(item["query"]),))
        assert dialogue.encoder.encode([(item["query"], None)])[0] == item["input_ids"]
        prompts.append(dialogue.prompt(query, make_batch.video(item["video"])))
    batch = collate_prompts(prompts, dialogue.pad_id)
    assert len(batch.prefix_ids) < len(items)
    length = max(len(item["new_ids"]) for item in items)
    answers = model.generate(batch, max_new_tokens=length, do_sample=False, pad_token_id=dialogue.pad_id)
    for item, answer in zip(items, answers, strict=True):
        assert answer.ids.tolist()[: len(item["new_ids"])] == item["new_ids"]


def test_vtimellm_released_weights_are_read_and_merged(files, base, read, make_batch):
    module = TrainedModel.from_run(files / "official_layout", llm=str(base))
    module.configure_model()
    merged = load_file(files / "merged_stage3_layer0.safetensors")
    own = module.model.causal_lm.state_dict()
    assert merged
    for name, tensor in merged.items():
        torch.testing.assert_close(own[name], tensor, rtol=1e-5, atol=1e-6)
    items = [item for item in read("generation.json") if item["weights"] == "stage3"]
    query = Query("q", items[0]["video"], "dialogue", turns=(Turn(items[0]["query"]),))
    batch = collate_prompts([module.dialogue.prompt(query, make_batch.video(query.video))], module.dialogue.pad_id)
    (answer,) = module.model.generate(batch, max_new_tokens=24, do_sample=False, pad_token_id=0)
    assert answer.ids.tolist()[: len(items[0]["new_ids"])] == items[0]["new_ids"]


def test_vtimellm_query_normalisation(read, tokenizer):
    dialogue = Dialogue(tokenizer, CHAT_FORMATS["vicuna_v1"], TextTimestamps())
    for item in read("eval.json")["query_normalisation"]:
        query = Query("q", "v", "grounding", text=item["raw"])
        assert dialogue.writer.question(query).question == item["prompt_query"]


def test_vtimellm_grounding_answers(read):
    """Windows read from answers, on the official 0..1 clock. The official IoU is rounded to two decimals."""
    for item in read("eval.json")["iou"]:
        query = Query("q", "v", "grounding", text="x")
        prediction = TextTimestamps().decode(query, Answer(item["answer"]), Clip(1.0, 1, 1.0))
        spans = [span[:2] for span in prediction.spans]
        score = grounding_scores([spans], [[item["gt"]]])["mIoU"] / 100
        assert score == pytest.approx(item["iou"], abs=0.0051), item


def test_vtimellm_dense_caption_answers(read):
    parse = read("eval.json")["dvc_parse"]
    for log in parse["logs"]:
        if log["task"] == "captioning":
            query = Query("q", log["video_id"], "dense_captioning", events=(Event(0, 1, "x"),))
            clip = Clip(parse["gt"][log["video_id"]]["duration"], 1, 1.0)
            prediction = TextTimestamps().decode(query, Answer(log["answer"]), clip)
            found = [
                {"sentence": caption, "timestamp": list(span[:2])}
                for caption, span in zip(prediction.captions, prediction.spans, strict=True)
            ]
            assert found == parse["parsed"][log["video_id"]]
