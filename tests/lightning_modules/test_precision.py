"""Every precision that Lightning offers trains and validates, or is refused by name."""

import pytest
import torch

import train
from models.checkpoints import read_weights

SYSTEMS = {
    "text": ["--model=BoundaryPerception", "--model.lora={r: 4, alpha: 8}", "--model.localizer=TextTimestamps"],
    "meco": ["--model=BoundaryPerception", "--model.lora={r: 4, alpha: 8}", "--model.localizer=StructuralTokens"],
    "expert": ["--model=ExpertTuning", "--model.experts={rank: 4}", "--model.localizer=TemporalExpert"],
}
LEARNED = {"64-true": torch.float64, "bf16-true": torch.bfloat16}
"""Precisions in which what learns is not in float32."""


@pytest.fixture
def line(arguments, world, runs, tmp_path):
    """The command line of a short run with a validation in it."""

    def made(system: str, precision: str) -> list[str]:
        val = f"--data.val=[{{shards: {world / 'videos'}, queries: {world / 'val' / 'grounding.jsonl'}}}]"
        more = [f"--trainer.precision={precision}", val, "--trainer.limit_val_batches=1", "--data.eval_batch_size=2"]
        args = arguments(
            2, tmp_path / "run", *more, "--model.generation.max_new_tokens=3", previous=runs[1], max_steps=2
        )
        own = ("--model=", "--model.lora=", "--model.localizer=")
        first, *rest = SYSTEMS[system]
        return [first, *(arg for arg in args if not arg.startswith(own)), *rest, "--trainer.val_check_interval=1"]

    return made


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("precision", ["64-true", "bf16-true", "bf16-mixed", "16-mixed"])
def test_a_precision_trains_and_validates(system, precision, line, tmp_path):
    train.main(line(system, precision))
    weights = read_weights(tmp_path / "run")
    loras = [*weights.loras, *weights.experts.values()]
    learned = [*weights.head.values(), *(tensor for lora in loras for tensor in lora.tensors.values())]
    assert learned
    assert all(tensor.isfinite().all() for tensor in learned)
    assert {tensor.dtype for tensor in learned} == {LEARNED.get(precision, torch.float32)}


@pytest.mark.parametrize("precision", ["16-true", "transformer-engine", "transformer-engine-float16"])
def test_a_precision_that_does_not_work_is_refused_by_name(precision, line):
    with pytest.raises(ValueError, match=f"precision {precision}: .*; use (16|bf16)-mixed"):
        train.main(line("text", precision))
