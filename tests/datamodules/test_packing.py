"""Dialogues that share a video in one sequence: exactly what they are alone."""

from itertools import groupby
from random import Random

import numpy as np
import pytest
import torch

from datamodules.batch import collate
from datamodules.chat import chat_format
from datamodules.dialogue import Dialogue
from datamodules.packing import block_positions, pack, pack_alike
from datamodules.sampling import EpochBatches
from datamodules.schema import Query, Turn, Video
from localizers import TextTimestamps
from models.adapters import LinearAdapter
from models.checkpoints import load_llm, load_tokenizer
from models.video_llm import VideoLLM


@pytest.fixture(scope="module")
def dialogue(llm):
    return Dialogue(load_tokenizer(llm), chat_format("vicuna_v1"), TextTimestamps())


def examples(dialogue, frames: int, answers: list[str]):
    rng = np.random.default_rng(frames)
    video = Video("v", 40.0, np.linspace(0, 39, frames), rng.standard_normal((frames, 8)).astype(np.float16))
    queries = [Query(a, "v", "dialogue", turns=(Turn(f"what {'is ' * i}this?", a),)) for i, a in enumerate(answers)]
    return [dialogue.example(query, video, Random(0)) for query in queries]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_packed_dialogues_have_the_logits_and_gradients_they_have_alone(dialogue, llm, attention):
    torch.manual_seed(0)
    base = load_llm(llm, torch.float32)
    base.set_attn_implementation(attention)
    model = VideoLLM(base, LinearAdapter(8, base.config.hidden_size)).train()
    three = examples(dialogue, 9, ["a robot.", "a red dog sings.", "it jumps."])
    alone = examples(dialogue, 4, ["one robot digs and sings in the park."])

    single = [model(collate([example], 0)) for example in three + alone]
    total = sum(output.lm_loss * len(output.logits) for output in single)
    total.backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()

    packed = model(collate([pack(three), *alone], 0))
    torch.testing.assert_close(packed.logits, torch.cat([output.logits for output in single]), rtol=1e-4, atol=1e-5)
    (packed.lm_loss * len(packed.logits)).backward()
    for name, parameter in model.named_parameters():
        if name in expected:
            torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-3, atol=1e-4)


def test_frames_stand_once_and_every_query_is_kept(dialogue):
    three = examples(dialogue, 9, ["a robot.", "a dog.", "a cat."])
    packed = pack(three)
    assert packed.frame_mask.sum() == 9
    assert [query.id for query in packed.queries] == ["a robot.", "a dog.", "a cat."]
    assert (packed.labels >= 0).sum() == sum((example.labels >= 0).sum() for example in three)
    assert collate([packed], 0).queries == packed.queries


def test_positions_go_on_from_the_shared_beginning():
    blocks = torch.tensor([[0, 0, 0, 1, 1, 2, 2, 2, 3, -1], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0]])
    assert block_positions(blocks)[0, :9].tolist() == [0, 1, 2, 3, 4, 3, 4, 5, 3]
    assert block_positions(blocks)[1].tolist() == list(range(10))


def test_dialogues_about_different_videos_cannot_share(dialogue):
    with pytest.raises(ValueError, match="cannot share one copy of the video"):
        pack(examples(dialogue, 9, ["a robot."]) + examples(dialogue, 8, ["a dog."]))


def test_only_those_that_begin_alike_share(dialogue):
    nine, eight = examples(dialogue, 9, ["a robot.", "a cat."]), examples(dialogue, 8, ["a dog."])
    shared, alone = pack_alike([nine[0], eight[0], nine[1]])
    assert [query.id for query in shared.queries] == ["a robot.", "a cat."]
    assert alone is eight[0]


VIDEO_OF = [0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2]


@pytest.mark.parametrize("together", [1, 2, 4])
def test_an_epoch_has_the_same_gradient_however_many_queries_share_a_video(dialogue, llm, together):
    """The mean over its steps is the mean over all dialogues, each counted once."""
    torch.manual_seed(0)
    base = load_llm(llm, torch.float32)
    model = VideoLLM(base, LinearAdapter(8, base.config.hidden_size)).train()
    told = ["a robot.", "a dog.", "a cat.", "a park."]
    videos = [examples(dialogue, frames, told) for frames in (5, 6, 7)]
    samples = [videos[video][number // 3] for number, video in enumerate(VIDEO_OF)]
    assert len({int((sample.labels >= 0).sum()) for sample in samples}) == 1

    def gradients(batches: list) -> list:
        model.zero_grad()
        for batch in batches:
            (model(collate(batch, 0)).lm_loss / len(batches)).backward()
        return [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]

    steps, sequences = list(EpochBatches([0] * 12, 4, 0, video_of_sample=VIDEO_OF, together=together)), []
    for step in steps:
        groups = [[samples[draw.index] for draw in draws] for _, draws in groupby(step, lambda draw: draw.sequence)]
        assert max(map(len, groups)) == together
        sequences.append([example for group in groups for example in pack_alike(group)])
    assert sorted(draw.index for step in steps for draw in step) == list(range(12))
    torch.testing.assert_close(gradients(sequences), gradients([[one] for one in samples]), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("together", [1, 4])
def test_every_query_is_as_likely_in_a_step_as_any_other(together):
    first = [
        next(iter(EpochBatches([0] * 12, 4, seed, video_of_sample=VIDEO_OF, together=together))) for seed in range(600)
    ]
    counts = [sum(draw.index == number for step in first for draw in step) for number in range(12)]
    assert all(abs(count - 200) < 50 for count in counts), counts
