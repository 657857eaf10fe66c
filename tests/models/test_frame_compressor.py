"""The frame compressor: what it depends on, what trains, and which weights it accepts."""

import pytest
import torch
from transformers import InstructBlipQFormerConfig

from models.frame_compressor import PROJECTIONS, FrameCompressor, load_compressor, parameter_name, read_instruct_blip

QFORMER = InstructBlipQFormerConfig(
    vocab_size=20, hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=24,
    max_position_embeddings=12, encoder_hidden_size=10,
)  # fmt: skip


@pytest.fixture
def compressor():
    torch.manual_seed(0)
    return FrameCompressor(8, QFORMER, queries=3).eval()


@pytest.fixture
def inputs():
    torch.manual_seed(1)
    mask = torch.arange(6) < torch.tensor([[6], [4]])
    return torch.randn(2, 5, 7, 10), torch.randint(1, 20, (2, 6)), mask


def public_file(compressor) -> dict[str, torch.Tensor]:
    """The compressor's Q-Former under the names of InstructBLIP's file."""
    names = {}
    for name, value in compressor.state_dict().items():
        if name.startswith("qformer."):
            name = name.replace("qformer.", "Qformer.bert.").replace(".attention.attention.", ".attention.self.")
            name = name.replace("crossattention.attention.", "crossattention.self.").replace("layernorm", "LayerNorm")
        elif name.split(".")[0] in PROJECTIONS:
            continue
        names[name.replace("norm.", "ln_vision.", 1) if name.startswith("norm.") else name] = value.clone()
    names["query_tokens"] = names.pop("queries")
    return names


def merged_file(compressor) -> dict[str, torch.Tensor]:
    """All of the compressor under the names of a merged MeCo checkpoint."""
    names = {
        f"model.{key.replace('Qformer.', 'qformer_bert.')}": value for key, value in public_file(compressor).items()
    }
    names["model.qformer_query"] = names.pop("model.query_tokens")
    for part in ("weight", "bias"):
        names[f"model.qformer_ln.{part}"] = names.pop(f"model.ln_vision.{part}")
    for name, value in compressor.state_dict().items():
        part, _, rest = name.partition(".")
        if part in PROJECTIONS:
            short = {"up": "proj", "query": "q_proj", "key": "k_proj", "value": "v_proj"}[part]
            names[f"model.qformer_{short}.{rest}"] = value.clone()
    return names


def test_a_token_depends_on_its_own_frame_and_question_only(compressor, inputs):
    patches, ids, mask = inputs
    before = compressor(patches, ids, mask)
    assert before.shape == (2, 5, 8)
    changed = patches.clone()
    changed[0, 2, 6, 0] += 3  # a shift of all its values would be normalised away
    differs = (compressor(changed, ids, mask) - before).abs().amax(-1) > 1e-6
    assert differs.tolist() == [[False, False, True, False, False], [False] * 5]
    other = ids.clone()
    other[1, 0] = (other[1, 0] + 1) % 20
    differs = (compressor(patches, other, mask) - before).abs().amax(-1) > 1e-6
    assert differs.tolist() == [[False] * 5, [True] * 5]


