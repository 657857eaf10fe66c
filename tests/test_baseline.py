"""The baseline without a language model on the tiny world: what it reads, learns, keeps, answers and refuses."""

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch

import evaluate
import train
from datamodules.batch import collate, collate_prompts
from datamodules.chat import IGNORE, chat_format
from datamodules.dialogue import Dialogue
from datamodules.packing import pack
from datamodules.query_files import read_queries, write_queries
from datamodules.schema import Event, Query, Turn, Video
from datamodules.shards import ShardReader
from lightning_modules.trained import TrainedModel
from lightning_modules.training_cli import TrainingCLI
from localizers.sentence_matching import SentenceMatching, sentences
from models.checkpoints import read_weights
from preparation.features.shard_writer import ShardWriter
from preparation.world.tiny import save_tiny_lm, tiny_lm
from sweeps.table import last_metrics

ROOT = Path(__file__).parent.parent
EVENTS = (Event(2.0, 12.0, "a Red robot sings."), Event(15.0, 39.0, "the green dog jumps and sings"))


@pytest.fixture(scope="module")
def baseline(world, llm):
    """Gives the command line of a short run: ``baseline(output, *more, max_steps=..)``."""

    def command_line(output: Path, *more: str, max_steps: int = 3) -> list[str]:
        lines = ["--model=Baseline", f"--model.llm={llm}", "--model.localizer=SentenceMatching"]
        lines += [f"--model.localizer.{name}" for name in ("head_dim=16", "layers=2", "attention_heads=2")]
        lines += ["--model.chat=bare", "--model.style=sentence", "--model.feature_width=8"]
        lines += ["--model.optimization.lr=1e-2", f"--output={output}"]
        lines += [f"--data.train=[{{shards: {world / 'videos'}, queries: {world / 'stage2.jsonl'}}}]"]
        lines += ["--data.batch_size=4", "--data.num_workers=0", f"--trainer.max_steps={max_steps}"]
        lines += ["--trainer.logger=false", "--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu"]
        return [*lines, "--trainer.enable_model_summary=false", *more]

    return command_line


def test_saliency_losses_learn_and_rank_highlights(baseline, world, tmp_path):
    """UniVTG's: the terms are there and finite, the pool learns, and every frame has a score that is no probability."""
    weights = ["--model.localizer.inter_weight=0.3", "--model.localizer.intra_weight=0.1"]
    score = "--model.localizer.saliency_score=cosine"
    module = build([*baseline(tmp_path / "first"), *weights, score])
    dialogue = module.dialogue
    query = Query("q", "v", "grounding", "a red robot sings", events=EVENTS[:1])
    features = np.random.default_rng(0).standard_normal((40, 8)).astype(np.float16)
    video = Video("v", 40.0, np.arange(40.0), features)
    absent = Query("n", "v", "grounding", "a whale", absent=True)
    found = terms(module, collate([dialogue.example(one, video, Random(0)) for one in (query, absent)], 0))
    assert found["inter"].isfinite() and found["intra"].isfinite() and found["intra"] > 0
    nobody = terms(module, collate([dialogue.example(absent, video, Random(0))], 0))
    assert nobody["inter"] == nobody["intra"] == 0
    train.main([*baseline(tmp_path / "run"), *weights, score])
    head = read_weights(tmp_path / "run").head
    assert head["pool"].shape == (16, 1)
    args = [f"--checkpoint={tmp_path / 'run'}", f"--shards={world / 'videos'}"]
    args += [f"--queries={world / 'test/grounding.jsonl'}", f"--output={tmp_path / 'out'}", "--num_workers=0"]
    evaluate.main(["benchmark", *args])
    lines = map(json.loads, (tmp_path / "out/predictions.jsonl").read_text().splitlines())
    assert all(len(line["saliency"]) and min(line["saliency"]) >= -1.001 for line in lines)
    with pytest.raises(ValueError, match="is not learned: set inter_weight or intra_weight"):
        SentenceMatching(saliency_score="sum")


def build(args: list[str]):
    """The module of a command line, ready for its first step."""
    cli = TrainingCLI(args)
    cli.model.configure_model()
    return cli.model


def terms(module, batch) -> dict[str, torch.Tensor]:
    """The loss terms of a batch, as training adds them up."""
    ids = {token: number for number, token in module.dialogue.special.items()}
    return module.localizer.loss(module.model.head, module.model(batch).states, batch, ids)


def video(name: str = "v", frames: int = 16) -> Video:
    features = np.random.default_rng(frames).standard_normal((frames, 8)).astype(np.float16)
    return Video(name, 40.0, (np.arange(frames) + 0.5) * 40 / frames, features)


