"""The frame compressor against numbers from MeCo's official code."""

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import InstructBlipQFormerConfig

from models.frame_compressor import FrameCompressor, load_compressor

pytestmark = pytest.mark.golden


@pytest.fixture(scope="module")
def tensors(golden):
    return load_file(golden / "models" / "meco_common" / "qformer_compressor.safetensors")


@pytest.fixture(scope="module")
def compressor(golden, tensors):
    facts = json.loads((golden / "models" / "meco_common" / "qformer_compressor.json").read_text())
    bert = facts["bert"]
    config = InstructBlipQFormerConfig(
        vocab_size=bert["vocab"],
        hidden_size=bert["hidden"],
        num_hidden_layers=bert["layers"],
        num_attention_heads=bert["heads"],
        intermediate_size=bert["intermediate"],
        hidden_act=bert["hidden_act"],
        max_position_embeddings=bert["max_position_embeddings"],
        layer_norm_eps=bert["layer_norm_eps"],
        cross_attention_frequency=bert["cross_attention_freq"],
        encoder_hidden_size=bert["encoder_width"],
    )
    compressor = FrameCompressor(facts["llm_dim"], config, facts["num_query"]).eval()
    weights = {f"model.{key[8:]}": value for key, value in tensors.items() if key.startswith("weights.")}
    report = load_compressor(compressor, weights)
    assert report.loaded.keys() == weights.keys()
    assert report.ignored == report.fresh == ()
    return compressor


@pytest.mark.parametrize(("case", "first", "last"), [(0, 0, 4), (1, 4, 10)])
def test_frame_tokens(compressor, tensors, case, first, last):
    ids, mask = tensors[f"text_ids.{case}"], tensors[f"text_mask.{case}"]
    patches = tensors["patch_tokens"][first:last].expand(len(ids), -1, -1, -1)
    with torch.no_grad():
        tokens = compressor(patches, ids, mask)
    torch.testing.assert_close(tokens, tensors[f"out.{case}"], atol=1e-5, rtol=1e-5)


def test_videos_of_one_batch_do_not_see_each_others_padding(compressor, tensors):
    ids = torch.cat([tensors["text_ids.0"], tensors["text_ids.1"]])
    mask = torch.cat([tensors["text_mask.0"], tensors["text_mask.1"]])
    patches = torch.full((3, 6, 9, 24), float("nan"))
    patches[0, :4], patches[1:] = tensors["patch_tokens"][:4], tensors["patch_tokens"][4:]
    frame_mask = torch.arange(6) < torch.tensor([[4], [6], [6]])
    with torch.no_grad():
        tokens = compressor(patches, ids, mask, frame_mask)
    torch.testing.assert_close(tokens[0, :4], tensors["out.0"][0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(tokens[1:], tensors["out.1"], atol=1e-5, rtol=1e-5)
    assert not tokens[0, 4:].any()
