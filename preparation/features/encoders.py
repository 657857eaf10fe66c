"""Frozen vision towers by name: CLIP and SigLIP, which load through transformers, and where the others are.

Shape suffixes: T frames, H height, W width, P patches, D feature width.
"""

import json
from pathlib import Path

import torch
from torch import nn
from transformers import AutoConfig, CLIPVisionModelWithProjection, SiglipVisionModel
from transformers.utils import cached_file

from preparation.features.decoding import first_line
from preparation.features.own_encoder import CLASS_PATH, OwnEncoder
from preparation.features.preprocessing import Preprocessing
from preparation.features.timm_encoder import TIMM, EvaFile, TimmEncoder
from preparation.features.vision_encoder import PROJECTED, RAW, Outputs, VisionEncoder


class ClipEncoder(VisionEncoder):
    """CLIP with its projection (``openai/clip-vit-large-patch14``)."""

    def load(self):
        """See VisionEncoder."""
        model, preprocessing = _from_pretrained(self.name, CLIPVisionModelWithProjection)
        vision, raw = model.config, self.outputs.space == "raw"
        layer = -2 if self.outputs.attention_layer is None else self.outputs.attention_layer
        number = vision.num_hidden_layers + layer
        if not 0 <= number < vision.num_hidden_layers:
            raise ValueError(
                f"{self.name} has {vision.num_hidden_layers} layers; the attention must be of one from "
                f"{-vision.num_hidden_layers} to -1, got {layer}"
            )
        self.width = vision.hidden_size if raw else vision.projection_dim
        self.patch_count = (vision.image_size // vision.patch_size) ** 2
        self.output = RAW if raw else PROJECTED
        of_patches = "last_hidden_state without CLS"
        self.patch_output = f"{of_patches} (no final norm, unprojected)" if raw else f"{of_patches}, normed, projected"
        self.attention_output = f"layer {number + 1} of {vision.num_hidden_layers}, CLS to patches, mean over heads"
        self._row = ClassAttention(model.vision_model.encoder.layers[number].self_attn)
        return model, preprocessing

    def forward(self, images):
        """See VisionEncoder."""
        patches, attention = self.outputs.needed
        self._row.wanted = attention
        output = self.model(images)
        hidden = output.last_hidden_state
        row = self._row.take()
        if self.outputs.space == "raw":
            return hidden[:, 0], hidden[:, 1:] if patches else None, row
        project = nn.Sequential(self.model.vision_model.post_layernorm, self.model.visual_projection)
        return output.image_embeds, project(hidden[:, 1:]) if patches else None, row


class ClassAttention:
    """The attention of the class token to the patches in one layer, from what goes into that layer.

    Fused attention kernels do not return it, and the whole matrix is not needed.
    """

    def __init__(self, layer: nn.Module):
        self.layer, self.wanted, self._row = layer, False, None
        layer.register_forward_pre_hook(self._before, with_kwargs=True)

    def _before(self, layer: nn.Module, args: tuple, kwargs: dict) -> None:
        if self.wanted:
            hidden = args[0] if args else kwargs["hidden_states"]
            query = layer.q_proj(hidden[:, :1]).unflatten(2, (-1, layer.head_dim)).transpose(1, 2)
            key = layer.k_proj(hidden).unflatten(2, (-1, layer.head_dim)).transpose(1, 2)
            scores = query @ key.transpose(2, 3) * layer.scale
            self._row = scores.float().softmax(dim=3)[:, :, 0, 1:].mean(dim=1)

    def take(self) -> torch.Tensor | None:
        """(T, P) of the last forward pass, mean over heads; None where it was not wanted."""
        row, self._row = self._row, None
        return row


class SiglipEncoder(VisionEncoder):
    """SigLIP (``google/siglip-so400m-patch14-384``): no class token, but a pooling head that attends to the patches."""

    def load(self):
        """See VisionEncoder."""
        if self.outputs.space == "raw" or self.outputs.attention_layer is not None:
            raise ValueError(
                f"{self.name}: a SigLIP has one space and one pooling attention, there is nothing to choose"
            )
        model, preprocessing = _from_pretrained(self.name, SiglipVisionModel)
        if not model.use_head:
            raise ValueError(f"{self.name}: a SigLIP without a pooling head has no feature of the whole frame")
        self.width = model.config.hidden_size
        self.patch_count = (model.config.image_size // model.config.patch_size) ** 2
        self.output = "pooler_output (attention pooling, unnormalised)"
        self.patch_output = "last_hidden_state (after the final norm)"
        self.attention_output = "pooling head to patches, mean over heads"
        return model, preprocessing

    def forward(self, images):
        """See VisionEncoder."""
        patches, attention = self.outputs.needed
        output, head, row = self.model(images), self.model.head, None
        hidden = output.last_hidden_state
        if attention:
            row = head.attention(head.probe.expand(len(hidden), -1, -1), hidden, hidden)[1][:, 0]
        return output.pooler_output, hidden if patches else None, row


def load_encoder(
    name: str, device: str = "auto", dtype: str = "float32", outputs: Outputs | None = None
) -> VisionEncoder:
    """The vision tower of a name; see VisionEncoder for the other arguments and errors.

    Args:
        name: folder or hub name of a CLIP or SigLIP, ``timm:NAME``, the file ``eva_vit_g.pth``, or the class path
            (``module.Class``) of an encoder of one's own, see ``own_encoder``.
        device: see VisionEncoder.
        dtype: see VisionEncoder.
        outputs: see VisionEncoder.
    """
    return _kind(name)(name, device, dtype, outputs)


def _kind(name: str) -> type[VisionEncoder]:
    if name.startswith(TIMM):
        return TimmEncoder
    if Path(name).suffix == ".pth":
        return EvaFile
    if CLASS_PATH.fullmatch(name) and not Path(name).exists():
        return OwnEncoder
    try:
        kind = AutoConfig.from_pretrained(name).model_type
    except (OSError, ValueError) as error:
        raise ValueError(f"no checkpoint in the folder or on the hub at {name!r}: {first_line(error)}") from None
    kinds = {"clip": ClipEncoder, "siglip": SiglipEncoder}
    if (family := kind.removesuffix("_vision_model")) not in kinds:
        raise ValueError(
            f"{name} is a {kind}; known vision towers: {', '.join(kinds)}. Any other can be given as a class, see "
            "preparation/features/own_encoder.py"
        )
    return kinds[family]


def _from_pretrained(name: str, kind: type) -> tuple[nn.Module, Preprocessing]:
    """A checkpoint in the layout of transformers; raise ValueError if something of it is missing."""
    try:
        model, loaded = kind.from_pretrained(name, output_loading_info=True)
        preprocessing = json.loads(Path(cached_file(name, "preprocessor_config.json")).read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{name!r} is no complete checkpoint: {first_line(error)}") from None
    missing = sorted(loaded["missing_keys"]) + sorted(loaded["mismatched_keys"])
    if missing:
        raise ValueError(f"{name} is not a {kind.__name__}: no weights for {missing[:3]}")
    return model, Preprocessing.from_config(preprocessing, name)
