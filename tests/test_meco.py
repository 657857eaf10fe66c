"""MeCo on the tiny world: what learns, what is kept, and that neither batching nor sharing changes a map."""

import json
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from transformers import LogitsProcessorList

import evaluate
import train
from datamodules.batch import collate, collate_prompts
from datamodules.chat import chat_format
from datamodules.clip import Clip
from datamodules.dialogue import Dialogue
from datamodules.packing import pack
from datamodules.prediction import Prediction
from datamodules.query_files import read_queries, write_queries
from datamodules.schema import Event, Query, Turn, Video
from lightning_modules.scoring import compute_metrics, new_metrics, update_metrics
from lightning_modules.trained import TrainedModel
from lightning_modules.training_cli import TrainingCLI
from localizers import StructuralTokens
from models.adapters import LinearAdapter
from models.checkpoints import load_llm, load_tokenizer, read_weights
from models.feedback import Feedback
from models.video_llm import VideoLLM
from models.vocabulary import add_tokens

MECO = "--model.localizer=StructuralTokens"
TOKENS = 3


@pytest.fixture(scope="module")
def dialogue(llm):
    return Dialogue(load_tokenizer(llm), chat_format("vicuna_v1"), StructuralTokens())


@pytest.fixture(scope="module")
def model(llm, dialogue):
    torch.manual_seed(0)
    base, localizer = load_llm(llm, torch.float32), dialogue.localizer
    add_tokens(base, dialogue.tokenizer, localizer.special_tokens)
    width = base.config.hidden_size
    ids = [number for number, token in dialogue.special.items() if token in localizer.time_tokens]
    parts = LinearAdapter(8, width), localizer.head(width), localizer.states
    return VideoLLM(base, *parts, bidirectional=True, feedback=Feedback(localizer, tuple(ids))).eval()


def video(frames: int, name: str = "v") -> Video:
    features = np.random.default_rng(frames).standard_normal((frames, 8)).astype(np.float16)
    return Video(name, float(frames), np.arange(frames, dtype=float), features)


def grounding(name: str, start_s: float, end_s: float, text: str = "a robot") -> Query:
    return Query(name, "v", "grounding", text, events=(Event(start_s, end_s, text),))


def losses(dialogue, model, batch) -> dict[str, torch.Tensor]:
    output = model(batch)
    ids = {token: number for number, token in dialogue.special.items()}
    return {"lm": output.lm_loss, **dialogue.localizer.loss(model.head, output.states, batch, ids)}


def test_a_stage_learns_head_tokens_and_lora_and_hands_them_on(runs, arguments, tmp_path):
    first = tmp_path / "first"
    train.main([*arguments(2, first, previous=runs[1]), MECO])
    weights = read_weights(first)
    rows = [name for name in weights.loras[0].tensors if "trainable_tokens_delta" in name]
    assert {weights.loras[0].tensors[name].shape[0] for name in rows} == {TOKENS}
    assert len(rows) == 2
    fresh = StructuralTokens().head(32).state_dict()
    assert weights.head.keys() == fresh.keys()
    assert weights.head["logit_scale"] != fresh["logit_scale"]
    train.main([*arguments(3, tmp_path / "second", previous=first), MECO])
    second = read_weights(tmp_path / "second")
    assert torch.equal(second.loras[0].tensors[rows[0]], weights.loras[0].tensors[rows[0]])
    assert not torch.equal(second.head["vid_head.1.weight"], weights.head["vid_head.1.weight"])
    model = TrainedModel.from_run(tmp_path / "second")
    model.configure_model()
    torch.testing.assert_close(model.model.head.state_dict(), second.head)
    assert len(model.dialogue.special) == TOKENS


def test_the_whole_matrices_may_learn_as_released(runs, arguments, tmp_path):
    lora = "--model.lora={r: 4, alpha: 8, new_tokens: full}"
    train.main([*arguments(2, tmp_path / "run", previous=runs[1]), MECO, lora])
    names = read_weights(tmp_path / "run").loras[0].tensors
    assert sum("embed_tokens" in name or "lm_head" in name for name in names) == 2
    TrainedModel.from_run(tmp_path / "run").configure_model()


