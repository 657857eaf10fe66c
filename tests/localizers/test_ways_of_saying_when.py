"""What holds for every way of saying when: sharing a video changes nothing, "there is none" can be learned and read, a
stage trains, and a model reads the times at which frames were decoded."""

import json
import re
import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
import tutorial
import yaml
from jsonargparse import ArgumentParser
from transformers import LogitsProcessorList

import train
from datamodules.batch import collate, collate_prompts
from datamodules.chat import chat_format
from datamodules.clip import Clip
from datamodules.dialogue import Dialogue
from datamodules.markup import Token
from datamodules.packing import pack
from datamodules.schema import Event, Query, Turn, Video
from lightning_modules.training_cli import TrainingCLI
from localizers import (
    DigitTokens,
    EvidenceTokens,
    FrameMatching,
    StructuralTokens,
    TemporalExpert,
    TextSeconds,
    TextTimestamps,
    TimeDistribution,
    TimeTokens,
)
from localizers.answer import Answer
from localizers.base import Localizer
from models.adapters import LinearAdapter
from models.checkpoints import load_llm, load_tokenizer, read_weights
from models.feedback import Feedback
from models.temporal_head import HeadOutput
from models.video_llm import VideoLLM
from models.vocabulary import add_tokens
from preparation.features.sampling import Sampling
from sweeps.sweep_file import grid, read_sweep

ROOT = Path(__file__).parent.parent.parent
WAYS = {
    "text_timestamps": TextTimestamps(),
    "structural_tokens": StructuralTokens(),
    "temporal_expert": TemporalExpert(head_dim=16),
    "time_tokens": TimeTokens(count=11),
    "vid2seq": TimeTokens(
        count=10, name="<time={}>", wording="{start} {end}", mark_questions=False, normalise_rows=True
    ),
    "omnivid": TimeTokens(
        count=10,
        name="<time_bin_{}>",
        wording="{start}{end}",
        event_wording="<event>{span}{caption}</event>",
        mark_questions=False,
        bidirectional=True,
    ),
    "frame_matching": FrameMatching(),
    "digit_tokens": DigitTokens(),
    "evidence_tokens": EvidenceTokens(block=1),
    "evidence_bidirectional": EvidenceTokens(block=1, bidirectional=True, consistency_weight=10.0),
    "time_distribution": TimeDistribution(bins=8),
    "text_seconds": TextSeconds(),
    "text_seconds_json": TextSeconds(group=1, answers="json", bidirectional=True),
    "tutorial": tutorial.module().FramePointers(),
}
"""Each with settings that fit a tiny vocabulary."""
ways = pytest.mark.parametrize("localizer", WAYS.values(), ids=WAYS)


def video(times_s: np.ndarray, name: str = "v") -> Video:
    features = np.random.default_rng(len(times_s)).standard_normal((len(times_s), 8)).astype(np.float16)
    return Video(name, float(times_s[-1]) + 1, times_s, features)


EVEN = np.arange(20.0)
SLOWING = np.cumsum([0.0, *[1.0] * 10, *[3.0] * 9])
QUERIES = [
    Query("a", "v", "grounding", "a robot", events=(Event(2.0, 5.0, "a robot"),)),
    Query("b", "v", "grounding", "a dog", events=(Event(9.3, 14.0, "a dog"), Event(15.0, 18.0, "a dog"))),
    Query("c", "v", "dense_captioning", events=(Event(1.0, 4.0, "a cat sings"), Event(6.0, 19.0, "a bird jumps"))),
    Query("d", "v", "segment_captioning", events=(Event(3.0, 9.0, "a dog runs"),)),
    Query("e", "v", "grounding", "a whale", absent=True),
]


def system(localizer: Localizer, llm: str) -> tuple[Dialogue, VideoLLM]:
    torch.manual_seed(0)
    dialogue, base = Dialogue(load_tokenizer(llm), chat_format("vicuna_v1"), localizer), load_llm(llm, torch.float32)
    add_tokens(base, dialogue.tokenizer, dialogue.new_tokens, localizer.token_init)
    width = base.config.hidden_size
    ids = tuple(number for number, token in dialogue.special.items() if token in localizer.time_tokens)
    parts = LinearAdapter(8, width), localizer.head(width), localizer.states, localizer.bidirectional
    return dialogue, VideoLLM(base, *parts, Feedback(localizer, ids) if ids else None).eval()


