"""A learned vector for each second of a video, added to its frames: VTG-LLM's table of absolute times.

Shape suffixes: B videos, T frames, S seconds, D_feature and D width.
"""

import torch
from torch import Tensor, nn


class TimedAdapter(nn.Module):
    """The vector of a frame's second is added to its features, and both are projected together.

    The table begins as zeros. Once trained, seconds that no training frame had are read between those that some had.

    Args:
        project: maps (B, T, D_feature) to (B, T, D).
        feature_width: D_feature.
        seconds: S, of the table; later frames have its last row.
        legacy: fill as released, see ``filled``.

    Source: VTG-LLM (Guo et al., 2024, section 3.2) and its released code, ``video_time_position_embedding``.
    """

    def __init__(self, project: nn.Module, feature_width: int, seconds: int, legacy: bool = False):
        super().__init__()
        self.project, self.legacy = project, legacy
        self.table = nn.Parameter(torch.zeros(seconds, feature_width))

    def forward(self, features: Tensor, times_s: Tensor | None = None) -> Tensor:
        """Project features of any floating type.

        Args:
            features: (B, T, D_feature), or S-tokens, which have no time.
            times_s: (B, T) when each frame was decoded; None: nothing is added.
        """
        if times_s is not None:
            table = self.table if self.training else filled(self.table, self.legacy)
            features = features.to(table.dtype) + table[second(times_s).clamp(max=len(table) - 1)]
        return self.project(features)


def second(times_s: Tensor) -> Tensor:
    """The rows of times: the nearest second, of two the even one; of negative times the first."""
    return times_s.double().round().long().clamp(min=0)


def filled(table: Tensor, legacy: bool = False) -> Tensor:
    """A table (S, D) in which rows that never learned, which are zero, lie between their neighbours that did.

    Args:
        table: as trained.
        legacy: as released, the farther neighbour counts more, and rows behind the last that learned are mixed of that
            one and the table's last row with weights beyond 0 and 1. Else these are as that one.
    """
    learned = table.detach().abs().sum(-1) > 0
    if learned.all() or not learned.any():
        return table
    rows = torch.arange(len(table), device=table.device)
    left = torch.where(learned, rows, -1).cummax(0).values
    right = torch.where(learned, rows, len(table)).flip(0).cummin(0).values.flip(0)
    first, last = rows[learned][0], rows[learned][-1]
    before, behind = left.clamp(min=int(first)), right.clamp(max=int(last))
    share = ((rows - before) / (behind - before).clamp(min=1)).to(table.dtype)[:, None]
    near = torch.lerp(table[before], table[behind], share)
    if not legacy:
        return near
    swapped = torch.where(learned[:, None], table, torch.lerp(table[behind], table[before], share))
    for row in range(len(table) - 1, int(last), -1):  # from the end on, as released
        weight = (row - last) / (-1 - last)
        swapped[row] = table[last] * weight + swapped[-1] * (1 - weight)
    return swapped
