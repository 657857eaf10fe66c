"""What DisTime learns beside the language model: a span from a state, as two distributions over bins, and the way back.

Shape suffixes: N time tokens, D width; R + 1 bins from the beginning of a video to its end.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class TimeDistributionHead(nn.Module):
    """Reads spans off states, and makes input vectors of spans. Parameters have the released names.

    Args:
        width: D, of the language model.
        bins: R.
        sigma: width of the bell that stands for a time, in bins.
    """

    def __init__(self, width: int, bins: int, sigma: float = 1.0):
        super().__init__()
        self.bins, self.sigma = bins, sigma
        self.time_gen = Perceptron(width, width, 2 * (bins + 1))
        self.time_enc = Perceptron(2 * (bins + 1), width, width)

    def forward(self, states: Tensor) -> Tensor:
        """Logits (N, 2, R + 1) of start and end, from the states (N, D) that predict time tokens."""
        with torch.autocast(states.device.type, enabled=False):
            return self.time_gen(states.float()).unflatten(-1, (2, self.bins + 1))

    def encode(self, moments: Tensor) -> Tensor:
        """Input vectors (N, D) of spans (N, 2), as shares of the duration."""
        with torch.autocast(moments.device.type, enabled=False):
            return self.time_enc(bells(moments.float() * self.bins, self.bins, self.sigma).flatten(1))


class Perceptron(nn.Module):
    """Three linear layers with ReLU between."""

    def __init__(self, width: int, hidden: int, out: int):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(width, hidden), nn.Linear(hidden, hidden), nn.Linear(hidden, out)])

    def forward(self, states: Tensor) -> Tensor:
        """(N, D_in) to (N, D_out)."""
        first, second, last = self.layers
        return last(F.relu(second(F.relu(first(states)))))


def bells(places: Tensor, bins: int, sigma: float) -> Tensor:
    """(.., R + 1) Gaussians around places (..), in bins, each with the sum 1; also around a place far outside."""
    steps = torch.arange(bins + 1, device=places.device, dtype=places.dtype)
    return (-0.5 * ((steps - places[..., None]) / sigma) ** 2).softmax(-1)


def expected(logits: Tensor) -> Tensor:
    """The mean (..) of a distribution over bins (.., R + 1), in bins."""
    return logits.softmax(-1) @ torch.arange(logits.shape[-1], device=logits.device, dtype=logits.dtype)


def focal(logits: Tensor, places: Tensor) -> Tensor:
    """Distribution focal loss (..): the cross-entropy of the two bins around a place, each by its nearness.

    Args:
        logits: (.., R + 1).
        places: (..) in bins, 0 to R.
    """
    chances, last = logits.log_softmax(-1), logits.shape[-1] - 1
    left = places.long().clamp(max=last)
    right = (left + 1).clamp(max=last)
    near = [chances.gather(-1, bin_[..., None]).squeeze(-1) for bin_ in (left, right)]
    return -(near[0] * (left + 1 - places) + near[1] * (places - left))


def distance_iou(predicted: Tensor, target: Tensor, legacy: bool = False) -> Tensor:
    """1 - IoU + (distance of the centres / hull)^2 of spans (N, 2): (N,), from 0 to 2.

    Args:
        predicted: start and end, in any order.
        target: start not behind end.
        legacy: as released, where a reversed prediction has no upper bound, and a number that is none counts as 0.
    """
    predicted = predicted.nan_to_num(0.0) if legacy else torch.stack([predicted.amin(-1), predicted.amax(-1)], dim=-1)
    (a, b), (c, d) = predicted.unbind(-1), target.unbind(-1)
    overlap = (torch.minimum(b, d) - torch.maximum(a, c)).clamp(min=0)
    union, hull = (b - a) + (d - c) - overlap, torch.maximum(b, d) - torch.minimum(a, c)
    same = torch.zeros_like(hull) if legacy else (hull == 0).to(hull.dtype)  # two equal points
    iou = overlap / union.clamp(min=1e-6) + same
    distance = ((a + b) / 2 - (c + d) / 2) / hull.clamp(min=1e-6)
    return 1 - iou + distance**2