@ways
@pytest.mark.parametrize("times_s", [EVEN, SLOWING], ids=["even", "uneven"])
def test_packed_dialogues_have_the_loss_of_plain_ones(localizer, times_s, llm):
    dialogue, model = system(localizer, llm)
    ids = {token: number for number, token in dialogue.special.items()}
    examples = [dialogue.example(query, video(times_s), Random(0)) for query in QUERIES]
    found = []
    for batch in (collate(examples, 0), collate([pack(examples)], 0), collate([pack(examples[:2]), *examples[2:]], 0)):
        model.zero_grad()
        output = model(batch)
        terms = [output.lm_loss, *localizer.loss(model.head, output.states, batch, ids).values()]
        sum(terms).backward()
        gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
        found.append([torch.stack(terms).detach(), *gradients])
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found[2], found[0], rtol=1e-4, atol=1e-5)


def saying(ids: list[int]) -> dict:
    """Makes generation write given ids."""
    step = iter(ids)

    def write(_, scores):
        scores = torch.full_like(scores, -1e9)
        scores[:, next(step)] = 0
        return scores

    return {"max_new_tokens": len(ids), "do_sample": False, "pad_token_id": 0, "eos_token_id": -1,
            "logits_processor": LogitsProcessorList([write])}  # fmt: skip