def test_question_padding_and_the_order_of_patches_do_not_matter(compressor, inputs):
    patches, ids, mask = inputs
    before = compressor(patches, ids, mask)
    torch.testing.assert_close(compressor(patches[1:], ids[1:, :4], mask[1:, :4]), before[1:], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(compressor(patches.flip(2), ids, mask), before, atol=1e-5, rtol=1e-5)


def test_half_precision_features_are_taken(compressor, inputs):
    patches, ids, mask = inputs
    torch.testing.assert_close(compressor(patches.half(), ids, mask), compressor(patches.half().float(), ids, mask))


def test_frames_that_are_not_there_cost_nothing_and_give_zero(compressor, inputs):
    patches, ids, mask = inputs
    frame_mask = torch.tensor([[True, True, False, False, False], [True] * 5])
    rows = []
    compressor.qformer.register_forward_pre_hook(
        lambda _, __, kwargs: rows.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    tokens = compressor(patches, ids, mask, frame_mask)
    assert rows == [7]
    assert not tokens[0, 2:].any()
    torch.testing.assert_close(tokens[1], compressor(patches, ids, mask)[1])
    tokens.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in compressor.parameters() if p.grad is not None)


def test_shapes_that_do_not_fit_are_named(compressor, inputs):
    patches, ids, mask = inputs
    with pytest.raises(ValueError, match=r"must be \(B, T, P, 10\)"):
        compressor(patches[..., :9], ids, mask)
    with pytest.raises(ValueError, match="2 videos need one question each"):
        compressor(patches, ids[:1], mask[:1])
    with pytest.raises(ValueError, match="longer than the Q-Former's 12"):
        compressor(patches, ids.repeat(1, 3), mask.repeat(1, 3))
    with pytest.raises(ValueError, match="there is no frame in the batch"):
        compressor(patches, ids, mask, torch.zeros(2, 5, dtype=torch.bool))


def test_what_trains_in_each_stage(compressor):
    def trained(mode):
        return {name for name, value in compressor.tune(mode).named_parameters() if value.requires_grad}

    projections = {name for name, _ in compressor.named_parameters() if name.split(".")[0] in PROJECTIONS}
    assert trained("projector") == projections
    attention = trained("attention")
    assert projections | {"queries", "norm.weight", "norm.bias"} < attention
    rest = {name for name, _ in compressor.named_parameters()} - attention
    assert "qformer.encoder.layer.0.crossattention.output.dense.weight" in attention
    assert "qformer.encoder.layer.1.attention.attention.key.bias" in attention
    assert all("intermediate" in name or ".output" in name or "embeddings" in name for name in rest)
    assert trained("all") == {name for name, _ in compressor.named_parameters()}
    with pytest.raises(ValueError, match="unknown mode 'none'"):
        compressor.tune("none")


def test_the_public_qformer_file_loads_and_every_key_is_reported(compressor, tmp_path):
    tensors = {key: torch.randn_like(value) for key, value in public_file(compressor).items()}
    extra = {"llm_proj.weight": torch.ones(1), "Qformer.bert.embeddings.position_ids": torch.arange(12)[None]}
    torch.save({"model": tensors | extra}, tmp_path / "qformer.pth")
    before = {name: value.clone() for name, value in compressor.state_dict().items()}
    report = load_compressor(compressor, read_instruct_blip(tmp_path / "qformer.pth"))
    assert report.loaded.keys() == tensors.keys()
    assert set(report.ignored) == extra.keys()
    assert set(report.fresh) == {name for name in before if name.split(".")[0] in PROJECTIONS}
    for key, name in report.loaded.items():
        assert torch.equal(compressor.state_dict()[name], tensors[key])
    for name in report.fresh:
        assert torch.equal(compressor.state_dict()[name], before[name])


@pytest.mark.parametrize("prefix", ["", "base_model.model."])
def test_a_merged_checkpoint_loads_completely(compressor, prefix):
    torch.manual_seed(5)
    other = FrameCompressor(8, QFORMER, queries=3)
    tensors = {prefix + key: value for key, value in merged_file(other).items()}
    report = load_compressor(compressor, tensors | {"model.embed_tokens.weight": torch.ones(1)})
    assert report.ignored == ("model.embed_tokens.weight",)
    assert report.fresh == ()
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in compressor.state_dict().items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("model.qformer_ln.bias"), "1 missing, first norm.bias"),
        (lambda t: t.pop("model.qformer_k_proj.1.bias"), "1 missing, first key.1.bias"),
        (lambda t: t.update({"model.qformer_query": torch.zeros(1, 4, 16)}), "1 of another shape, first queries"),
        (lambda t: t.update({"model.qformer_bert.other": torch.zeros(1)}), "not expected, first unknown.qformer_bert"),
        (lambda t: t.update({"Qformer.bert.layer.12.x": torch.zeros(1)}), "not expected, first qformer.layer.12.x"),
        (lambda t: t.update(query_tokens=t["model.qformer_query"]), "two keys hold the same tensor"),
        (lambda t: t.clear(), "missing"),
    ],
)
def test_weights_that_do_not_fit_are_refused(compressor, change, message):
    tensors = merged_file(compressor)
    change(tensors)
    with pytest.raises(ValueError, match=message):
        load_compressor(compressor, tensors)


def test_names_outside_the_compressor_are_left_alone():
    for key in ("llm_proj.bias", "model.layers.0.self_attn.q_proj.weight", "frm_head.0.weight", "logit_scale"):
        assert parameter_name(key) is None


def test_a_file_that_is_not_the_qformers(tmp_path):
    torch.save({"weights": torch.ones(1)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="no tensors under 'model'"):
        read_instruct_blip(tmp_path / "other.pth")

    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "owned"), "w"))

    torch.save({"model": {"query_tokens": Evil()}}, tmp_path / "evil.pth")
    with pytest.raises(ValueError, match="evil.pth holds other objects than plain tensors"):
        read_instruct_blip(tmp_path / "evil.pth")
    assert not (tmp_path / "owned").exists()
