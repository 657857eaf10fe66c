"""The first adapter in closed form."""

import pytest
import torch

from preparation.cutouts.alignment import fit, nearest


def test_a_linear_world_is_found_whatever_its_mean():
    torch.manual_seed(0)
    features, truth = torch.randn(200, 6) + 5, torch.nn.Linear(6, 4).requires_grad_(False)
    adapter = fit(features, truth(features), ridge=1e-9)
    torch.testing.assert_close(adapter.weight, truth.weight, atol=1e-4, rtol=0)
    torch.testing.assert_close(adapter.bias, truth.bias, atol=1e-4, rtol=0)
    strong = fit(features, truth(features), ridge=1e9)
    assert strong.weight.abs().max() < 1e-6
    torch.testing.assert_close(strong.bias, truth(features).mean(0), atol=1e-4, rtol=0)


def test_nearest_counts_around_the_mean_of_the_words():
    identity = torch.nn.Linear(2, 2).requires_grad_(False)
    identity.weight.copy_(torch.eye(2))
    identity.bias.zero_()
    targets = torch.tensor([[101.0, 100.0], [100.0, 101.0], [99.0, 99.0]])
    right = torch.tensor([0, 1, 1])
    assert nearest(identity, targets[[0, 1, 0]], right, targets) == pytest.approx(200 / 3)
