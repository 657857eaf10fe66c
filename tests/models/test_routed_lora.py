"""Two experts in one language model: exact routing in training, with recomputation, and in generation."""

import copy

import pytest
import torch
from peft import LoraConfig, PeftModel
from peft.tuners.lora import LoraLayer
from transformers import DynamicCache, Phi3Config, Phi3ForCausalLM, Qwen2Config, Qwen2ForCausalLM

from models.checkpoints import Weights, add_lora, lora_config, read_weights, write_weights
from models.routed_lora import add_experts, expert_configs, experts, merge_experts, put_experts, route
from preparation.world.tiny import tiny_lm

WORDS = 40
ADAPTER = {"weight": torch.zeros(1)}
SMALL = {
    "vocab_size": WORDS, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
BASES = {
    "llama": lambda: tiny_lm(WORDS, width=16, layers=2, heads=2),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SMALL)),
    "phi3": lambda: Phi3ForCausalLM(Phi3Config(**SMALL)),
}
NO_END = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0, "eos_token_id": WORDS - 1}


def randomise(model: torch.nn.Module, seed: int = 0) -> None:
    """Random values in both matrices; B would be zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "lora_" in name:
                value.copy_(torch.randn(value.shape, generator=generator) * 0.3)


def make(base: str = "llama", temporal: int = 3, spatial: int = 5, dropout: float = 0.0) -> PeftModel:
    torch.manual_seed(0)
    configs = (lora_config(r, 2 * r, dropout) if r else None for r in (temporal, spatial))
    model = add_experts(BASES[base](), *configs)
    randomise(model)
    return model.eval()


@pytest.fixture
def batch():
    """Two prompts of different length, padded left, with temporal positions in different places."""
    torch.manual_seed(2)
    ids, temporal = torch.randint(3, WORDS - 1, (2, 9)), torch.zeros(2, 9, dtype=torch.bool)
    attention_mask = torch.ones(2, 9, dtype=torch.long)
    attention_mask[1, :3] = 0
    temporal[0, 1:5] = temporal[1, 5:8] = True
    return ids, attention_mask, temporal


def projections(model, ids, temporal, **settings) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Input and output of every adapted layer in one forward pass."""
    seen, hooks = {}, []
    for name, module in model.named_modules():
        if isinstance(module, LoraLayer):
            keep = lambda _, args, output, name=name: seen.update({name: (args[0], output)})  # noqa: E731
            hooks.append(module.register_forward_hook(keep))
    with torch.no_grad(), route(model, temporal):
        model(ids, **settings)
    for hook in hooks:
        hook.remove()
    return seen


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize(("temporal", "spatial"), [(3, 5), (0, 5), (3, 0)])
def test_every_layer_equals_a_dense_reference(base, temporal, spatial, batch):
    ids, attention_mask, mask = batch
    model = make(base, temporal, spatial)
    seen = projections(model, ids, mask, attention_mask=attention_mask)
    assert len(seen) == {"llama": 14, "qwen2": 14, "phi3": 8}[base]
    for name, (x, y) in seen.items():
        layer = model.get_submodule(name)
        expected = torch.nn.functional.linear(x, layer.base_layer.weight, layer.base_layer.bias)
        for expert, acts in (("temporal", mask), ("spatial", ~mask)):
            if expert in layer.lora_B:
                product = layer.lora_B[expert].weight @ layer.lora_A[expert].weight
                expected = expected + 2 * acts[..., None].float() * (x @ product.T)
        torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("changed", ["temporal", "spatial"])
def test_an_expert_never_changes_the_others_positions_at_the_first_layer(changed, batch):
    ids, _, mask = batch
    model = make()
    first = lambda seen: {name: y for name, (_, y) in seen.items() if "layers.0.self_attn" in name and "o_" not in name}  # noqa: E731
    before = first(projections(model, ids, mask))
    with torch.no_grad():
        for name, value in model.named_parameters():
            if f".{changed}." in name:
                value.add_(torch.randn_like(value))
    after = first(projections(model, ids, mask))
    assert len(before) == 3
    own = mask if changed == "temporal" else ~mask
    for name in before:
        assert torch.equal(after[name][~own], before[name][~own])
        assert ((after[name] - before[name]).abs().amax(-1) > 1e-4)[own].all()


def test_without_a_mask_everything_is_spatial(batch):
    ids, _, mask = batch
    model = make()
    alone = make(temporal=0)
    with torch.no_grad():
        for name, value in alone.named_parameters():
            value.copy_(model.get_parameter(name))
        plain = model(ids).logits
        torch.testing.assert_close(plain, alone(ids).logits)
        with route(model, torch.zeros_like(mask)):  # both ranks in one product, half of it zero
            torch.testing.assert_close(model(ids).logits, plain, rtol=1e-4, atol=1e-5)
        with route(model, mask):
            assert not torch.allclose(model(ids).logits, plain)
            with route(model, None):
                assert torch.equal(model(ids).logits, plain)
        assert torch.equal(model(ids).logits, plain)


