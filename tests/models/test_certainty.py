"""How sure a model is of its words: what is followed while it writes is what a second look at the text says."""

from dataclasses import replace

import pytest
import torch
from transformers import LogitsProcessorList

from models.certainty import Certainty
from models.checkpoints import load_llm
from models.outputs import Generated


def test_it_is_the_probability_of_each_token(llm):
    model = load_llm(llm, torch.float32)
    asked = torch.tensor([[5, 6, 7], [8, 9, 10]])
    certainty = Certainty()
    settings = {"max_new_tokens": 5, "do_sample": False, "eos_token_id": -1, "pad_token_id": 0}
    plain = model.generate(inputs_embeds=model.get_input_embeddings()(asked), **settings)
    embeds, follow = model.get_input_embeddings()(asked), LogitsProcessorList([certainty])
    answers = model.generate(inputs_embeds=embeds, logits_processor=follow, **settings)
    assert answers.tolist() == plain.tolist()
    with torch.no_grad():
        likely = model(torch.cat([asked, answers], dim=1)).logits[:, 2:-1].log_softmax(-1)
    said = likely.gather(-1, answers[..., None]).squeeze(-1)
    assert torch.allclose(certainty.of(answers), said, atol=1e-4)


def test_the_confidence_of_an_answer_is_the_geometric_mean_of_its_tokens():
    one = Generated(torch.arange(3), {}, {}, {}, {}, log_likely=torch.tensor([0.5, 0.25, 0.9]).log())
    assert one.confidence(2) == pytest.approx((0.5 * 0.25) ** 0.5)
    assert replace(one, log_likely=None).confidence(2) is None
