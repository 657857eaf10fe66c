"""Multiple-choice questions and their moments, asked in two turns or at once: one prediction holds both."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from datamodules.batch import collate_prompts
from datamodules.chat import IGNORE, chat_format
from datamodules.clip import Clip
from datamodules.dialogue import Dialogue
from datamodules.options import chosen
from datamodules.schema import Event, Query, Video
from lightning_modules.answering import Generation
from lightning_modules.trained import TrainedModel
from localizers import TextTimestamps
from localizers.answer import Answer
from models.checkpoints import load_tokenizer

CHOICES = {"options": ("a red robot", "a cat"), "answer": 1}
WHO = Query("who", "v", "grounded_qa", "who sings?", (Event(1, 2),), **CHOICES)
WHAT = Query("what", "w", "grounded_qa", "what small thing jumps?", (Event(1, 2),), **CHOICES)
WHEN = Query("when", "w", "grounding", "a red robot sings", (Event(1, 2),))


@pytest.fixture(scope="module")
def module(runs) -> TrainedModel:
    """Stage 2 of VTimeLLM on the tiny world."""
    model = TrainedModel.from_run(runs[2], dtype="float32", generation=Generation(max_new_tokens=10))
    model.configure_model()
    return model


def video(name: str, frames: int) -> Video:
    features = np.random.default_rng(frames).standard_normal((frames, 8)).astype(np.float16)
    return Video(name, 40.0, (np.arange(frames) + 0.5) * 40 / frames, features)


def ask(module, *queries):
    """The predictions of one batch."""
    videos = {"v": video("v", 16), "w": video("w", 9)}
    prompts = [module.dialogue.prompt(query, videos[query.video]) for query in queries]
    return module.answer(collate_prompts(prompts, 0))


def test_the_second_question_stands_behind_the_first_answer(module):
    first = module.dialogue.prompt(WHO, video("v", 16))
    (said,) = module.answering.generate(module.model, collate_prompts([first], 0))
    ids = module.answering.until_end(said.ids.tolist())
    whole = torch.cat([first.suffix_ids, torch.tensor([*ids, *first.next_ids[0]])])
    text = module.dialogue.tokenizer.decode(whole)
    assert text.count(module.dialogue.encoder.chat.end) == 1
    assert re.search(r"sings.*B. a cat.*letter.*</s>.*: During which frames can we see .* sings", text, re.DOTALL)
    by_hand = replace(first, suffix_ids=whole, moments=torch.full((len(whole), 2), torch.nan), next_ids=())
    (second,) = module.answering.generate(module.model, collate_prompts([by_hand], 0))
    (found,) = ask(module, WHO)
    assert found.answer == f"{module.answering.read(said).text}\n{module.answering.read(second).text}"


@pytest.mark.parametrize("chat", ["vicuna_v1", "vicuna_videoexpert", "phi3", "qwen2"])
def test_the_second_question_is_that_of_one_long_dialogue(llm, chat):
    tokenizer = load_tokenizer(llm)
    tokens = ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|im_start|>", "<|im_end|>")
    tokenizer.add_tokens(list(tokens), special_tokens=True)
    dialogue = Dialogue(tokenizer, chat_format(chat), TextTimestamps())
    prompt = dialogue.prompt(WHO, video("v", 16))
    which, when = (turn.question for turn in dialogue.writer.asked(WHO))
    ids, labels = dialogue.encoder.encode([(which, "a red robot jumps"), (when, None)])
    (later,) = prompt.next_ids
    assert ids[-len(later) :] == list(later)
    assert labels[-len(later) - 1] != IGNORE, "an end token stands before it, and nothing of it is learned"
    assert set(labels[-len(later) :]) == {IGNORE}


def test_a_batch_may_mix_one_turn_and_two(module):
    together = ask(module, WHO, WHEN, WHAT)
    assert together == [ask(module, query)[0] for query in (WHO, WHEN, WHAT)]
    assert ["\n" in found.answer for found in together] == [True, False, True]


def test_times_come_from_the_second_answer_and_the_option_from_the_first(module):
    answers = [Answer("(B) a cat, 01 to 02"), Answer("From 25 to 50.")]
    found = module.answering.prediction(WHO, Clip(40.0, 16, 0.4), answers, module.model)
    assert (found.option, found.spans, found.answer) == (1, ((10.0, 20.0, 1.0),), "(B) a cat, 01 to 02\nFrom 25 to 50.")
    assert module.answering.prediction(WHEN, Clip(40.0, 16, 0.4), answers[1:], module.model).option is None


@pytest.mark.parametrize(
    ("answer", "option"),
    [
        ("B", 1), ("B.", 1), ("(A) a dog", 0), ("C: it runs", 2), ("B. During <LOC>.", 1), ("D", None), ("", None),
        ("It runs. Therefore, the answer is (C).", 2), ("Because it runs", None), ("the answer is A", 0),
        ("a dog", None), ("A dog", None), ("the answer is A dog", None),
    ],
)  # fmt: skip
def test_which_option_an_answer_chooses(answer, option):
    assert chosen(answer, options=3) == option


def test_where_the_usual_wording_asks_for_both_there_is_one_turn(llm):
    dialogue = Dialogue(load_tokenizer(llm), chat_format("vicuna_v1"), TextTimestamps(), style="meco")
    (turn,) = dialogue.writer.asked(WHO)
    assert "(A) a red robot (B) a cat" in turn.question


def test_both_at_once(runs):
    model = TrainedModel.from_run(runs[2], dtype="float32", generation=Generation(max_new_tokens=10, one_prompt=True))
    model.configure_model()
    assert model.dialogue.prompt(WHO, video("v", 16)).next_ids == ()
    (found,) = ask(model, WHO)
    assert "\n" not in found.answer
