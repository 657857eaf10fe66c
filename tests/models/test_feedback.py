"""What a time token is read as: the same in training, in questions and while an answer is written."""

from dataclasses import dataclass, replace
from random import Random

import numpy as np
import pytest
import torch
from transformers import LogitsProcessorList

from datamodules.batch import collate, collate_prompts, follow_up
from datamodules.chat import chat_format
from datamodules.dialogue import Dialogue
from datamodules.packing import pack
from datamodules.schema import Event, Query, Turn, Video
from localizers import FrameMatching
from models.adapters import LinearAdapter
from models.checkpoints import load_llm, load_tokenizer
from models.feedback import Feedback
from models.video_llm import VideoLLM
from models.vocabulary import add_tokens


@dataclass(frozen=True)
class Replacing(FrameMatching):
    """Its tokens are replaced by their times, seen by nobody else."""

    def read_back(self, head, inputs, moments, frames, rows):
        return moments.repeat(1, inputs.shape[1] // 2) / 10


@pytest.fixture(scope="module", params=[FrameMatching(), Replacing(), FrameMatching(bidirectional=False)], ids=str)
def system(request, llm):
    """A dialogue and a model of a localizer that reads its time tokens back."""
    torch.manual_seed(0)
    localizer, dialogue = request.param, Dialogue(load_tokenizer(llm), chat_format("vicuna_v1"), request.param)
    base = load_llm(llm, torch.float32)
    add_tokens(base, dialogue.tokenizer, localizer.special_tokens)
    width, (vid,) = base.config.hidden_size, dialogue.special
    parts = LinearAdapter(8, width), localizer.head(width), localizer.states, localizer.bidirectional
    return dialogue, VideoLLM(base, *parts, Feedback(localizer, (vid,))).eval(), vid


def video(frames: int, name: str = "v") -> Video:
    features = np.random.default_rng(frames).standard_normal((frames, 8)).astype(np.float16)
    return Video(name, float(frames), np.arange(frames, dtype=float), features)


def grounding(name: str, start_s: float, end_s: float, text: str = "a robot", of: str = "v") -> Query:
    return Query(name, of, "grounding", text, events=(Event(start_s, end_s, text),))


def losses(dialogue, model, batch) -> torch.Tensor:
    output = model(batch)
    ids = {token: number for number, token in dialogue.special.items()}
    (matching,) = dialogue.localizer.loss(model.head, output.states, batch, ids).values()
    return torch.stack([output.lm_loss, matching])


def writing(ids: list[int]) -> dict:
    """Makes generation write given ids, and then the first of them again and again."""
    step = iter(ids)

    def write(_, scores):
        scores = torch.full_like(scores, -1e9)
        scores[:, next(step)] = 0
        return scores

    return {"max_new_tokens": len(ids), "do_sample": False, "pad_token_id": 0, "eos_token_id": -1,
            "logits_processor": LogitsProcessorList([write])}  # fmt: skip


def test_sharing_a_video_changes_neither_loss_nor_gradients(system):
    dialogue, model, _ = system
    queries = [grounding("a", 2.0, 5.0), grounding("b", 9.3, 14.0, "a red dog sings"), grounding("c", 0.0, 20.0)]
    queries.append(Query("d", "v", "dialogue", turns=(Turn("what is at <s0>?", "a robot.", times={"<s0>": 3.0}),)))
    examples = [dialogue.example(query, video(20), Random(0)) for query in queries]
    found = []
    for batch in (collate(examples, 0), collate([pack(examples)], 0), collate([pack(examples[:2]), *examples[2:]], 0)):
        model.zero_grad()
        loss = losses(dialogue, model, batch)
        loss.sum().backward()
        found.append([loss.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)])
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found[2], found[0], rtol=1e-4, atol=1e-5)


def test_checkpointing_changes_no_gradient(system):
    dialogue, model, _ = system
    batch = collate([dialogue.example(grounding("a", 2.0, 5.0), video(12), Random(0))], 0)
    found = []
    for how in ("gradient_checkpointing_enable", "gradient_checkpointing_disable"):
        getattr(model.causal_lm.train(), how)()
        model.zero_grad()
        losses(dialogue, model, batch).sum().backward()
        found.append([parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None])
    model.eval()
    torch.testing.assert_close(found[0], found[1])


