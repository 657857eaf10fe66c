"""Which parameter gets which learning rate."""

import pytest
from torch import nn

from lightning_modules.optimization import Optimization

LORA, HEAD, ADAPTER = "model.llm.base.q_proj.lora_A.default.weight", "model.head.loc.0.weight", "model.adapter.weight"


@pytest.mark.parametrize(
    ("settings", "rates"),
    [
        ({}, (1, 1, 1)),
        ({"other_lr": 2}, (1, 2, 2)),
        ({"head_lr": 3}, (1, 3, 1)),
        ({"head_lr": 3, "other_lr": 2}, (1, 3, 2)),
        ({"head_lr": 0.0}, (1, 0, 1)),
    ],
)
def test_the_head_and_everything_that_is_not_lora_may_have_rates_of_their_own(settings, rates):
    parameters = {name: nn.Parameter() for name in (LORA, HEAD, ADAPTER)}
    groups = Optimization(lr=1, **settings).configure(parameters, 10)["optimizer"].param_groups
    found = {id(parameter): group["initial_lr"] for group in groups for parameter in group["params"]}
    assert tuple(found[id(parameter)] for parameter in parameters.values()) == rates
