"""What all frozen vision towers have in common: pixels in, features of each frame out.

Shape suffixes: T frames, H height, W width, P patches, D feature width.
"""

import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import nn

from datamodules.records import FeatureHeader
from datamodules.spatial_compression import Compression
from models.checkpoints import best_device
from preparation.features.decoding import Sampling
from preparation.features.preprocessing import Preprocessing

PROJECTED = "image_embeds (projected, unnormalised)"
RAW = "last_hidden_state of CLS (no final norm, unprojected)"


@dataclass(frozen=True)
class Outputs:
    """What is stored of each frame besides its feature."""

    patches: bool = False
    """The patch tokens: T x P x D x 2 bytes a video."""
    cls_attention: bool = False
    """The attention of the class token to the patches."""
    spatial: Compression | None = None
    """S-tokens; they need patches and attention while they are made, and neither later."""
    space: Literal["projected", "raw"] = "projected"
    """Which space features and patches are in: that of the image embedding, or that of the hidden states."""
    attention_layer: int | None = None
    """Counted from the end: -2 is the penultimate layer, and the default (the last one is noisy)."""

    @classmethod
    def of(cls, header: Mapping) -> "Outputs":
        """What the features with this header hold; ``header`` is a FeatureHeader as a dict, or empty."""
        spatial = header.get("spatial", "")
        layer = re.search(r"layer (\d+) of (\d+)", header.get("cls_attention") or header.get("spatial_source", ""))
        return cls(
            bool(header.get("patches")),
            bool(header.get("cls_attention")),
            Compression.parse(spatial) if spatial else None,
            "raw" if "unprojected" in header.get("output", "") else "projected",
            int(layer[1]) - int(layer[2]) - 1 if layer else None,
        )

    @property
    def needed(self) -> tuple[bool, bool]:
        """Whether patches and whether attention must be computed."""
        return self.patches or self.spatial is not None, self.cls_attention or self.spatial is not None


class VisionEncoder(ABC):
    """A frozen vision tower; ``load_encoder`` makes the right one.

    Args:
        name: hub name or local folder of a checkpoint.
        device: ``auto`` takes CUDA or MPS where there is one.
        dtype: ``float32``, ``float16`` or ``bfloat16``; what the encoder computes in.
        outputs: what it returns.

    Raises:
        ValueError: no such checkpoint, weights are missing in it, its preprocessing is none that is known here, or it
            has no output of that kind.
    """

    output: str
    """Which features these are; see FeatureHeader."""
    patch_output: str
    attention_output: str
    width: int
    """D, of features and patches alike."""
    patch_count: int
    """P."""

    def __init__(self, name: str, device: str = "auto", dtype: str = "float32", outputs: Outputs | None = None):
        self.name, self.outputs = name, outputs or Outputs()
        self.device = best_device() if device == "auto" else torch.device(device)
        self.model, self.preprocessing = self.load()
        self.sha256 = _digest(self.model)
        self.model = self.model.to(self.device, getattr(torch, dtype)).eval()

    @abstractmethod
    def load(self) -> tuple[nn.Module, Preprocessing]:
        """The model and its preprocessing; sets what describes the outputs."""

    @abstractmethod
    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """(T, 3, H, W) -> features (T, D), patches (T, P, D) and attention (T, P); the last two where needed."""

    @torch.inference_mode()
    def encode(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        """Encode some frames.

        Args:
            pixels: (T, H, W, 3) uint8.

        Returns:
            ``features`` (T, D); ``patches`` (T, P, D) and ``cls_attention`` (T, P) where needed; float16.
        """
        images = self.preprocessing(pixels, self.device).to(next(self.model.parameters()).dtype)
        arrays = zip(("features", "patches", "cls_attention"), self.forward(images), strict=True)
        return {name: array.to(torch.float16).cpu().numpy() for name, array in arrays if array is not None}

    def header(self, sampling: Sampling) -> FeatureHeader:
        """What a folder of features made with this encoder says about itself."""
        stored, spatial = self.outputs, self.outputs.spatial
        of_patches = {"patches": self.patch_output, "patch_width": self.width} if stored.patches else {}
        of_spatial = {"spatial": str(spatial), "spatial_count": spatial.count} if spatial else {}
        if spatial:
            of_spatial["spatial_source"] = f"{self.patch_output}; {self.attention_output}"
        return FeatureHeader(
            encoder=self.name,
            output=self.output,
            preprocessing=str(self.preprocessing),
            sampling=str(sampling),
            width=self.width,
            encoder_sha256=self.sha256,
            patch_count=self.patch_count if stored.patches or stored.cls_attention else 0,
            cls_attention=self.attention_output if stored.cls_attention else "",
            **of_patches,
            **of_spatial,
        )


def _digest(model: nn.Module) -> str:
    """Hash of the weights as they lie in the checkpoint."""
    sha256 = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        sha256.update(name.encode())
        sha256.update(tensor.contiguous().view(-1).view(torch.uint8).numpy())
    return sha256.hexdigest()