def test_every_token_of_a_long_dialogue_has_its_own_time(system):
    """In the order of the text: question, answer, question, answer."""
    dialogue, _, vid = system
    turns = (
        Turn("what from <s1> to <e1>?", "a robot, until <s0>.", times={"<s0>": 9.0, "<s1>": 2.0, "<e1>": 4.0}),
        Turn("and then?", "a dog, <s0> to <e0>.", times={"<s0>": 5.0, "<e0>": 13.5}),
    )
    example = dialogue.example(Query("q", "v", "dialogue", turns=turns), video(12), Random(0))
    at = example.input_ids == vid
    assert example.moments[at][:, 0].tolist() == [2, 4, 9, 5, 11]
    assert example.moments[~at].isnan().all()


@torch.no_grad()
def test_a_written_token_is_read_as_in_training(system):
    """The states along an answer are those of one pass over it, its tokens read with the times that were decoded."""
    dialogue, model, vid = system
    prompt = dialogue.prompt(grounding("a", 2.0, 5.0), video(12))
    word = dialogue.tokenizer.convert_tokens_to_ids("robot")
    (answer,) = model.generate(collate_prompts([prompt], 0), **writing([vid, word, vid, vid]))
    assert (~answer.moments.isnan()).all(-1).tolist() == [True, False, True, True]
    example = dialogue.example(grounding("a", 2.0, 5.0), video(12), Random(0))
    ids = torch.cat([prompt.prefix_ids, prompt.suffix_ids, answer.ids])
    nothing = torch.full((len(ids) - 4, 2), torch.nan)
    labels = torch.cat([torch.full((len(ids) - 4,), -100), answer.ids])
    frame_mask = torch.cat([prompt.frame_mask, torch.zeros(len(ids) - len(prompt.frame_mask), dtype=torch.bool)])
    known = {"moments": torch.cat([nothing, answer.moments]), "frame_mask": frame_mask}
    output = model(collate([replace(example, input_ids=ids, labels=labels, **known)], 0))
    for point in dialogue.localizer.states:
        torch.testing.assert_close(output.states[point][0, -5:-1], answer.predicting[point], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(output.states[point][0, -4:], answer.reading[point], rtol=1e-4, atol=1e-5)
    plain = model(collate([replace(example, input_ids=ids, labels=labels, frame_mask=frame_mask,
                                   moments=torch.full((len(ids), 2), torch.nan))], 0))  # fmt: skip
    assert (plain.states["before_norm"][0, -1] - answer.reading["before_norm"][-1]).abs().max() > 1e-3


@torch.no_grad()
def test_answers_are_the_same_alone_and_with_others(system):
    dialogue, model, vid = system
    asked = [(10, "a", "a robot"), (90, "b", "a red dog jumps"), (90, "b", "a cat"), (30, "c", "a bird sings")]
    prompts = [dialogue.prompt(Query(f"{i}", name, "grounding", text), video(frames, name))
               for i, (frames, name, text) in enumerate(asked)]  # fmt: skip
    together = model.generate(collate_prompts(prompts, 0), **writing([vid, vid, 5, vid]))
    moments = []
    for prompt, answer in zip(prompts, together, strict=True):
        (alone,) = model.generate(collate_prompts([prompt], 0), **writing([vid, vid, 5, vid]))
        torch.testing.assert_close(answer.moments, alone.moments, equal_nan=True)
        torch.testing.assert_close(answer.reading, alone.reading, rtol=1e-4, atol=1e-5)
        moments.append(answer.moments)
    assert len({tuple(moment[~moment.isnan()].tolist()) for moment in moments}) > 1


@torch.no_grad()
def test_a_second_question_remembers_what_the_first_answer_meant(system):
    dialogue, model, vid = system
    question = Query("a", "v", "grounded_qa", "who sings?", (Event(2, 5),), options=("a dog", "a cat"))
    prompts = collate_prompts([dialogue.prompt(question, video(12))], 0)
    (answer,) = model.generate(prompts, **writing([vid, 7, vid]))
    said = answer.ids.tolist()[:2]  # it was cut off behind its end
    more = follow_up(prompts, [said], [answer.moments], 0)
    known = ~more.moments[0, :, 0].isnan()
    assert more.suffix_ids[0][known].tolist() == [vid]
    assert more.moments[0][known].tolist() == answer.moments[:1].tolist()


def test_a_time_without_its_token_is_refused_by_name(llm):
    @dataclass(frozen=True)
    class Forgetful(FrameMatching):
        def render(self, turn, clip, random):
            return replace(super().render(turn, clip, random), moments=())

    dialogue = Dialogue(load_tokenizer(llm), chat_format("vicuna_v1"), Forgetful())
    with pytest.raises(ValueError, match="query a: 0 times for 2 <vid> in its text"):
        dialogue.example(grounding("a", 2.0, 5.0), video(12), Random(0))
