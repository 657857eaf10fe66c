"""The tiny language model is an ordinary checkpoint whose text can be read back."""

import re

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from preparation.world.tiny import save_tiny_lm, tiny_lm, tiny_tokenizer

TEXTS = ["USER: ASSISTANT: During which frames can we see a red robot?", "from to and jumps"]


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer(TEXTS)


def test_special_ids_are_llamas(tokenizer):
    assert (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 1, 2)
    assert tokenizer("red").input_ids[0] == 1
    assert tokenizer("red</s>", add_special_tokens=False).input_ids[-1] == 2


def test_numbers_are_single_tokens(tokenizer):
    ids = [tokenizer(f"{number:02d}", add_special_tokens=False).input_ids for number in range(100)]
    assert all(len(one) == 1 for one in ids) and len({one[0] for one in ids}) == 100
    assert len(tokenizer("from 07 to 15.", add_special_tokens=False).input_ids) == 5


def test_an_answer_is_read_back(tokenizer):
    answer = "From 07 to 15, a red robot jumps. From 20 to 31."
    text = tokenizer.decode(tokenizer(answer).input_ids, skip_special_tokens=True)
    assert text == answer
    assert re.findall(r"(\d{2}) (to|and) (\d{2})", text) == [("07", "to", "15"), ("20", "to", "31")]


def test_newlines_are_tokens_and_spaces_are_not(tokenizer):
    assert len(tokenizer(" \n see  a\tred ", add_special_tokens=False).input_ids) == 4


@pytest.mark.parametrize("text", ["Zorgle née 日本 🙂", "", "   ", "12345", '{"event": "x_y"}'])
def test_unknown_text_does_not_fail(tokenizer, text):
    assert all(0 <= i < len(tokenizer) for i in tokenizer(text).input_ids)


def test_the_order_of_the_texts_does_not_matter(tokenizer):
    assert tiny_tokenizer(TEXTS[::-1]).get_vocab() == tokenizer.get_vocab()


def test_same_seed_same_weights_and_the_global_generator_stays():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first, second, other = (tiny_lm(200, width=32, layers=1, seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not torch.equal(first["lm_head.weight"], other["lm_head.weight"])


def test_the_folder_loads_like_any_checkpoint(tokenizer, tmp_path):
    model = tiny_lm(len(tokenizer), width=32, layers=1)
    save_tiny_lm(tmp_path, model, tokenizer)
    loaded, words = AutoModelForCausalLM.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    ids = torch.tensor([words("a red robot jumps from 07 to 15.").input_ids])
    assert ids[0].tolist() == tokenizer("a red robot jumps from 07 to 15.").input_ids
    torch.testing.assert_close(loaded(ids).logits, model.eval()(ids).logits)
    assert not list(tmp_path.glob("*.bin"))
