"""The saliency losses and scores equal UniVTG's released code."""

import json
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from models.matching_head import pooled
from models.saliency_losses import LEAST, TEMPERATURE, cosines, inter_video_loss, intra_video_loss

pytestmark = pytest.mark.golden


@pytest.fixture(scope="module")
def official(golden):
    set_ = json.loads((golden / "paradigms/univtg_saliency.json").read_text())
    return SimpleNamespace(**set_, tensors=load_file(golden / "paradigms/univtg_saliency.safetensors"))


def test_univtg_saliency_losses_and_gradients(official):
    for case in official.cases:
        part = {key: official.tensors[f"{case['name']}.{key}"] for key in ("clips", "text", "saliency", "mask")}
        if not part["saliency"].any():  # there is nothing to learn from, and nothing is
            assert (case["inter"], case["intra"]) == (0, 0)
            continue
        for which in ("inter", "intra"):
            clips, text = (part[key].clone().requires_grad_() for key in ("clips", "text"))
            positive = torch.tensor(case["positive_clip"])
            if which == "inter":
                loss = inter_video_loss(clips, text, positive)
            else:
                loss = intra_video_loss(clips, text, positive, part["saliency"], part["mask"], batch_term=True)
            assert loss.item() == pytest.approx(case[which], rel=1e-5, abs=1e-5), (case["name"], which)
            loss.backward()
            for name, tensor in (("clips", clips), ("text", text)):
                theirs = official.tensors[f"{case['name']}.{name}.grad.{which}"]
                bound = 1e-5 * max(theirs.abs().max().item(), 1.0)
                torch.testing.assert_close(tensor.grad, theirs, rtol=0, atol=bound)


def test_univtg_saliency_scores(official):
    assert official.temperature == TEMPERATURE
    assert torch.tensor(LEAST).log().item() == pytest.approx(official.masked_log_weight, rel=1e-6)
    for case in official.cases:
        names = ("clips", "words", "word_mask", "weights.pool", "mask", "scores", "foreground", "scores_add")
        part = {key: official.tensors[f"{case['name']}.{key}"] for key in names}
        text = pooled(part["words"], part["word_mask"].bool(), part["weights.pool"])
        torch.testing.assert_close(text, official.tensors[f"{case['name']}.text"], rtol=1e-5, atol=1e-6)
        real = part["mask"].bool()
        found = cosines(part["clips"], text)
        torch.testing.assert_close(found[real], part["scores"][real], rtol=1e-5, atol=1e-6)
        both = part["scores"].half() + part["foreground"]
        torch.testing.assert_close(both, part["scores_add"].to(both.dtype), rtol=1e-3, atol=1e-3)
        torch.testing.assert_close((found + part["foreground"])[real], part["scores_add"][real], rtol=2e-3, atol=2e-3)
