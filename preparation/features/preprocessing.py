"""Pixels as decoded -> pixels as a vision tower wants them.

Shape suffixes: T frames, H height, W width.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

MODES = {2: "bilinear", 3: "bicubic"}
"""PIL's numbers for ways to resize."""
TOGETHER = 8
"""Frames resized together: many at once do not fit the cache of a CPU, and take twice as long."""


@dataclass(frozen=True)
class Preprocessing:
    """Rescale, resize with antialiasing, crop the centre where asked, normalise."""

    size: int | tuple[int, int]
    """Pixels: of the shorter side, or (height, width) whatever the shape was."""
    crop: int | None
    """Side of the centre square. None: no crop."""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    mode: str = "bicubic"
    scale: float = 1 / 255
    halves_down: bool = False
    """Where the centre lies between two pixels, the crop begins at the former (E.T. Chat), not at the even one."""

    @classmethod
    def from_config(cls, config: Mapping, name: str) -> "Preprocessing":
        """What a ``preprocessor_config.json`` asks for.

        Raises:
            ValueError: naming the checkpoint, if it asks for steps that are not known here.
        """
        size, crop = config.get("size", 224), config.get("crop_size", 224)
        if isinstance(size, Mapping):
            size = size.get("shortest_edge") or (size.get("height"), size.get("width"))
        crop = (crop["height"], crop["width"]) if isinstance(crop, Mapping) else (crop, crop)
        square = isinstance(size, int) and config.get("do_center_crop", True)
        whole = isinstance(size, tuple) and not config.get("do_center_crop")
        mode = MODES.get(config.get("resample", 3))
        known = mode and all(config.get(step, True) for step in ("do_resize", "do_normalize", "do_rescale"))
        if not known or not (whole and all(size) or square and crop[0] == crop[1] <= size):
            raise ValueError(
                f"{name}: preprocessor_config.json asks for other steps than rescale, bicubic or bilinear resize (of "
                "the shorter side with a square centre crop, or of the whole) and normalisation; only these are known"
            )
        mean, std = tuple(config["image_mean"]), tuple(config["image_std"])
        return cls(size, crop[0] if square else None, mean, std, mode, config.get("rescale_factor", 1 / 255))

    def __str__(self) -> str:
        mean, std = (" ".join(map(str, values)) for values in (self.mean, self.std))
        where = f"shorter side {self.size}, centre crop {self.crop}" if self.crop else "x".join(map(str, self.size))
        where += " (halves down)" if self.halves_down else ""
        return f"{self.mode} antialias {where}, mean {mean}, std {std}"

    def __call__(self, pixels: np.ndarray, device: torch.device) -> torch.Tensor:
        """(T, H, W, 3) uint8 -> (T, 3, height, width) float32; on float tensors, as the official code does it."""
        return torch.cat([self._prepare(part.to(device)) for part in torch.from_numpy(pixels).split(TOGETHER)])

    def _prepare(self, pixels: torch.Tensor) -> torch.Tensor:
        # Colour by colour in memory: resizing gives the same bits, in two thirds of the time.
        images = pixels.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format) * self.scale
        height, width = images.shape[-2:]
        shorter = min(height, width)
        size = self.size if isinstance(self.size, tuple) else None
        size = size or (int(self.size * height / shorter), int(self.size * width / shorter))
        images = functional.interpolate(images, size, mode=self.mode, antialias=True)
        if self.crop:
            top, left = ((int if self.halves_down else round)((side - self.crop) / 2) for side in size)
            images = images[..., top : top + self.crop, left : left + self.crop]
        mean, std = (torch.tensor(values, device=pixels.device).view(3, 1, 1) for values in (self.mean, self.std))
        return (images - mean) / std


@dataclass(frozen=True)
class AsDecoded:
    """No preprocessing: the encoder does its own, which the header describes in these words."""

    words: str

    def __str__(self) -> str:
        return self.words

    def __call__(self, pixels: np.ndarray, device: torch.device) -> torch.Tensor:
        """(T, H, W, 3) uint8, unchanged."""
        return torch.from_numpy(pixels).to(device)