@pytest.fixture(scope="module")
def run(baseline, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("baseline") / "run"
    train.main(baseline(folder))
    return folder


@pytest.fixture(scope="module")
def module(run) -> TrainedModel:
    """The model of that run."""
    model = TrainedModel.from_run(run, dtype="float32")
    model.configure_model()
    return model


def words(module, batch) -> list[str]:
    """The sentence of each ``<LOC>`` of a batch, as the head is given it."""
    is_loc = torch.isin(batch.labels, torch.tensor(list(module.dialogue.special)))
    ids, mask = sentences(batch, is_loc, batch.input_ids)
    return [module.dialogue.tokenizer.decode(row[of]).strip() for row, of in zip(ids, mask, strict=True)]


def test_every_event_is_a_sentence_of_its_own_and_nothing_else_is_said(module):
    query = Query("q", "v", "events", events=EVENTS)
    examples = [module.dialogue.example(query, video(frames=n), Random(n)) for n in (16, 9)]
    assert [len(example.targets) for example in examples] == [2, 2]
    expected = ["a red robot sings", "the green dog jumps and sings"]
    found = words(module, collate(examples, 0))
    assert len(found) == 4 and sorted(found) == sorted(2 * expected)
    packed = pack([module.dialogue.example(replace(query, id=name), video(), Random(name)) for name in "ab"])
    assert sorted(words(module, collate([packed], 0))) == sorted(2 * expected)


def test_words_of_other_conversation_formats_are_only_more_words(module, llm):
    """Two windows of one answer have the same question; what is said about the first is not part of it."""
    tokenizer = module.dialogue.tokenizer
    dialogue = Dialogue(tokenizer, chat_format("vicuna_v1"), module.localizer, "videoexpert")
    turn = Turn("When?", "<LOC> and then <LOC>", "grounded_qa", EVENTS)
    dialogue.writer.turns = lambda query, random: [turn, replace(turn, question="Where?")]
    batch = collate([dialogue.example(Query("q", "v", "grounding", "x"), video(), Random(0))], 0)
    first, again, second, _ = words(module, batch)
    assert first == again
    assert "when?" in first and "where?" not in first
    assert "where?" in second and "when?" not in second and "and then" not in second


def test_terms_do_not_depend_on_what_a_batch_pads(module):
    queries = [Query("long", "v", "events", events=EVENTS), Query("short", "w", "grounding", "dogs", EVENTS[:1])]
    a, b = (module.dialogue.example(q, video(q.video, n), Random(0)) for q, n in zip(queries, (16, 9), strict=True))
    alone, together = (
        [terms(module, collate([part], 0))["indicator"] for part in (a, b)],
        terms(module, collate([a, b], 0)),
    )
    assert list(together) == ["indicator", "smooth_l1", "giou"]
    torch.testing.assert_close(together["indicator"], (2 * alone[0] + alone[1]) / 3, rtol=1e-4, atol=1e-6)


def test_one_batch_can_be_learned_by_heart(baseline, tmp_path):
    module = build(baseline(tmp_path / "run", "--model.localizer.dropout=0"))
    queries = [Query(event.caption, "v", "grounding", event.caption, (event,)) for event in EVENTS]
    batch = collate([module.dialogue.example(query, video(), Random(0)) for query in queries], 0)
    optimizer = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], lr=3e-3)
    for _ in range(240):
        optimizer.zero_grad()
        sum(terms(module, batch).values()).backward()
        optimizer.step()
    module.model.eval()
    with torch.inference_mode():
        answers = module.answer(collate_prompts([module.dialogue.prompt(query, video()) for query in queries], 0))
    for query, answer in zip(queries, answers, strict=True):
        np.testing.assert_allclose(answer.spans[0][:2], query.events[0].span, atol=1.0)
        assert answer.rule == "ranked frames" and answer.answer.endswith("s")
        assert len(answer.saliency) == 16


def test_adapter_and_head_learn_and_word_vectors_are_frozen(baseline, tmp_path):
    cli = TrainingCLI(baseline(tmp_path / "run"))
    cli.model.configure_model()
    before = {name: value.detach().clone() for name, value in cli.model.named_parameters()}
    cli.trainer.fit(cli.model, cli.datamodule)
    changed = {name for name, value in cli.model.named_parameters() if not torch.equal(value, before[name])}
    assert changed == before.keys() - {"model.llm.weight"}
    assert {name.split(".")[1] for name in changed} == {"adapter", "head"}