@ways
@torch.no_grad()
def test_answers_are_the_same_alone_and_with_others(localizer, llm):
    dialogue, model = system(localizer, llm)
    written = [*dialogue.special][:2] or [5]
    ids = [written[0], 7, written[-1], written[0], 5]
    asked = [(EVEN, "a"), (SLOWING, "b"), (SLOWING, "b"), (EVEN[:7], "c")]
    prompts = [dialogue.prompt(Query(f"{number}", name, "grounding", "a dog" + " sings" * number), video(times_s, name))
               for number, (times_s, name) in enumerate(asked)]  # fmt: skip
    for prompt, together in zip(prompts, model.generate(collate_prompts(prompts, 0), **saying(ids)), strict=True):
        (alone,) = model.generate(collate_prompts([prompt], 0), **saying(ids))
        torch.testing.assert_close(together.predicting, alone.predicting, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(together.frames, alone.frames, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(together.moments, alone.moments, equal_nan=True)


@ways
@torch.no_grad()
def test_a_prompt_is_the_beginning_of_an_example(localizer, llm):
    """Cut at the end of the question: the same ids, frames and times."""
    dialogue, _ = system(localizer, llm)
    for query in QUERIES[:2]:
        example = dialogue.example(query, video(SLOWING), Random(0))
        prompt = dialogue.prompt(query, video(SLOWING))
        if "grounding" not in query.task:
            continue
        end = int(prompt.frame_mask.nonzero().max()) + 1
        assert torch.equal(example.input_ids[:end], prompt.prefix_ids[:end])
        assert torch.equal(example.frame_mask[:end], prompt.frame_mask[:end])
        torch.testing.assert_close(example.moments[:end], prompt.prefix_moments[:end], equal_nan=True)


@ways
def test_an_image_and_a_video_of_one_frame_are_learned(localizer, llm):
    """An image has no length, so that nothing in it has a share of the duration."""
    dialogue, model = system(localizer, llm)
    ids, pixels = {token: number for number, token in dialogue.special.items()}, np.ones((1, 8), np.float16)
    image, short = (Video("v", length_s, np.zeros(1), pixels) for length_s in (0.0, 2.0))
    said = Query("a", "v", "dialogue", turns=(Turn("What is it?", "A dog."),))
    found = Query("b", "v", "grounding", "a dog", (Event(0.2, 1.0, "a dog"),))
    batch = collate([dialogue.example(said, image, Random(0)), dialogue.example(found, short, Random(0))], 0)
    output = model(batch)
    terms = [output.lm_loss, *localizer.loss(model.head, output.states, batch, ids).values()]
    assert all(term.isfinite() for term in terms)


@ways
def test_there_is_none_is_learned_and_read(localizer, llm):
    dialogue, _ = system(localizer, llm)
    example = dialogue.example(QUERIES[-1], video(EVEN), Random(0))
    said = dialogue.tokenizer.decode(example.input_ids[example.labels >= 0], skip_special_tokens=True)
    if localizer.says_none:
        answer = localizer.render(Turn("?", localizer.no_moment, "grounding"), Clip(20.0, 20, 1.0), Random(0)).answer
        assert localizer.no_moment.removesuffix(".").split()[-1].lower() in said.lower()
        found = localizer.decode(QUERIES[-1], Answer(answer), Clip(20.0, 20, 1.0))
        assert (found.rule, found.spans) == ("none", ())
    assert localizer.decode(QUERIES[-1], Answer("banana"), Clip(20.0, 20, 1.0)).rule is None


def test_the_expert_says_none_where_no_frame_is_likely():
    """It learns that no frame is inside, and a threshold on its score is what it answers by."""
    axis, expert = Clip(20.0, 20, 1.0), TemporalExpert(none_below=0.3)
    rendered = expert.render(Turn("?", expert.no_moment, "grounding"), axis, Random(0))
    (target,) = rendered.targets
    assert not target.foreground.any()
    for logit, rule in ((-4.0, "none"), (4.0, "ranked frames")):
        output = HeadOutput(
            torch.full((1, 20), logit), torch.full((1, 20, 2), 0.1), torch.ones(1, 20, dtype=torch.bool)
        )
        found = Saying(none_below=0.3, said=output).decode(QUERIES[-1], Answer("During <LOC>."), axis, expert.head(4))
        assert found.rule == rule
        assert bool(found.spans) == (rule != "none")
        assert ("does not happen" in found.answer) == (rule == "none")


@dataclass(frozen=True)
class Saying(TemporalExpert):
    """Its head says what it was told to."""

    said: HeadOutput | None = None

    def _output(self, query, answer, head):
        return self.said


@ways
def test_every_way_is_a_class_with_settings_that_a_config_brings_back(localizer):
    parser = ArgumentParser()
    parser.add_subclass_arguments(Localizer, "localizer")
    config = yaml.safe_load(yaml.safe_dump({"localizer": localizer.config()}))
    again = parser.instantiate_classes(parser.parse_object(config)).localizer
    assert again == localizer


SAMPLERS = ["uniform 7", "2.0 fps", "5.0 fps max 6"]


def decoded_at(sampler: str) -> np.ndarray:
    """When the pictures were taken that a sampler chooses, of a file of 30 pictures in 5 s; or of uneven ones."""
    if sampler == "uneven":
        return np.array([0.0, 0.4, 0.5, 2.0, 4.25])
    return Sampling.parse(sampler).indices(30, 6.0) / 6.0


def read_times(dialogue: Dialogue, clip_video: Video) -> list[str]:
    """What stands before each frame, in a prompt and in an example."""
    prompt = dialogue.prompt(QUERIES[0], clip_video)
    texts, places = [], prompt.frame_mask.nonzero().flatten().tolist()
    for before, at in zip([places[0] - 30, *places], places, strict=False):
        texts.append(dialogue.tokenizer.decode(prompt.prefix_ids[max(before + 1, 0) : at]))
    return texts


class Clock(TextTimestamps):
    """Says before each frame when it was taken."""

    def frame_texts(self, clip):
        from datamodules.rendered import FrameTexts

        return FrameTexts(tuple(f" {time_s:.2f} s" for time_s in clip.frames_s), " end")


@pytest.mark.parametrize("sampler", [*SAMPLERS, "uneven"])
def test_a_model_reads_the_time_at_which_each_frame_was_decoded(sampler, llm):
    dialogue, times_s = Dialogue(load_tokenizer(llm), chat_format("vicuna_v1"), Clock()), decoded_at(sampler)
    query = replace(QUERIES[0], events=(Event(0.0, 1.0, "a robot"),))
    example = dialogue.example(query, video(times_s), Random(0))
    numbers = [[*re.finditer(r"[\d. ]+(?= ?s)", text)] for text in read_times(dialogue, video(times_s))]
    read = [float(found[-1][0].replace(" ", "")) for found in numbers]
    assert read == pytest.approx(times_s, abs=0.006)
    assert int(example.frame_mask.sum()) == len(times_s)
    assert (example.labels[: int(example.frame_mask.nonzero().max()) + 1] == -100).all()


def test_tokens_between_frames_are_tokens_and_words_are_words(llm):
    dialogue = Dialogue(load_tokenizer(llm), chat_format("vicuna_v1"), FrameMatching())
    assert dialogue.encoder.within(Token("<vid>")) == [*dialogue.special]
    assert [*dialogue.special][0] not in dialogue.encoder.within("<vid>")


TRAINED = {
    "evidence_tokens": ["--model.localizer=EvidenceTokens", "--model.localizer.block=1"],
    "evidence_checkpointing": [
        "--model.localizer=EvidenceTokens",
        "--model.localizer.block=1",
        "--model.gradient_checkpointing=true",
    ],
    "time_distribution": ["--model.localizer=TimeDistribution", "--model.localizer.bins=8"],
    "text_seconds": ["--model.localizer=TextSeconds", "--model.style=timelens"],
    "digit_tokens": ["--model.localizer=DigitTokens", "--model.localizer.digit_weight=0.1"],
    "time_tokens": ["--model.localizer=TimeTokens", "--model.localizer.count=17"],
    "vid2seq": ["--model.localizer=TimeTokens", "--model.localizer.count=17", "--model.localizer.normalise_rows=true"],
}


@pytest.mark.parametrize("name", TRAINED)
def test_two_steps_of_a_stage_and_an_answer(name, runs, arguments, world, tmp_path):
    train.main([*arguments(2, tmp_path, previous=runs[1], max_steps=2), *TRAINED[name]])
    assert read_weights(tmp_path).manifest["localizer"]["class_path"].startswith("localizers.")


def test_the_points_of_the_comparison_are_all_nine_ways_with_the_same_base():
    """Every one is a localizer with settings that exist."""
    sweep = yaml.safe_load((ROOT / "configs/sweeps/paradigms.yaml").read_text())
    parser, kinds = ArgumentParser(), []
    parser.add_subclass_arguments(Localizer, "localizer")
    for value in sweep["parameters"]["model.init_args.localizer"]["values"]:
        localizer = parser.instantiate_classes(parser.parse_object({"localizer": json.loads(value)})).localizer
        assert localizer.bidirectional, "frames attend to one another in all of them, or in none"
        kinds.append(type(localizer))
    assert len(set(kinds)) == len(kinds) == 9
    assert "/val/" in sweep["parameters"]["data.val"]["value"]


@pytest.mark.parametrize("name", ["paradigms", "paradigms_baseline"])
def test_the_comparison_has_rates_to_choose_by_validation(name):
    """Points of the first rate come first, so that those that were run keep their folders."""
    sweep = read_sweep(ROOT / f"configs/sweeps/{name}.yaml")
    rates = [point["model.init_args.optimization.lr"] for point in grid(sweep["parameters"])]
    half = len(rates) // 2
    assert rates == [rates[0]] * half + [rates[-1]] * half
    assert rates[0] != rates[-1]
    assert sweep["metric"] == {"name": "val/grounding/mIoU", "goal": "maximize"}


FOLDERS = ("time_tokens", "digit_tokens", "text_seconds", "time_distribution", "evidence_tokens")
CONFIGS = [path for folder in FOLDERS for path in sorted((ROOT / "configs" / folder).glob("*.yaml"))]
CONFIGS += [ROOT / f"configs/quickstart/{way}.yaml" for way in FOLDERS]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_config_begins_with_a_command_that_parses(path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    command = path.read_text().splitlines()[0].removeprefix("# python train.py ")
    with pytest.raises(SystemExit) as left:
        TrainingCLI([*shlex.split(command), "--print_config"])
    assert left.value.code in (0, None)
    assert "localizers." in capsys.readouterr().out


def commands_of(path: Path) -> list[list[str]]:
    """The training commands that a config's head shows."""
    heads = [line for line in path.read_text().splitlines() if line.startswith("#") and "python train.py " in line]
    return [shlex.split(line.partition("python train.py ")[2]) for line in heads]


@pytest.mark.parametrize("path", CONFIGS[: -len(FOLDERS)], ids=lambda path: path.stem)
def test_the_stage_before_can_be_made(path, monkeypatch):
    """By a command in the head of a config that it is made of, or with a config whose output it is."""
    monkeypatch.chdir(ROOT)

    def setting(words: list[str], name: str) -> object:
        layers = [yaml.safe_load(Path(words[k + 1]).read_text()) for k, word in enumerate(words) if word == "--config"]
        given = [words[k + 1] for k, word in enumerate(words) if word == f"--{name}"]
        found = [layer.get(name) or layer.get("model", {}).get("init_args", {}).get(name) for layer in layers]
        return ([*filter(None, found), *given] or [None])[-1]

    first, *_ = commands_of(path)
    layers = [Path(first[k + 1]) for k, word in enumerate(first) if word == "--config"]
    others = [words for layer in layers for words in commands_of(layer)[1:]]
    assert setting(first, "previous") in {setting(words, "output") for words in others}
    for words in others:
        with pytest.raises(SystemExit) as left:
            TrainingCLI([*words, "--print_config"])
        assert left.value.code in (0, None)
        if setting(words, "output") == setting(first, "previous"):
            llm = [words[k + 1] for k, word in enumerate(words) if word == "--model.init_args.llm"]
            assert setting(first, "llm") == (llm or [setting(words, "llm")])[0], "the same base"