def gradients(model, passes) -> dict[str, torch.Tensor]:
    """All passes forward, each under its own mask, and only then one backward pass outside of any."""
    model.zero_grad(set_to_none=True)
    torch.manual_seed(3)
    losses = []
    for ids, mask in passes:
        with route(model, mask):
            losses.append(model(ids, labels=ids, use_cache=False).loss)
    sum(losses).backward()
    return {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("base", BASES)
def test_gradients_with_recomputation_are_the_same(base, reentrant, batch):
    """Also with dropout, and where a later forward pass had another mask."""
    ids, _, mask = batch
    model = make(base, dropout=0.2).train()
    passes = [(ids, mask), (ids, mask.flip(1)), (ids, None)]
    plain = gradients(model, passes)
    model.get_base_model().gradient_checkpointing_enable({"use_reentrant": reentrant})
    model.get_base_model().enable_input_require_grads()
    runs = []
    layer = model.get_base_model().get_decoder().layers[0].mlp
    layer.register_forward_pre_hook(lambda *_: runs.append(1))
    again = gradients(model, passes)
    assert len(runs) == 6, "layers were not run again"
    assert len(plain) == 2 * 2 * (len(runs) and {"llama": 14, "qwen2": 14, "phi3": 8}[base])
    torch.testing.assert_close(again, plain, rtol=1e-5, atol=1e-7)


def test_dropout_is_shared_by_the_experts_of_a_layer(batch):
    """Each position has the mask of the joint input, whichever expert acts on it."""
    ids, _, mask = batch
    model = make(dropout=0.5).train()
    with torch.no_grad():
        weights = dict(model.named_parameters())
        for name, value in weights.items():
            if ".temporal." in name:  # two ranks less, so only what both share is compared
                value.copy_(weights[name.replace("temporal", "spatial")][tuple(map(slice, value.shape))])
            elif "lora_B" in name:
                value[:, 3:] = 0
        outputs = []
        for chosen in (torch.zeros_like(mask), mask):
            torch.manual_seed(7)
            with route(model, chosen):
                outputs.append(model(ids, use_cache=False).logits)
    torch.testing.assert_close(*outputs)


def test_each_expert_learns_from_its_own_positions_only(batch):
    ids, _, mask = batch
    model = make()
    for own, other, chosen in (("temporal", "spatial", torch.ones_like(mask)), ("spatial", "temporal", None)):
        found = gradients(model, [(ids, chosen)])
        assert all(value.any() for name, value in found.items() if f".{own}." in name)
        # zero, and not absent: every rank takes part in the reduction of every gradient
        others = [value for name, value in found.items() if f".{other}." in name]
        assert len(others) == 28
        assert not any(value.any() for value in others)


@pytest.mark.parametrize("base", BASES)
def test_generation_with_and_without_cache_batched_and_alone(base, batch):
    ids, attention_mask, mask = batch
    model = make(base)
    with route(model, mask):
        cached = model.generate(input_ids=ids, attention_mask=attention_mask, use_cache=True, **NO_END)
        whole = model.generate(input_ids=ids, attention_mask=attention_mask, use_cache=False, **NO_END)
    assert torch.equal(cached, whole)
    with route(model, mask[1:, 3:]):
        alone = model.generate(input_ids=ids[1:, 3:], **NO_END)
    assert torch.equal(alone, cached[1:, 3:])
    spatial = model.generate(input_ids=ids, attention_mask=attention_mask, **NO_END)
    assert not torch.equal(spatial, cached), "the temporal expert makes no difference here"


def test_a_shared_prefix_then_decoding(batch):
    """As ``VideoLLM.generate`` does it: the prefix once under the mask, all else spatial."""
    ids, _, mask = batch
    model, temporal = make(), mask[:1, :6]
    question = torch.randint(3, WORDS - 1, (3, 4))
    prompts = torch.cat([ids[:1, :6].expand(3, -1), question], dim=1)
    with route(model, temporal.expand(3, -1)):
        expected = model.generate(input_ids=prompts, **NO_END)
    cache = DynamicCache(config=model.get_base_model().config)
    with torch.no_grad(), route(model, temporal):
        model.get_base_model().get_decoder()(input_ids=ids[:1, :6], past_key_values=cache, use_cache=True)
    cache.batch_select_indices(torch.zeros(3, dtype=torch.long))
    with torch.inference_mode():
        answers = model.generate(input_ids=prompts, past_key_values=cache, **NO_END)
    assert torch.equal(answers, expected)


def test_where_nothing_is_temporal_only_the_spatial_expert_is_computed(batch, monkeypatch):
    """Unless something learns: then each expert has a gradient, be it zero."""
    ids, _, mask = batch
    model, widths = make(temporal=3, spatial=5), set()
    linear = torch.nn.functional.linear

    def seen(x, weight, *bias):
        widths.add(len(weight))
        return linear(x, weight, *bias)

    monkeypatch.setattr("models.expert_layers.F.linear", seen)
    for temporal, learns, ranks in ((None, False, {5}), (mask, False, {8}), (None, True, {8})):
        widths.clear()
        with torch.set_grad_enabled(learns), route(model, temporal):
            model(ids)
        assert widths & {3, 5, 8} == ranks


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize(("temporal", "spatial"), [(3, 5), (0, 5), (3, 0)])
def test_experts_in_the_weights_give_the_same_states_and_answers(base, temporal, spatial, batch):
    ids, attention_mask, mask = batch
    model = make(base, temporal, spatial)
    torch.manual_seed(0)
    merged = merge_experts(BASES[base](), experts(model)).eval()
    settings = {"input_ids": ids, "attention_mask": attention_mask}
    with torch.no_grad():
        for chosen in (mask, None):
            with route(model, chosen), route(merged, chosen):
                torch.testing.assert_close(merged(**settings).logits, model(**settings).logits, rtol=1e-4, atol=1e-5)
        with route(model, mask), route(merged, mask):
            assert torch.equal(merged.generate(**settings, **NO_END), model.generate(**settings, **NO_END))
    names = {name.split(".")[-2] for name, _ in merged.named_parameters() if "lora_A" in name}
    assert names == {"temporal"}


def test_rows_of_new_tokens_become_part_of_the_base(batch):
    ids, _, mask = batch
    temporal, spatial = expert_configs(8, 0.25)
    spatial.trainable_token_indices = {"embed_tokens": [38], "lm_head": [38, 39]}
    torch.manual_seed(0)
    model = add_experts(BASES["llama"](), temporal, spatial).eval()
    randomise(model)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "trainable_tokens" in name:
                value.add_(1)
    torch.manual_seed(0)
    merged = merge_experts(BASES["llama"](), experts(model)).eval()
    assert not any("trainable_tokens" in name for name, _ in merged.named_parameters())
    ids[:, -2:] = torch.tensor([38, 39])
    with torch.no_grad(), route(model, mask), route(merged, mask):
        torch.testing.assert_close(merged(ids).logits, model(ids).logits, rtol=1e-4, atol=1e-5)


def test_experts_on_different_layers_stay_beside_the_base(batch):
    ids, _, mask = batch
    torch.manual_seed(0)
    configs = lora_config(3, 6, 0, ["q_proj"]), lora_config(5, 10, 0, ["q_proj", "v_proj"])
    model = add_experts(BASES["llama"](), *configs).eval()
    randomise(model)
    torch.manual_seed(0)
    merged = merge_experts(BASES["llama"](), experts(model)).eval()
    with torch.no_grad(), route(model, mask), route(merged, mask):
        assert torch.equal(merged(ids).logits, model(ids).logits)


@pytest.mark.parametrize(("temporal", "spatial"), [(3, 5), (0, 5), (3, 0)])
def test_experts_are_saved_as_ordinary_peft_adapters(temporal, spatial, batch, tmp_path):
    ids, _, mask = batch
    model = make(temporal=temporal, spatial=spatial)
    write_weights(tmp_path, Weights(ADAPTER, manifest={"stage": "x"}, experts=experts(model)))
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == sorted(experts(model))
    loaded = put_experts(BASES["llama"](), read_weights(tmp_path).experts).eval()
    with torch.no_grad():
        with route(model, mask), route(loaded, mask):
            assert torch.equal(loaded(ids).logits, model(ids).logits)
        for name, chosen in (("temporal", torch.ones_like(mask)), ("spatial", torch.zeros_like(mask))):
            if name in experts(model):
                ordinary = PeftModel.from_pretrained(BASES["llama"](), str(tmp_path / name)).eval()
                with route(model, chosen):
                    torch.testing.assert_close(ordinary(ids).logits, model(ids).logits)
    assert {name for name, value in loaded.named_parameters() if value.requires_grad} == {
        name for name, value in loaded.named_parameters() if "lora_" in name
    }


def test_rows_of_new_tokens_travel_with_the_spatial_expert(batch, tmp_path):
    ids, _, mask = batch
    temporal, spatial = expert_configs(8, 0.25)
    spatial.trainable_token_indices = {"embed_tokens": [38], "lm_head": [38, 39]}
    model = add_experts(BASES["llama"](), temporal, spatial).eval()
    randomise(model)
    rows = {name: value for name, value in model.named_parameters() if "trainable_tokens" in name}
    assert len(rows) == 2
    assert all(value.requires_grad for value in rows.values())
    with torch.no_grad():
        for value in rows.values():
            value.add_(1)
    write_weights(tmp_path, Weights(ADAPTER, manifest={"stage": "x"}, experts=experts(model)))
    loaded = put_experts(BASES["llama"](), read_weights(tmp_path).experts).eval()
    with torch.no_grad(), route(model, mask), route(loaded, mask):
        assert torch.equal(loaded(ids).logits, model(ids).logits)
    assert len(experts(model)["spatial"].tensors) == len(experts(model)["temporal"].tensors) + 2
    PeftModel.from_pretrained(BASES["llama"](), str(tmp_path / "spatial"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda experts: experts.pop("temporal"), r"of the experts \['spatial'\], the model has"),
        (lambda experts: experts["temporal"].popitem(), "temporal expert weights do not fit this model: 1 missing"),
        (lambda experts: experts["spatial"].update(x=torch.ones(1)), "spatial expert .* 1 not expected, first x"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(change, message):
    tensors = {name: dict(expert.tensors) for name, expert in experts(make()).items()}
    change(tensors)
    with pytest.raises(ValueError, match=message):
        add_experts(BASES["llama"](), lora_config(3, 6, 0), lora_config(5, 10, 0), tensors)


def test_a_model_without_experts_ignores_routing(batch):
    """The ablation: one LoRA for all tokens."""
    ids, _, mask = batch
    model = add_lora(BASES["llama"](), lora_config(8, 16, 0)).eval()
    randomise(model)
    with torch.no_grad():
        plain = model(ids).logits
        with route(model, mask):
            assert torch.equal(model(ids).logits, plain)


def test_the_language_model_inside_is_routed_too(batch):
    ids, _, mask = batch
    model = make()
    with torch.no_grad(), route(model, mask):
        expected = model(ids).logits
    with torch.no_grad(), route(model.get_base_model(), mask):
        assert torch.equal(model.get_base_model()(ids).logits, expected)


def test_a_copy_has_its_own_routing(batch):
    ids, _, mask = batch
    model = make()
    other = copy.deepcopy(model)
    with torch.no_grad(), route(model, mask):
        routed, plain = model(ids).logits, other(ids).logits
    with torch.no_grad(), route(other, mask):
        assert torch.equal(other(ids).logits, routed)
        assert torch.equal(model(ids).logits, plain)


@pytest.mark.parametrize(
    ("share", "ranks", "scale"), [(0, (0, 64), 2), (0.25, (16, 48), 2), (0.5, (32, 32), 2), (1, (64, 0), 2)]
)
def test_the_rank_is_shared_and_the_scale_kept(share, ranks, scale):
    configs = expert_configs(64, share)
    assert tuple(config.r if config else 0 for config in configs) == ranks
    assert all(config.lora_alpha == scale * config.r for config in configs if config)


def test_what_cannot_be_routed_is_refused(batch):
    ids, _, mask = batch
    with pytest.raises(ValueError, match="both experts are absent"):
        add_experts(BASES["llama"](), None, None)
    with pytest.raises(ValueError, match="cannot give a share of 1.5"):
        expert_configs(64, 1.5)
    with pytest.raises(ValueError, match="has a bias"):
        add_experts(BASES["llama"](), None, LoraConfig(r=2, target_modules="all-linear", bias="all"))
    with pytest.raises(ValueError, match="plain LoRAs, not Dora"):
        add_experts(BASES["llama"](), None, LoraConfig(r=2, target_modules="all-linear", use_dora=True))
    with pytest.raises(ValueError, match="share one dropout, got 0.1 and 0.2"):
        add_experts(BASES["llama"](), lora_config(2, 4, 0.1), lora_config(2, 4, 0.2))
    with pytest.raises(ValueError, match="cannot be merged into the weights one by one"):
        make().merge_and_unload()
    head = LoraConfig(r=2, target_modules=["q_proj", "lm_head"])
    with pytest.raises(ValueError, match="experts only work in decoder layers"):
        add_experts(BASES["llama"](), None, head)(ids)
    model = make()
    for wrong in (mask[:1], torch.cat([mask, mask], dim=1)):
        with pytest.raises(ValueError, match=r"does not fit inputs \(2, 9\) after 0 cached"), route(model, wrong):
            model(ids)
