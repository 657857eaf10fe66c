"""Bases in 4 and 8 bits: what learns beside them, what is kept, and what is refused."""

import importlib.util
import json

import pytest
import torch

import train
from evaluation.benchmark import benchmark
from lightning_modules.trained import TrainedModel
from lightning_modules.training_cli import TrainingCLI
from models import quantization
from models.checkpoints import empty_llm, load_llm, merge_loras, read_weights
from models.quantization import base_bytes, quantize

needs_bitsandbytes = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed (extra quantization)"
)
CPU = torch.device("cpu")


@needs_bitsandbytes
@pytest.mark.parametrize(("kind", "error"), [("nf4", 0.2), ("int8", 0.02)])
def test_states_are_nearly_those_of_the_whole_base(llm, kind, error):
    whole = load_llm(llm, torch.float32).eval()
    small = quantize(load_llm(llm, torch.float32).eval(), kind, torch.float32, CPU)
    ids = torch.arange(40)[None]
    with torch.no_grad():
        expected, found = (m.get_decoder()(ids).last_hidden_state for m in (whole, small))
    difference = float((found - expected).norm() / expected.norm())
    assert 0 < difference < error


@needs_bitsandbytes
@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_bytes_are_told_before_a_base_is_made_small(llm, kind):
    with torch.device("meta"):
        told = base_bytes(empty_llm(llm, torch.float32).requires_grad_(False), kind)
    small = quantize(load_llm(llm, torch.float32), kind, torch.float32, CPU)
    held = sum(p.numel() * p.element_size() for p in small.parameters())
    assert held <= told <= 1.1 * held  # without and with the factors


SYSTEMS = {
    "vtimellm": ["--model.localizer=TextTimestamps"],
    "meco": ["--model.localizer=StructuralTokens", "--model.tune_adapter=true", "--model.gradient_checkpointing=true"],
    "videoexpert": ["--model=ExpertTuning", "--model.localizer=TemporalExpert", "--model.style=videoexpert"],
}


@needs_bitsandbytes
@pytest.mark.parametrize("system", SYSTEMS)
def test_a_run_beside_four_bits_is_trained_resumed_and_asked(system, arguments, runs, whole_and_parts, world, tmp_path):
    def command_line(output):
        more = ["--model.quantization=nf4", "--model.generation.max_new_tokens=4", "--trainer.max_steps=3"]
        args = arguments(2, output, *SYSTEMS[system], *more, previous=runs[1])
        return [arg for arg in args if system != "videoexpert" or "lora" not in arg]

    whole, parts = whole_and_parts(command_line)
    assert whole.manifest["quantization"] == "nf4"
    loras = [*whole.loras, *whole.experts.values()]
    for one, other in zip(loras, [*parts.loras, *parts.experts.values()], strict=True):
        assert all(torch.equal(value, other.tensors[name]) for name, value in one.tensors.items())
        assert any(value.any() for name, value in one.tensors.items() if "lora_B" in name)
    made = read_weights(runs[2]).manifest["base"]["fingerprint"]
    assert whole.manifest["base"]["fingerprint"] == made  # of the base before it was made small
    scores = {}
    for kind in ("nf4", "none"):
        folder = tmp_path / kind
        scores[kind] = benchmark(
            checkpoint=tmp_path / "whole", shards=str(world / "videos"), queries=world / "test" / "grounding.jsonl",
            output=folder, num_workers=0, quantization=None if kind == "nf4" else kind,
        )  # fmt: skip
        protocol = json.loads((folder / "metrics.json").read_text())["protocol"]
        assert protocol["quantization"] == (None if kind == "none" else kind)


@needs_bitsandbytes
def test_the_model_that_is_asked_is_the_one_that_was_trained(arguments, runs, tmp_path):
    """The LoRAs of before are merged into the base before it is made small; the last one stays beside it."""
    train.main(arguments(3, tmp_path / "run", "--model.quantization=nf4", previous=runs[2]))
    cli = TrainingCLI(arguments(3, tmp_path / "x", "--model.quantization=nf4", previous=runs[2]))
    cli.model.configure_model()
    asked = TrainedModel.from_run(tmp_path / "run")
    asked.configure_model()
    last = read_weights(tmp_path / "run").loras[-1]
    theirs = cli.model.model.llm
    for name, parameter in theirs.named_parameters():
        key = name.replace(".default", "")
        if key in last.tensors:
            parameter.data.copy_(last.tensors[key])
    ids = torch.arange(30)[None]
    with torch.no_grad():
        states = [m.causal_lm.get_decoder()(ids).last_hidden_state for m in (cli.model.model.eval(), asked.model)]
    torch.testing.assert_close(*states)
    merged = quantize(merge_loras(load_llm(cli.model.llm_name, torch.float32), read_weights(runs[2]).loras),
                      "nf4", torch.float32, CPU)  # fmt: skip
    layer = asked.model.causal_lm.get_decoder().layers[0].mlp.up_proj.get_base_layer()
    assert torch.equal(layer.weight.data, merged.get_decoder().layers[0].mlp.up_proj.weight.data)


@needs_bitsandbytes
def test_what_is_learned_of_a_whole_base_can_be_asked_in_eight_bits(runs, capsys):
    module = TrainedModel.from_run(runs[3], quantization="int8")
    module.configure_model()
    assert "int8: about" in capsys.readouterr().out  # before it is loaded
    assert module.model.causal_lm.get_decoder().layers[0].mlp.up_proj.get_base_layer().weight.dtype == torch.int8


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--trainer.strategy=fsdp2", "--trainer.devices=2"], "4-bit and 8-bit weights are not split"),
    ],
)
def test_what_few_bits_cannot_do_is_refused(arguments, runs, tmp_path, monkeypatch, more, message):
    monkeypatch.setattr(quantization.importlib.util, "find_spec", lambda name: True)
    with pytest.raises((ValueError, SystemExit), match=message):
        train.main(arguments(2, tmp_path / "run", "--model.quantization=nf4", *more, previous=runs[1]))


def test_without_bitsandbytes_the_extra_is_named(arguments, runs, tmp_path, monkeypatch):
    monkeypatch.setattr(quantization.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"needs bitsandbytes: .*\[quantization\]"):
        train.main(arguments(2, tmp_path / "run", "--model.quantization=nf4", previous=runs[1]))


def test_the_baseline_has_no_base_to_make_small(arguments, tmp_path, monkeypatch):
    monkeypatch.setattr(quantization.importlib.util, "find_spec", lambda name: True)
    args = [arg for arg in arguments(2, tmp_path / "run") if "lora" not in arg]
    more = ["--model=Baseline", "--model.localizer=SentenceMatching", "--model.quantization=nf4", "--model.chat=bare"]
    with pytest.raises(ValueError, match="leave quantization out"):
        train.main([*args, *more, "--model.style=sentence"])