def test_heads_and_lora_may_have_two_learning_rates(runs, arguments, tmp_path):
    cli = TrainingCLI([*arguments(2, tmp_path, "--model.optimization.other_lr=0.5", previous=runs[1]), MECO])
    cli.trainer.fit(cli.model, cli.datamodule)
    low, high = sorted(cli.trainer.optimizers[0].param_groups, key=lambda group: group["initial_lr"])
    assert (low["initial_lr"], high["initial_lr"]) == (0.01, 0.5)
    names = {parameter: name for name, parameter in cli.model.named_parameters()}
    assert all("lora_" in names[parameter] for parameter in low["params"])
    assert {names[parameter].split(".")[1] for parameter in high["params"]} == {"head", "llm"}


def test_sharing_a_video_changes_neither_loss_nor_gradients(dialogue, model):
    queries = [grounding("a", 2.0, 5.0), grounding("b", 9.0, 14.0, "a red dog sings"), grounding("c", 0.0, 20.0)]
    examples = [dialogue.example(query, video(20), Random(0)) for query in queries]
    apart, together = collate(examples, 0), collate([pack(examples)], 0)
    torch.testing.assert_close(losses(dialogue, model, together), losses(dialogue, model, apart), rtol=1e-4, atol=1e-5)


def test_padding_does_not_leak_between_10_and_350_frames(dialogue, model):
    examples = [
        dialogue.example(query, video(frames), Random(0))
        for query, frames in ((grounding("a", 2.0, 5.0), 10), (grounding("b", 90.0, 140.0), 350))
    ]
    alone = [losses(dialogue, model, collate([example], 0))["grounding"] for example in examples]
    together = losses(dialogue, model, collate(examples, 0))["grounding"]
    torch.testing.assert_close(together, torch.stack(alone).mean(), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_maps_are_the_same_alone_and_with_others(dialogue, model):
    asked = [(10, "a", "a robot"), (350, "b", "a red dog jumps"), (350, "b", "a cat"), (30, "c", "a bird sings")]
    prompts = [
        dialogue.prompt(Query(f"{i}", name, "grounding", text), video(frames, name))
        for i, (frames, name, text) in enumerate(asked)
    ]
    settings = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0, "eos_token_id": -1}
    together = model.generate(collate_prompts(prompts, 0), **settings)
    for prompt, answer in zip(prompts, together, strict=True):
        (alone,) = model.generate(collate_prompts([prompt], 0), **settings)
        assert answer.ids.tolist() == alone.ids.tolist()
        maps = [dialogue.localizer.maps(a, list(range(8)), model.head) for a in (alone, answer)]
        assert maps[0].shape == (8, len(prompt.features))
        torch.testing.assert_close(maps[0], maps[1], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_what_predicts_a_token_is_read_at_the_next(dialogue, model):
    """A state that reads token k predicts token k + 1: generation keeps both, also for the last token."""
    prompt = dialogue.prompt(grounding("a", 2.0, 5.0), video(12))
    settings = {"max_new_tokens": 5, "do_sample": False, "pad_token_id": 0, "eos_token_id": -1}
    (answer,) = model.generate(collate_prompts([prompt], 0), **settings)
    for point in dialogue.localizer.states:
        assert answer.reading[point].shape == answer.predicting[point].shape == (5, 32)
        torch.testing.assert_close(answer.reading[point][:-1], answer.predicting[point][1:])


def test_a_reference_adds_its_frame_to_the_token(dialogue, model):
    turn = Turn("what is at <s0>?", "a robot.", times={"<s0>": 3.0})
    batch = collate([dialogue.example(Query("q", "v", "dialogue", turns=(turn,)), video(12), Random(0))], 0)
    assert int((~batch.moments.isnan()).all(-1).sum()) == 1
    features = batch.features.float().requires_grad_(True)
    seen = []
    hook = model.causal_lm.get_decoder().register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(kwargs["inputs_embeds"]), with_kwargs=True
    )
    object.__setattr__(batch, "features", features)
    model(batch)
    hook.remove()
    at = (~batch.moments[0, :, 0].isnan()).int().argmax()
    seen[0][0, at].sum().backward()
    assert (features.grad[0].abs().sum(-1) > 0).nonzero().flatten().tolist() == [3]
    model.zero_grad(set_to_none=True)


