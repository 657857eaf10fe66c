"""The pre-training of the tiny language model: its tasks are what they say, and it is reproducible."""

import pytest
import torch
from safetensors.torch import load_file

from datamodules.chat import IGNORE
from preparation.world.position_tasks import FRAMES, POSITION, TASK_WORDS, Lesson, PositionTasks
from preparation.world.synthetic_language import TEXTS
from preparation.world.tiny import tiny_tokenizer
from preparation.world.tiny_pretraining import LESSONS, pretrain_tiny_lm


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer([*TEXTS, TASK_WORDS, "A chat between curious user and an assistant."])


@pytest.mark.parametrize("lesson", [lesson for _, lesson in LESSONS])
def test_places_are_named_where_their_words_are_shown(tokenizer, lesson: Lesson):
    """The number behind a phrase is the first position that shows its words, and no number of their end follows."""
    tasks, checked = PositionTasks(tokenizer, seed=0), 0
    for _ in range(4):
        batch = tasks.batch(4, lesson)
        for row, predicting, first in batch.places.tolist():
            start = (batch.ids[row] == POSITION).nonzero().flatten()[0].item()
            number = int(tokenizer.decode(batch.ids[row, predicting + 1]))
            assert first == start + number
            shown = batch.words[row]
            assert 0 <= number < FRAMES
            assert shown[number].any()
            assert not tokenizer.decode(batch.ids[row, predicting + 2]).strip(" -").isdigit()
            assert number == 0 or not torch.equal(shown[number - 1], shown[number])
            assert batch.labels[row, predicting + 1] == batch.ids[row, predicting + 1]
            assert batch.labels[row, predicting] in (IGNORE, batch.ids[row, predicting])
            checked += 1
    assert checked > 20


def test_single_words_come_first(tokenizer):
    first = LESSONS[0][1]
    batch = PositionTasks(tokenizer, seed=0).batch(4, first)
    single = 0
    for row, predicting, _ in batch.places.tolist():
        last = predicting - (tokenizer.decode(batch.ids[row, predicting]) == ".")
        if tokenizer.decode(batch.ids[row, last - 1]) in (",", ":"):
            single += 1
            number = int(tokenizer.decode(batch.ids[row, predicting + 1]))
            assert batch.ids[row, last] in batch.words[row, number]
    assert single > 0.8 * len(batch.places)  # the others are about events that share every word with another


def test_the_same_seed_makes_the_same_weights(tmp_path):
    torch.manual_seed(1)
    pretrain_tiny_lm(tmp_path / "a", steps=2, size=2)
    torch.manual_seed(2)
    pretrain_tiny_lm(tmp_path / "b", steps=2, size=2)
    a, b = (load_file(tmp_path / name / "model.safetensors") for name in "ab")
    assert a.keys() == b.keys()
    assert all(torch.equal(a[key], b[key]) for key in a)