def test_a_run_names_its_base_localizer_and_features_and_holds_no_language_model(run, llm):
    manifest = read_weights(run).manifest
    assert (manifest["stage"], manifest["base"]["name"]) == ("Baseline", llm)
    assert manifest["localizer"]["class_path"] == "localizers.sentence_matching.SentenceMatching"
    assert manifest["localizer"]["init_args"]["layers"] == 2
    assert manifest["features"]["sampling"] == "uniform 16"
    names = {path.name for path in (run / "model").iterdir()}
    assert names == {"adapter.safetensors", "head.safetensors", "manifest.json"}


def test_a_run_goes_on_with_its_own_weights_and_from_a_first_stage(baseline, run, module, runs, tmp_path):
    again = build(baseline(tmp_path / "again", f"--model.previous={run}")).model
    for name, tensor in module.model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    aligned = build(baseline(tmp_path / "aligned", f"--model.previous={runs[1]}")).model
    assert torch.equal(aligned.adapter.weight, read_weights(runs[1]).adapter["weight"])


def ask(checkpoint: Path, world: Path, output: Path, *more: str) -> tuple[dict, list[dict]]:
    args = [f"--checkpoint={checkpoint}", f"--shards={world / 'videos'}", f"--output={output}", "--num_workers=0"]
    queries = [] if any("queries" in word for word in more) else [f"--queries={world / 'test' / 'grounding.jsonl'}"]
    evaluate.main(["benchmark", *args, *queries, *more])
    lines = (output / "predictions.jsonl").read_text().splitlines()
    return json.loads((output / "metrics.json").read_text()), list(map(json.loads, lines))


def test_the_benchmark_has_an_answer_to_every_query(run, world, tmp_path):
    report, answers = ask(run, world, tmp_path / "a")
    asked = {query.id: query for query in read_queries(world / "test" / "grounding.jsonl")}
    assert [line["query_id"] for line in answers] == sorted(asked)
    assert all(line["rule"] == "ranked frames" and len(line["saliency"]) == 16 for line in answers)
    assert all(0 <= s < e <= asked[a["query_id"]].duration_s + 1e-3 for a in answers for s, e, _ in a["spans"])
    assert report["metrics"]["grounding/n"] == len(asked)
    assert report["metrics"]["grounding/unparsed"] == 0
    assert report["protocol"]["prompts"] == {"grounding": f" {next(iter(asked.values())).text}"}
    again, others = ask(run, world, tmp_path / "b", "--batch_size=3")
    assert others[0]["spans"][0] == pytest.approx(answers[0]["spans"][0], rel=1e-4)
    assert again["metrics"] == pytest.approx(report["metrics"], rel=1e-3)
    assert ask(run, world, tmp_path / "c", "--dtype=bfloat16")[0]["metrics"]["grounding/unparsed"] == 0


@pytest.mark.parametrize("task", ["dense_captioning", "segment_captioning"])
def test_asking_for_words_is_refused_or_counted_as_missing(run, world, tmp_path, task):
    (first, *_) = read_queries(world / "test" / "dense_captioning.jsonl")
    queries = [replace(first, id="words", task=task, events=first.events[:1])]
    queries += [Query("moment", first.video, "grounding", "a robot", first.events[:1], duration_s=first.duration_s)]
    write_queries(tmp_path / "q.jsonl", queries)
    asked = f"--queries={tmp_path / 'q.jsonl'}"
    with pytest.raises(ValueError, match=f"query words: prompt style 'sentence_eval' has no question for .*'{task}'"):
        ask(run, world, tmp_path / "out", asked)
    report, answers = ask(run, world, tmp_path / "out", asked, "--on_error=skip")
    assert ([line["query_id"] for line in answers], report["protocol"]["missing"]) == (["moment"], 1)


TALK = Query("t", "v", "dialogue", turns=(Turn("What is it?", "A dog."),))


@pytest.mark.parametrize(
    ("query", "words"),
    [
        (TALK, "query t: without a language model there are moments alone, and no answer to a 'dialogue' turn"),
        (Query("c", "v", "qa", "why?", options=("a", "b"), answer=1), "query c: .*'sentence' has no question .*'qa'"),
        (Query("d", "v", "dense_captioning", events=EVENTS), "query d: .*no question for the task 'dense_captioning'"),
        (
            Query("s", "v", "segment_captioning", events=EVENTS),
            "'sentence' has no question for the caption of a segment",
        ),
    ],
)
def test_words_cannot_be_learned(module, query, words):
    with pytest.raises(ValueError, match=words):
        module.dialogue.example(query, video(), Random(0))


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (
            ["--model.localizer=TemporalExpert"],
            "TemporalExpert needs a language model; Baseline takes SentenceMatching",
        ),
        (["--model.previous={2}"], "stage2 holds a LoRA, and the baseline has no language model to put it on"),
        (["--model.spatial=2x3"], "leave spatial out"),
        (["--model.gradient_checkpointing=true"], "leave gradient_checkpointing out"),
        (["--model.localizer.attention_heads=3"], "divide by 3 attention heads, got 16"),
        (
            ["--model.localizer.layers=1", "--model.previous={run}"],
            "head weights do not fit this model: .* not expected",
        ),
        (["--model.feature_width=9", "--model.previous={run}"], "adapter weights do not fit this model"),
    ],
)
def test_what_does_not_fit_is_refused(baseline, runs, run, tmp_path, more, words):
    more = [argument.format("", "", runs[2], run=run) for argument in more]
    with pytest.raises(ValueError, match=words):
        build(baseline(tmp_path / "run", *more))