def test_text_that_would_lose_a_token_is_refused_by_name(llm):
    short = Dialogue(load_tokenizer(llm), chat_format("vicuna_v1"), StructuralTokens(), max_text_tokens=70)
    with pytest.raises(ValueError, match=r"query long: .*<ent>.* cut off"):
        short.example(grounding("long", 2.0, 5.0, "a robot " * 40), video(10), Random(0))


def test_a_batch_without_events_keeps_the_graph(dialogue, model):
    turn = Turn("what is this?", "a robot.")
    batch = collate([dialogue.example(Query("q", "v", "dialogue", turns=(turn,)), video(5), Random(0))], 0)
    loss = losses(dialogue, model, batch)["grounding"]
    loss.backward()
    assert loss.item() == 0
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in model.head.parameters())
    model.zero_grad(set_to_none=True)


@pytest.mark.parametrize("settings", [{"joint": True}, {"symmetric": True}, {"transitions": "partition"}])
def test_every_form_of_the_loss_has_gradients(llm, model, settings):
    dialogue = Dialogue(load_tokenizer(llm), chat_format("vicuna_v1"), StructuralTokens(**settings))
    batch = collate([dialogue.example(grounding("a", 2.0, 5.0), video(12), Random(0))], 0)
    loss = losses(dialogue, model, batch)["grounding"]
    loss.backward()
    assert loss.item() > 0
    assert all(parameter.grad.any() for name, parameter in model.head.named_parameters() if "0" not in name)
    model.zero_grad(set_to_none=True)


def answers(run: Path, tokens: list[str], change=lambda model: None) -> tuple[list[Prediction], dict]:
    """What a run answers to two queries, and its scores, when it is made to write the given tokens."""
    module = TrainedModel.from_run(run)
    module.configure_model()
    change(module.model)
    ids = [*module.dialogue.tokenizer.convert_tokens_to_ids(tokens), *module.dialogue.encoder.end]
    assert None not in ids

    class Forced:
        def settings(self) -> dict:
            step = iter(ids)

            def write(_, scores):
                scores = torch.full_like(scores, -1e9)
                scores[:, next(step)] = 0
                return scores

            return {"max_new_tokens": len(ids), "do_sample": False, "logits_processor": LogitsProcessorList([write])}

    module.answering = replace(module.answering, generation=Forced())
    queries = [grounding("a", 2.0, 5.0), Query("b", "v", "dense_captioning", events=(Event(0.0, 1.0, "x"),))]
    prompts = [module.dialogue.prompt(query, video(20)) for query in queries]
    found = module.answer(collate_prompts(prompts, module.dialogue.pad_id))
    metrics = new_metrics()
    update_metrics(metrics, zip(queries, found, strict=True))
    return found, compute_metrics(metrics)


@pytest.fixture(scope="module")
def run(runs, arguments, tmp_path_factory) -> Path:
    """A stage 2 of MeCo."""
    folder = tmp_path_factory.mktemp("meco") / "run"
    train.main([*arguments(2, folder, previous=runs[1]), MECO])
    return folder


def test_an_answer_with_events_has_spans_inside_the_video(run):
    found, scores = answers(run, ["<tst>", "a", "<ent>", "robot", "<ent>", "<tst>"])
    for prediction in found:
        assert prediction.answer.count("<ent>") == 2
        assert prediction.spans
        assert all(0 <= start < end <= 20 for start, end, _ in prediction.spans)
    assert set(found[1].captions) <= {"a", "robot"}
    assert len(found[1].captions) == len(found[1].spans)
    assert scores["grounding/unparsed"] == scores["dense_captioning/unparsed"] == 0


@pytest.mark.parametrize("tokens", [["a", "robot"], ["<tst>", "a", "robot", "<tst>"], []])
def test_an_answer_without_an_event_token_is_counted_as_unparsed(run, tokens):
    found, scores = answers(run, tokens)
    assert all(prediction.rule is None and not prediction.spans for prediction in found)
    assert scores["grounding/unparsed"] == scores["dense_captioning/unparsed"] == 1


def test_maps_of_nan_are_counted_as_unparsed_and_named(run):
    def spoil(model):
        model.head.frm_head[0].weight.data.fill_(torch.nan)

    with pytest.warns(UserWarning, match="query b: a similarity map holds NaN; counted as unparsed"):
        found, scores = answers(run, ["a", "<ent>"], spoil)
    assert all(prediction.rule is None and not prediction.spans for prediction in found)
    assert scores["grounding/unparsed"] == scores["dense_captioning/unparsed"] == 1


