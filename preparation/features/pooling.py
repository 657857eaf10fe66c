"""Patches of a frame averaged to a smaller grid, so that they can be stored.

Shape suffixes: T frames, P patches, E patch width.
"""

import math
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Pool:
    """A grid of rows x columns; each cell is the mean of the patches that lie in it.

    Where the patches do not divide over the cells, neighbouring cells share some (adaptive average pooling).

    Raises:
        ValueError: a number below 1.
    """

    rows: int
    columns: int

    def __post_init__(self):
        if self.rows < 1 or self.columns < 1:
            raise ValueError(f"a grid of patches needs at least 1x1, got {self}")

    @classmethod
    def parse(cls, text: str) -> "Pool":
        """``4x4``, the wording of FeatureHeader.pool."""
        rows, _, columns = text.partition("x")
        if not (rows.isdecimal() and columns.isdecimal()):
            raise ValueError(f"a grid of patches must read like '4x4', got {text!r}")
        return cls(int(rows), int(columns))

    def __str__(self) -> str:
        return f"{self.rows}x{self.columns}"

    @property
    def count(self) -> int:
        """Number of cells."""
        return self.rows * self.columns

    def check(self, patches: int) -> int:
        """The side of the square that so many patches form. Raises ValueError if they form none, or a smaller one."""
        side = math.isqrt(patches)
        if side**2 != patches or side < max(self.rows, self.columns):
            raise ValueError(f"{patches} patches a frame cannot be pooled to {self}: they form no square as large")
        return side

    def __call__(self, patches: Tensor) -> Tensor:
        """(T, P, E) patches, row by row -> (T, rows * columns, E) float32, row by row."""
        side = self.check(patches.shape[1])
        grid = patches.float().transpose(1, 2).unflatten(2, (side, side))
        return functional.adaptive_avg_pool2d(grid, (self.rows, self.columns)).flatten(2).transpose(1, 2)
