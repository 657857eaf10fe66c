"""How sure a model is of its words: what is followed while it writes is what a second look at the text says."""

import pytest
import torch
from transformers import LogitsProcessorList

from models.certainty import Certainty
from models.checkpoints import load_llm


def test_it_is_the_mean_probability_of_the_tokens_up_to_the_end(llm):
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
    means = certainty.means(list(answers), [5, 3])
    assert means == pytest.approx([said[0].mean().exp().item(), said[1, :3].mean().exp().item()], rel=1e-4)