def test_a_trained_model_is_read_by_another_rule(run, world, tmp_path):
    """As released: one checkpoint, and a rule for each benchmark; which one it was stands in the protocol."""
    args = [f"--checkpoint={run}", f"--shards={world / 'videos'}", f"--queries={world / 'test/grounding.jsonl'}"]
    args += [f"--output={tmp_path}", "--num_workers=0", "--generation.max_new_tokens=4"]
    evaluate.main(["benchmark", *args, "--localizer.rule=etbench", "--localizer.threshold=0.5"])
    found = json.loads((tmp_path / "metrics.json").read_text())["protocol"]
    settings, trained = found["localizer"]["init_args"], found["localizer_trained"]["init_args"]
    assert (settings["rule"], settings["threshold"]) == ("etbench", 0.5)
    assert (trained["rule"], trained["threshold"]) == ("argmax", 0.7)
    assert {key for key in settings if settings[key] != trained[key]} == {"rule", "threshold"}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"captions": "query"}, "localizer.captions is no setting of decoding alone; of a trained StructuralTokens, "
                                "localizer.rule, localizer.threshold"),
        ({"ticks": 32}, "localizer.ticks is no setting of decoding alone"),
        ({"rule": "best"}, "Got value: best"),
    ],
)  # fmt: skip
def test_what_a_model_was_trained_with_stays(run, settings, words):
    with pytest.raises(ValueError, match=words):
        TrainedModel.from_run(run, localizer=settings)


@pytest.mark.parametrize(
    ("turn", "words"),
    [
        (Turn("?", "A.<ent>", events=(Event(1, 2), Event(3, 4))), "query bad: an answer with 1 <ent> .* its 2 events"),
        (Turn("?", "A.<ent> B.<ent>", events=(Event(1, 2),)), "query bad: an answer with 2 <ent> .* its 1 events"),
        (Turn("?", "A.<ent>", events=(Event(1, 30),)), "query bad: event 1..30 s is outside the video of 20.0 s"),
        (Turn("?", "A.<ent>", events=(Event(20, 21),)), "query bad: .*outside the video of 20.0 s"),
    ],
)
def test_answers_that_do_not_fit_their_video_are_refused_by_name(dialogue, turn, words):
    with pytest.raises(ValueError, match=words):
        dialogue.example(Query("bad", "v", "dialogue", turns=(turn,)), video(20), Random(0))


def test_dialogues_that_cannot_be_learned_are_skipped_and_counted(runs, arguments, world, tmp_path, capsys):
    good = list(read_queries(world / "stage2.jsonl"))
    fewer = Turn("?", "A.<ent>", events=(Event(1, 2), Event(3, 4)))
    long = Turn("?", task="dense_captioning", events=(Event(1, 2, "a robot " * 200),))
    bad = [Query(f"bad{i}", good[0].video, "dialogue", turns=(turn,)) for i, turn in enumerate((fewer, long))]
    write_queries(tmp_path / "mixed.jsonl", [*good, *bad])
    data = f"--data.train=[{{shards: {world / 'videos'}, queries: {tmp_path / 'mixed.jsonl'}}}]"
    line = [MECO, data, "--model.max_text_tokens=300", "--trainer.max_epochs=1"]
    with pytest.raises(ValueError, match="query bad"):
        train.main([*arguments(2, tmp_path / "run", *line, previous=runs[1], max_steps=-1)])
    line.append("--data.on_error=skip")
    train.main([*arguments(2, tmp_path / "again", *line, previous=runs[1], max_steps=-1)])
    told = capsys.readouterr().out
    assert "query bad0: an answer with 1 <ent>" in told
    assert "query bad1: its text has" in told
    assert "<ent>, <tst> would be cut off" in told


SHIPPED = ["stage1", "stage2", "stage3"]


