"""An encoder of one's own, by class path: ``prepare.py features --encoder my_towers.Lite0``.

The class is any callable, usually an ``nn.Module``, that can be made without arguments::

    class Lite0(nn.Module):
        preprocessing = "bilinear 224x224, mean and std of ImageNet"

        def __init__(self):
            super().__init__()
            self.tower = ...  # with its weights

        def forward(self, pixels):  # (B, H, W, 3) uint8, as decoded
            return self.tower(prepare(pixels))  # features (B, D), or a pair: features and patches (B, P, E)

``preprocessing`` says in words what becomes of the pixels; it stands in the header of the shards, beside the class path
and the digest of the weights. It may also be a ``Preprocessing``, which is then applied before ``forward``: that gets
images (B, 3, height, width) instead, resized where the pixels were decoded.

Shape suffixes: B pictures, H height, W width, P patches, D feature width, E patch width.
"""

import importlib
import re

import numpy as np
from torch import Tensor, nn

from preparation.features.preprocessing import AsDecoded, Preprocessing
from preparation.features.vision_encoder import VisionEncoder

CLASS_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")
PROBE = (1, 224, 224, 3)
"""A black picture that is encoded first: its features tell how wide all are."""


class OwnEncoder(VisionEncoder):
    """Wraps a class that the user names. Its code runs, so its name is only ever taken from the user."""

    attention_output = ""

    def load(self):
        """See VisionEncoder."""
        stored = self.outputs
        if any((stored.cls_attention, stored.spatial, stored.space != "projected", stored.attention_layer is not None)):
            raise ValueError(f"{self.name}: an encoder by class path gives features and patches, nothing else")
        made = _make(self.name)
        preprocessing = getattr(made, "preprocessing", None)
        if not preprocessing or not isinstance(preprocessing, (str, Preprocessing)):
            raise ValueError(
                f"{self.name}.preprocessing must say in words what becomes of the pixels, or be a Preprocessing; got "
                f"{preprocessing!r}"
            )
        self.output, self.patch_output = "features", "patches"
        words = preprocessing if isinstance(preprocessing, Preprocessing) else AsDecoded(preprocessing)
        return made if isinstance(made, nn.Module) else _Called(made), words

    def try_out(self) -> None:
        """Encode a picture: the result tells how wide the others will be."""
        features, patches, _ = self.run(self.preprocessing(np.zeros(PROBE, np.uint8), self.device))
        self.width = features.shape[-1]
        if patches is not None:
            self.patch_count, self.patch_width = patches.shape[1:]

    def forward(self, images):
        """See VisionEncoder."""
        found = self.model(images)
        features, patches = found if isinstance(found, (tuple, list)) and len(found) == 2 else (found, None)
        self._check("features (B, D)", features, 2, len(images))
        if not self.outputs.patches:
            return features, None, None
        if patches is None:
            raise ValueError(f"{self.name} returns no patches; leave --patches out")
        self._check("patches (B, P, E)", patches, 3, len(images))
        return features, patches, None

    def _check(self, what: str, found, dimensions: int, count: int) -> None:
        fits = isinstance(found, Tensor) and found.ndim == dimensions and found.is_floating_point()
        if not fits or len(found) != count:
            got = f"{found.dtype} {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
            raise ValueError(f"{self.name} must return {what} of {count} pictures as a float tensor, got {got}")


class _Called(nn.Module):
    """A callable that is no module."""

    def __init__(self, called):
        super().__init__()
        self.called = called

    def forward(self, images: Tensor):
        return self.called(images)


def _make(path: str):
    """The class made. Raises ValueError where there is none, or it wants arguments."""
    module, _, name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"no encoder {path}: {error}. A class path is module.Class, found from the folder of the script or "
            "through PYTHONPATH; a folder or hub name holds a CLIP or a SigLIP"
        ) from None
    try:
        made = found()
    except TypeError as error:
        raise ValueError(f"{path} must be a class that is made without arguments: {error}") from None
    if not callable(made):
        raise ValueError(f"{path}() is a {type(made).__name__} and cannot be called with pixels")
    return made
