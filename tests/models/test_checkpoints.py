"""Weights folders: round trips, refusals, and nothing unpickled."""

import json
import pickle

import pytest
import torch

from models.adapters import LinearAdapter
from models.checkpoints import (
    Lora,
    Weights,
    add_lora,
    fingerprint,
    load_llm,
    load_tokenizer,
    lora_config,
    merge_loras,
    read_weights,
    write_weights,
)


@pytest.fixture
def lora(llm):
    """A LoRA with random values in all its tensors."""
    from peft import get_peft_model_state_dict

    config = lora_config(4, 8, 0.0)
    tensors = get_peft_model_state_dict(add_lora(load_llm(llm, torch.float32), config))
    return Lora(config, {key: torch.randn(value.shape) for key, value in tensors.items()})


def test_a_weights_folder_reads_back_what_was_written(lora, tmp_path):
    weights = Weights(LinearAdapter(8, 32).state_dict(), [lora, lora], {"stage": "x"})
    write_weights(tmp_path / "run" / "model", weights)
    for folder in (tmp_path / "run", tmp_path / "run" / "model"):
        found = read_weights(folder)
        assert found.manifest == {"stage": "x"}
        torch.testing.assert_close(found.adapter, weights.adapter)
        assert len(found.loras) == 2
        torch.testing.assert_close(found.loras[1].tensors, lora.tensors)
        assert (found.loras[0].config.r, found.loras[0].config.lora_alpha) == (4, 8)


def test_merging_adds_the_scaled_product(lora, llm):
    base, merged = load_llm(llm, torch.float32), merge_loras(load_llm(llm, torch.float32), [lora])
    name = "model.layers.1.mlp.down_proj"
    a, b = (lora.tensors[f"base_model.model.{name}.lora_{part}.weight"] for part in "AB")
    torch.testing.assert_close(
        merged.get_submodule(name).weight, base.get_submodule(name).weight + 8 / 4 * b @ a, rtol=1e-4, atol=1e-4
    )
    assert torch.equal(merged.lm_head.weight, base.lm_head.weight)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.popitem(), "1 missing"),
        (lambda tensors: tensors.update(other=torch.zeros(1)), "1 not expected, first other"),
        (lambda tensors: tensors.update({next(iter(tensors)): torch.zeros(1)}), "1 of another shape"),
    ],
)
def test_a_lora_that_does_not_fit_is_refused(lora, llm, change, message):
    change(lora.tensors)
    with pytest.raises(ValueError, match=message):
        add_lora(load_llm(llm, torch.float32), lora.config, lora.tensors)


def test_fingerprints_tell_weights_apart_but_not_precisions(llm):
    base = load_llm(llm, torch.float32)
    assert fingerprint(base) == fingerprint(load_llm(llm, torch.float32))
    for dtype in (torch.float16, torch.bfloat16):
        assert fingerprint(load_llm(llm, dtype)) == fingerprint(base)
    with torch.no_grad():
        base.model.layers[0].mlp.up_proj.weight[0, 0] *= -1
    assert fingerprint(base) != fingerprint(load_llm(llm, torch.float32))


def test_missing_models_and_folders_say_what_was_looked_for(tmp_path):
    for load in (lambda name: load_llm(name, torch.float32), load_tokenizer):
        with pytest.raises(ValueError, match="neither a folder with a checkpoint nor a model of the hub"):
            load(str(tmp_path / "nothing"))
    with pytest.raises(ValueError, match="neither model/manifest.json .* nor"):
        read_weights(tmp_path)


def released(folder, name="vtimellm", **projector):
    """The layout of the released weights, stage 1 only."""
    (folder / f"{name}-stage1").mkdir(parents=True)
    torch.save(projector, folder / f"{name}-stage1" / "mm_projector.bin")
    return folder


def test_released_projectors_may_have_any_prefix_but_nothing_else(tmp_path):
    keys = {"base.model.mm_projector.weight": torch.ones(4, 2), "mm_projector.bias": torch.zeros(4)}
    assert sorted(read_weights(released(tmp_path / "good", **keys)).adapter) == ["bias", "weight"]
    with pytest.raises(ValueError, match="does not have: lm_head"):
        read_weights(released(tmp_path / "bad", **keys, **{"lm_head.weight": torch.ones(1)}))


def test_of_several_released_models_one_must_be_named(tmp_path):
    """As they lie in the authors' own folder: two sizes of Vicuna, and ChatGLM3, which is not read here."""
    for number, name in enumerate(("vicuna-7b", "vicuna-13b", "chatglm3-6b")):
        values = {"mm_projector.weight": torch.full((4, 2), float(number)), "mm_projector.bias": torch.zeros(4)}
        released(tmp_path, f"vtimellm-{name}", **values)
    (tmp_path / "vtimellm-vicuna-7b-stage2").mkdir()  # without its LoRA
    with pytest.raises(
        ValueError, match="released weights of 3 models; name one of them: .*chatglm3-6b, .*-vicuna-13b"
    ):
        read_weights(tmp_path)
    found = read_weights(tmp_path / "vtimellm-vicuna-13b")
    assert found.adapter["weight"].unique().item() == 1
    assert found.manifest["stage"] == "released stage 1"
    with pytest.raises(ValueError, match="ChatGLM3 weights are not read here"):
        read_weights(tmp_path / "vtimellm-chatglm3-6b")
    with pytest.raises(OSError, match="adapter_config.json"):
        read_weights(tmp_path / "vtimellm-vicuna-7b")


def test_weights_have_the_mode_of_any_new_file(lora, tmp_path):
    (tmp_path / "new").touch()
    write_weights(tmp_path / "run", Weights(LinearAdapter(8, 32).state_dict(), [lora], {"stage": "x"}))
    modes = {path.stat().st_mode for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert modes == {(tmp_path / "new").stat().st_mode}


def test_a_pickle_in_released_weights_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "owned"), "w"))

    (tmp_path / "stage1").mkdir()
    (tmp_path / "stage1" / "mm_projector.bin").write_bytes(pickle.dumps({"mm_projector.weight": Evil()}))
    with pytest.raises(ValueError, match="mm_projector.bin holds other objects than plain tensors"):
        read_weights(tmp_path)
    assert not (tmp_path / "owned").exists()


def test_adapter_files_are_plain_safetensors_and_json(lora, tmp_path):
    write_weights(tmp_path, Weights(LinearAdapter(8, 32).state_dict(), [lora], {"stage": "x"}))
    assert json.loads((tmp_path / "lora-1" / "adapter_config.json").read_text())["peft_type"] == "LORA"
    assert sorted(path.suffix for path in tmp_path.rglob("*") if path.is_file()) == [
        ".json", ".json", ".safetensors", ".safetensors",
    ]  # fmt: skip