def test_stages_of_a_language_model_refuse_its_localizer(arguments, runs, tmp_path):
    with pytest.raises(ValueError, match="SentenceMatching has no language model to put a LoRA on"):
        build([*arguments(2, tmp_path / "run", previous=runs[1]), "--model.localizer=SentenceMatching"])


def test_another_base_and_other_features_are_refused(run, module, world, tmp_path):
    other = tiny_lm(len(module.dialogue.tokenizer) - 1, width=32, layers=2, heads=2, seed=1)
    save_tiny_lm(tmp_path / "llm", other, TrainedModel.from_run(run).dialogue.tokenizer)
    with pytest.raises(ValueError, match="was trained on the base model"):
        ask(run, world, tmp_path / "out", f"--llm={tmp_path / 'llm'}")
    reader = ShardReader(world / "videos")
    with ShardWriter(tmp_path / "shards", replace(reader.header, encoder="another CLIP")) as writer:
        writer.add(reader.read("test00000"))
    with pytest.raises(ValueError, match="made differently: encoder"):
        ask(run, world, tmp_path / "out", f"--shards={tmp_path / 'shards'}")


def test_a_run_goes_on_exactly_where_it_stopped(baseline, whole_and_parts):
    whole, parts = whole_and_parts(baseline)
    for mine, theirs in ((whole.head, parts.head), (whole.adapter, parts.adapter)):
        assert all(torch.equal(theirs[name], tensor) for name, tensor in mine.items())


def test_a_batch_that_teaches_nothing_reaches_every_weight(baseline, tmp_path):
    """A rank that pads an epoch must take part in the reduction."""
    module = build(baseline(tmp_path / "run")).train()
    example = module.dialogue.example(Query("q", "v", "events", events=EVENTS), video(), Random(0))
    example.labels.fill_(IGNORE)
    sum(terms(module, collate([example], 0)).values()).backward()
    assert all(not p.grad.any() for p in module.parameters() if p.requires_grad)


def test_validation_asks_for_moments_and_has_no_loss_of_words(baseline, world, tmp_path):
    """Nothing of the questions is learned as words, so there is no loader for their loss."""
    validated = f"--data.val=[{{shards: {world / 'videos'}, queries: {world / 'val/grounding.jsonl'}}}]"
    logger = f"--trainer.logger={{class_path: CSVLogger, init_args: {{save_dir: {tmp_path}, name: logs, version: ''}}}}"
    train.main([*baseline(tmp_path / "run", max_steps=5), validated, logger])
    logged = last_metrics(tmp_path / "logs")
    assert "val/grounding/mIoU" in logged and "val/lm_loss" not in logged


def test_two_processes_train_with_a_padded_epoch(baseline, python, world, tmp_path):
    """Three records: the second process has one less, and pads."""
    write_queries(tmp_path / "three.jsonl", list(read_queries(world / "stage2.jsonl"))[:3])
    more = [f"--data.train=[{{shards: {world / 'videos'}, queries: {tmp_path / 'three.jsonl'}}}]"]
    args = baseline(tmp_path / "run", *more, "--data.batch_size=1", "--trainer.devices=2", max_steps=2)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [python, str(ROOT / "train.py"), *args]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert read_weights(tmp_path / "run").head


@pytest.mark.parametrize("config", ["quickstart", "videoexpert"])
def test_the_shipped_configs_train_the_tiny_model(config, llm, world, runs, tmp_path):
    changes = [f"--model.llm={llm}", "--model.feature_width=8", f"--model.previous={runs[1]}", "--trainer.max_steps=1"]
    changes += [f"--data.train=[{{shards: {world / 'videos'}, queries: {world / 'stage2.jsonl'}}}]"]
    changes += ["--data.val=null", "--data.num_workers=0", "--data.batch_size=2", "--trainer.logger=false"]
    changes += [f"--output={tmp_path}"]
    train.main([f"--config={ROOT / 'configs' / config / 'baseline.yaml'}", *changes])
    assert read_weights(tmp_path).manifest["style"] == "sentence"