@pytest.mark.parametrize("stage", SHIPPED)
@pytest.mark.parametrize("overlay", [False, True])
def test_shipped_configs_hold_the_published_values(stage, overlay, monkeypatch):
    """MeCo, table 7, and the released scripts; stages 1 and 2 of Phi-3 are E.T. Chat's."""
    monkeypatch.setattr(TrainingCLI, "instantiate_classes", lambda self: None)
    data = {"stage1": "lcs558k", "stage2": "videoinstruct", "stage3": "et_instruct"}[stage]
    qwen2 = [f"--config=configs/meco/{'qwen2_stage1' if stage == 'stage1' else 'qwen2'}.yaml"] if overlay else []
    files = [f"--config=configs/meco/{stage}.yaml", *qwen2, f"--config=configs/data/{data}.yaml"]
    config = TrainingCLI(files).config.as_dict()
    model, trainer = config["model"]["init_args"], config["trainer"]
    size = {"stage1": 256, "stage2": 128, "stage3": 32}[stage]
    assert (config["data"]["global_batch_size"], trainer["accumulate_grad_batches"]) == (size, None)
    assert model["llm"] == ("Qwen/Qwen2-7B-Instruct" if overlay else "microsoft/Phi-3-mini-4k-instruct")
    assert model["chat"] == ("plain" if stage == "stage1" else "qwen2" if overlay else "phi3")
    assert model["localizer"]["init_args"].get("bidirectional", False) is (stage == "stage3")
    rates = {"stage1": (2e-5 if overlay else 1e-3, None), "stage2": (2e-4, 2e-5), "stage3": (5e-5, 2e-5)}[stage]
    optimization = model["optimization"]
    assert (optimization["lr"], optimization["other_lr"]) == rates
    assert (optimization["warmup_ratio"], optimization["weight_decay"]) == (0.03, 0.0)
    assert (tuple(optimization["betas"]), trainer["gradient_clip_val"]) == ((0.9, 0.999), 1.0)
    assert (trainer["max_epochs"], model["max_text_tokens"]) == (1, 2048)
    if stage != "stage1":
        assert (model["lora"]["r"], model["lora"]["alpha"], model["lora"]["dropout"]) == (128, 256, 0.05)
        assert model["tune_adapter"]


def test_grounded_questions_are_asked_and_learned_in_one_turn(llm):
    dialogue = Dialogue(load_tokenizer(llm), chat_format("vicuna_v1"), StructuralTokens(), style="meco")
    event = Event(2.0, 5.0, detail="a dog stands on a stage")
    query = Query("s", "v", "grounded_qa", "who sings?", (event,), options=("a dog", "a cat"), answer=0)
    asked = dialogue.writer.question(query).question
    assert asked.startswith("Watch the video carefully with the question who sings? in mind")
    assert asked.endswith("Here are the options:\n(A) a dog (B) a cat")
    (turn,) = dialogue.writer.turns(query, Random(0))
    rendered = dialogue.localizer.render(turn, Clip(10.0, 10, 1.0), Random(0))
    assert rendered.answer == "<tst>\nA dog stands on a stage. Therefore, the answer is (A).<ent>\n<tst>"
    assert rendered.targets.events == ((2, 5),)


def test_a_query_in_its_own_words_is_asked_in_these(dialogue):
    turn = Turn("What is at <s0>?", task="grounding", times={"<s0>": 3.0})
    assert dialogue.writer.question(replace(grounding("a", 2.0, 5.0), turns=(turn,))) == turn


def test_the_sentence_of_the_released_prompts_is_not_changed(llm):
    dialogue = Dialogue(load_tokenizer(llm), chat_format("vicuna_v1"), StructuralTokens(), style="meco")
    assert "'A Robot sings.'" in dialogue.writer.question(grounding("a", 2.0, 5.0, "A Robot sings.")).question


def test_questions_of_every_task_have_a_wording(llm):
    dialogue = Dialogue(load_tokenizer(llm), chat_format("vicuna_v1"), StructuralTokens(), style="meco")
    options = {"options": ("a dog", "a cat"), "answer": 1}
    queries = [
        grounding("g", 2.0, 5.0),
        Query("d", "v", "dense_captioning", events=(Event(0, 1, "x"),)),
        Query("h", "v", "highlights", "a robot", saliency=((1.0,),), clip_s=2.0),
        Query("q", "v", "qa", "who sings?", **options),
        Query("s", "v", "grounded_qa", "who sings?", events=(Event(0, 1),), **options),
    ]
    for query in queries:
        assert dialogue.writer.question(query).question
    with pytest.raises(ValueError, match="query h: highlights are asked"):
        dialogue.writer.turns(queries[2], Random(0))
    assert "B. a cat" in dialogue.writer.question(queries[3]).question
