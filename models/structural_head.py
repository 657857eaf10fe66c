"""What MeCo learns beside the language model: where structural tokens and frames meet.

Shape suffixes: J structural tokens, T frames, D width.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def projection(width: int) -> nn.Sequential:
    """LayerNorm, and two linear layers with a GELU between and half the width in the middle (MeCo, table 7)."""
    return nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width // 2), nn.GELU(), nn.Linear(width // 2, width))


class StructuralHead(nn.Module):
    """Projections of frames and of structural tokens, and the temperature between them (MeCo, Eq. 1).

    Parameters have the released names. All of it computes in the precision of its weights, single unless all of
    training is in another, and cosines in single precision.

    Args:
        width: D, of the language model.
        max_scale: upper bound of the factor of the cosines, held by the parameter itself, so that it can come back;
            None: unbounded, as released.
    """

    def __init__(self, width: int, max_scale: float | None = None):
        super().__init__()
        self.frm_head = projection(width)
        self.vid_head = projection(width)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        self.max_scale = max_scale

    @property
    def scale(self) -> Tensor:
        """The factor of the cosines."""
        if self.max_scale is not None:
            with torch.no_grad():
                self.logit_scale.clamp_(max=math.log(self.max_scale))
        return self.logit_scale.exp()

    def frames(self, states: Tensor) -> Tensor:
        """Unit vectors (.., D) of frame states."""
        return self._project(self.frm_head, states)

    def tokens(self, states: Tensor) -> Tensor:
        """Unit vectors (.., D) of the states that predict structural tokens."""
        return self._project(self.vid_head, states)

    @staticmethod
    def _project(head: nn.Module, states: Tensor) -> Tensor:
        with torch.autocast(states.device.type, enabled=False):
            return F.normalize(head(states.to(head[0].weight.dtype)).float(), dim=-1)
