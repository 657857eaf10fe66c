"""The temporal head and its losses against numbers from UniVTG's public head and criterion."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from models.temporal_head import (
    HeadOutput,
    TemporalHead,
    boundary_losses,
    frame_centres,
    frame_targets,
    giou,
    indicator_loss,
)

pytestmark = pytest.mark.golden


@pytest.fixture(scope="module")
def facts(golden):
    return json.loads((golden / "models" / "videoexpert_head" / "head.json").read_text())


@pytest.fixture(scope="module")
def tensors(golden):
    return load_file(golden / "models" / "videoexpert_head" / "head.safetensors")


@pytest.fixture
def head(facts, tensors):
    """With the official branches; the file starts behind the MLP of the ``<LOC>`` state."""
    head = TemporalHead(facts["D"], "add")
    head.loc = torch.nn.Identity()
    weights = {key.removeprefix("weights."): value for key, value in tensors.items() if key.startswith("weights.")}
    assert head.state_dict().keys() == weights.keys()
    head.load_state_dict(weights)
    return head


@pytest.fixture
def output(head, tensors):
    """The official branches do not know of padding, so every frame counts as real in them."""
    x, h_loc = tensors["x"].clone().requires_grad_(), tensors["h_loc"].clone().requires_grad_()
    everything = torch.ones(x.shape[:2], dtype=torch.bool)
    return replace(head(x, h_loc, everything), mask=tensors["mask"].bool()), x, h_loc


@pytest.fixture
def targets(tensors):
    found = [
        frame_targets(window[None].numpy(), int(mask.sum()))
        for window, mask in zip(tensors["gt"], tensors["mask"], strict=True)
    ]
    foreground = torch.zeros(tensors["mask"].shape, dtype=torch.bool)
    windows = torch.zeros(*foreground.shape, 2)
    for row, (inside, target) in enumerate(found):
        foreground[row, : len(inside)], windows[row, : len(inside)] = torch.tensor(inside), torch.tensor(target)
    return foreground, windows


def test_branches(output, tensors):
    found = output[0]
    torch.testing.assert_close(found.logits.sigmoid(), tensors["indicator"][..., 0], rtol=1e-6, atol=1e-6)
    signed = found.offsets * torch.tensor([-1.0, 1.0])
    torch.testing.assert_close(signed, tensors["offsets"], rtol=1e-6, atol=1e-6)


def test_frame_times_and_foreground(tensors, targets):
    mask = tensors["mask"].bool()
    torch.testing.assert_close(frame_centres(mask)[mask], tensors["timestamps"][..., 0][mask], rtol=1e-6, atol=1e-6)
    assert torch.equal(targets[0], tensors["foreground"].bool())


def test_losses_and_gradients(head, output, tensors, targets, facts):
    found, x, h_loc = output
    foreground, windows = targets
    smooth_l1, overlap = boundary_losses(found, foreground, windows)
    assert smooth_l1.item() == pytest.approx(facts["loss"]["smooth_l1"], abs=1e-6)
    assert overlap.item() == pytest.approx(facts["loss"]["giou"], abs=1e-6)
    # UniVTG averages over all frames of the batch; here every <LOC> has the same weight, however long its video is.
    frames = found.mask.sum(-1)
    each = torch.stack([indicator_loss(row(found, k), foreground[k : k + 1], 0.1) for k in range(3)])
    assert indicator_loss(found, foreground, 0.1).item() == pytest.approx(each.mean().item())
    indicator = (each * frames).sum() / frames.sum()
    assert indicator.item() == pytest.approx(facts["loss"]["indicator_bce"], abs=1e-6)
    total = 10 * smooth_l1 + overlap + 10 * indicator
    assert total.item() == pytest.approx(facts["loss"]["total_10_1_10"], abs=1e-5)
    total.backward()
    for name, value in [*head.named_parameters(), ("x", x), ("h_loc", h_loc)]:
        torch.testing.assert_close(value.grad, tensors[f"grad.{name}"], rtol=1e-4, atol=1e-6)


def row(output, k):
    return HeadOutput(output.logits[k : k + 1], output.offsets[k : k + 1], output.mask[k : k + 1])


def test_giou_of_pairs(facts):
    pairs = facts["giou_pairs"]
    found = giou(torch.tensor(pairs["a"]), torch.tensor(pairs["b"]))
    torch.testing.assert_close(found, torch.tensor(pairs["giou"]), rtol=1e-6, atol=1e-6)
