"""The model around the language model: padding, sharing, and what it does not compute."""

from random import Random

import numpy as np
import pytest
import torch

from datamodules.batch import collate, collate_prompts
from datamodules.chat import IGNORE, chat_format
from datamodules.dialogue import Dialogue
from datamodules.schema import Query, Turn, Video
from localizers import TextTimestamps
from models.adapters import LinearAdapter
from models.checkpoints import load_llm, load_tokenizer
from models.video_llm import VideoLLM


@pytest.fixture(scope="module")
def dialogue(llm):
    return Dialogue(load_tokenizer(llm), chat_format("vicuna_v1"), TextTimestamps())


@pytest.fixture(scope="module")
def model(llm):
    torch.manual_seed(0)
    base = load_llm(llm, torch.float32)
    return VideoLLM(base, LinearAdapter(8, base.config.hidden_size)).eval()


def video(frames: int, name: str = "v") -> Video:
    rng = np.random.default_rng(frames)
    return Video(name, 40.0, np.linspace(0, 39, frames), rng.standard_normal((frames, 8)).astype(np.float16))


def example(dialogue, frames: int, answer: str):
    query = Query(f"{frames}{answer}", "v", "dialogue", turns=(Turn("what is this?", answer),))
    return dialogue.example(query, video(frames), Random(0))


def test_padding_changes_no_token_loss(dialogue, model):
    """One video of 2 frames beside one of 60."""
    examples = [example(dialogue, 2, "a robot."), example(dialogue, 60, "a red robot sings in the park.")]
    alone = [model(collate([e], 0)) for e in examples]
    together = model(collate(examples, 0))
    torch.testing.assert_close(together.logits, torch.cat([output.logits for output in alone]), rtol=1e-4, atol=1e-5)
    counts = torch.tensor([len(output.logits) for output in alone])
    mean = (torch.stack([output.lm_loss for output in alone]) * counts).sum() / counts.sum()
    torch.testing.assert_close(together.lm_loss, mean)


def test_logits_are_computed_for_supervised_tokens_only(dialogue, model):
    batch = collate([example(dialogue, 3, "a robot."), example(dialogue, 5, "a dog sings.")], 0)
    seen = []
    hook = model.causal_lm.lm_head.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape))
    logits = model(batch).logits
    hook.remove()
    supervised = int((batch.labels != IGNORE).sum())
    assert logits.shape == (supervised, model.causal_lm.config.vocab_size)
    assert seen[0][:-1].numel() == supervised


def test_a_batch_without_supervision_has_loss_zero_and_zero_gradients(dialogue, model):
    batch = collate([example(dialogue, 3, "a robot.")], 0)
    batch.labels.fill_(IGNORE)
    loss = model(batch).lm_loss
    loss.backward()
    assert loss.item() == 0
    assert model.adapter.weight.grad.abs().sum() == 0
    model.zero_grad(set_to_none=True)


def test_the_loss_depends_on_every_frame(dialogue, model):
    batch = collate([example(dialogue, 4, "a robot.")], 0)
    features = batch.features.float().requires_grad_(True)
    object.__setattr__(batch, "features", features)
    model(batch).lm_loss.backward()
    assert (features.grad.abs().sum(-1) > 0).all()
    model.zero_grad(set_to_none=True)


def test_answers_are_the_same_alone_and_with_others(dialogue, model):
    """Videos of different lengths, questions of different lengths, several about one video."""
    asked = [
        (2, "a", "a robot"),
        (40, "b", "a red robot jumps near the box"),
        (40, "b", "a dog"),
        (7, "c", "a cat sings"),
    ]
    prompts = [
        dialogue.prompt(Query(f"{i}", name, "grounding", text), video(frames, name))
        for i, (frames, name, text) in enumerate(asked)
    ]
    settings = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": 0}
    together = model.generate(collate_prompts(prompts, 0), **settings)
    for prompt, answer in zip(prompts, together, strict=True):
        ids = torch.cat([prompt.prefix_ids, prompt.suffix_ids])[None]
        frame_mask = torch.cat([prompt.frame_mask, torch.zeros(len(prompt.suffix_ids), dtype=torch.bool)])[None]
        every_frame = torch.ones(1, len(prompt.features), dtype=torch.bool)
        inputs, _ = model.embed(ids, frame_mask, prompt.features[None], every_frame)
        mask = torch.ones(ids.shape, dtype=torch.long)
        plain = model.causal_lm.generate(inputs_embeds=inputs, attention_mask=mask, **settings)[0]
        assert answer.ids[: len(plain)].tolist() == plain.tolist()


def test_the_prefix_of_a_video_runs_once(dialogue, model):
    prompts = [dialogue.prompt(Query(str(i), "v", "grounding", "a robot"), video(9)) for i in range(5)]
    rows = []
    hook = model.causal_lm.get_decoder().register_forward_pre_hook(
        lambda _, args, kwargs: (
            rows.append(tuple(kwargs["inputs_embeds"].shape[:2])) if kwargs.get("inputs_embeds") is not None else None
        ),
        with_kwargs=True,
    )
    model.generate(collate_prompts(prompts, 0), max_new_tokens=2, do_sample=False, pad_token_id=0)
    hook.remove()
    assert rows[0] == (1, len(prompts[0].prefix_ids))
    assert rows[1] == (5, len(prompts[0].suffix_ids))
