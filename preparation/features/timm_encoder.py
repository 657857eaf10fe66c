"""EVA-CLIP and other vision towers that transformers does not have: through timm, where it is installed.

Shape suffixes: T frames, H height, W width, P patches, D feature width.
"""

import math
import pickle
import re
from pathlib import Path

import torch
from torch import Tensor, nn

from preparation.features.decoding import first_line
from preparation.features.preprocessing import Preprocessing
from preparation.features.vision_encoder import VisionEncoder

TIMM = "timm:"
EVA_G = "eva_giant_patch14_clip_224"
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
PREPROCESSING = {EVA_G: Preprocessing(224, 224, CLIP_MEAN, CLIP_STD, "bilinear", halves_down=True)}
"""Towers whose pictures are not prepared as timm's settings say, but as E.T. Chat and MeCo prepare them
(``clip_center_224`` of their code; timm: bicubic, a tenth of the border cut away)."""
EVA_BLOCKS = 39
"""Of the 40 blocks of EVA-CLIP-g, E.T. Chat and MeCo build these; BLIP-2's file may hold no more."""
EVA_HEAD = 88
"""Width of an attention head."""


class TimmEncoder(VisionEncoder):
    """A tower of timm with a class token, such as ``timm:eva_giant_patch14_clip_224.laion400m``.

    In the ``raw`` space it gives the output of the penultimate block, which E.T. Chat and MeCo use.
    """

    block = -2
    """Whose output the raw space is, counted from the end."""

    def load(self):
        """See VisionEncoder."""
        timm = self._timm()
        architecture, _, tag = self.name.removeprefix(TIMM).partition(".")
        try:
            model = timm.create_model(self.name.removeprefix(TIMM), pretrained=True)
        except (RuntimeError, OSError, ValueError) as error:
            known = [name.partition(".")[2] for name in timm.list_pretrained(f"{architecture}.*")]
            remedy = f". It has {architecture} as {', '.join(known)}" if known and tag not in known else ""
            raise ValueError(f"timm {timm.__version__} cannot load {self.name}: {first_line(error)}{remedy}") from None
        if model.num_prefix_tokens != 1 or model.global_pool != "token":
            raise ValueError(f"{self.name} is no tower with one class token that pools by it")
        raw, blocks = self.outputs.space == "raw", len(model.blocks)
        self._describe(model, f"output of block {blocks - 1} of {blocks}" if raw else "")
        return model, PREPROCESSING.get(architecture) or of_timm(timm.data.resolve_model_data_config(model))

    def _timm(self):
        """The package."""
        try:
            import timm
        except (ImportError, RuntimeError) as error:  # RuntimeError: a torchvision of another build
            raise ValueError(
                f"{self.name} needs timm, which cannot be imported ({first_line(error)}): pip install -e '.[timm]', "
                "with a torchvision of the same build (CUDA or CPU) as torch"
            ) from None
        if any((self.outputs.cls_attention, self.outputs.spatial, self.outputs.attention_layer is not None)):
            raise ValueError(f"{self.name}: towers of timm give no class attention; S-tokens need a CLIP or a SigLIP")
        return timm

    def _describe(self, model: nn.Module, raw: str) -> None:
        """Set what describes the outputs; ``raw`` names the output that the raw space is, if it is wanted."""
        self.width = model.embed_dim if raw or not model.num_classes else model.num_classes
        self.patch_count = model.patch_embed.num_patches
        place = f"{raw} (no final norm, unprojected)"
        self.output = f"CLS, {place}" if raw else "head (projected, unnormalised)"
        self.patch_output = place if raw else "last block, normed, projected"

    def forward(self, images):
        """See VisionEncoder."""
        patches, _ = self.outputs.needed
        if self.outputs.space == "raw":
            ((tokens, prefix),) = self.model.forward_intermediates(
                images, [self.block], return_prefix_tokens=True, norm=False, output_fmt="NLC", intermediates_only=True
            )
            return prefix[:, 0], tokens if patches else None, None
        hidden = self.model.forward_features(images)
        project = nn.Sequential(self.model.fc_norm, self.model.head)
        return self.model.forward_head(hidden), project(hidden[:, 1:]) if patches else None, None


class EvaFile(TimmEncoder):
    """EVA-CLIP-g as BLIP-2 published it (``eva_vit_g.pth``), the file that E.T. Chat and MeCo begin with.

    It holds no projection, so there is the ``raw`` space alone: the output of block 39.
    """

    block = -1

    def load(self):
        """See VisionEncoder."""
        timm = self._timm()
        if self.outputs.space != "raw":
            raise ValueError(f"{self.name} holds no projection: give --space raw")
        tensors = read_tensors(Path(self.name))
        depth = min(EVA_BLOCKS, 1 + max(int(key.split(".")[1]) for key in tensors if key.startswith("blocks.")))
        width, patch = tensors["cls_token"].shape[-1], tensors["patch_embed.proj.weight"].shape[-1]
        size = patch * math.isqrt(tensors["pos_embed"].shape[1] - 1)
        sizes = {"embed_dim": width, "num_heads": width // EVA_HEAD, "patch_size": patch, "img_size": size}
        ratio = tensors["blocks.0.mlp.fc1.weight"].shape[0] / width
        model = timm.create_model(EVA_G, pretrained=False, depth=depth, mlp_ratio=ratio, num_classes=0, **sizes)
        self._take(model, tensors, depth)
        self._describe(model, f"output of block {depth}")
        return model, Preprocessing(size, size, CLIP_MEAN, CLIP_STD, "bilinear", halves_down=True)

    def _take(self, model: nn.Module, tensors: dict[str, Tensor], depth: int) -> None:
        """Load the tensors of the blocks that are used and of what lies before them.

        Raises:
            ValueError: one is missing or has another shape, or there is one that such a tower does not have.
        """
        behind = re.compile(r"blocks\.(\d+)\.|(norm|fc_norm|head)\.")  # a norm and a head are not used
        found = {key: value for key, value in tensors.items() if not _unused(behind.match(key), depth)}
        wanted = {key: value for key, value in model.state_dict().items() if not _unused(behind.match(key), depth)}
        wrong = sorted(wanted.keys() ^ found.keys())
        wrong += [key for key in wanted.keys() & found.keys() if wanted[key].shape != found[key].shape]
        if wrong:
            raise ValueError(f"{self.name} holds no EVA-CLIP as BLIP-2 has it: {', '.join(wrong[:3])} do not fit")
        model.load_state_dict(found, strict=False)


def _unused(match: re.Match | None, depth: int) -> bool:
    return bool(match) and (match[1] is None or int(match[1]) >= depth)


def of_timm(settings: dict) -> Preprocessing:
    """The preprocessing that timm's own settings for a model ask for."""
    side = settings["input_size"][-1]
    size = math.floor(side / settings["crop_pct"])
    return Preprocessing(size, side, tuple(settings["mean"]), tuple(settings["std"]), settings["interpolation"])


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a ``.pth`` file. Nothing in it is executed.

    Raises:
        ValueError: there is no such file, or it holds something else than the tensors of an EVA-CLIP.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(f"{path}: no file of tensors ({first_line(error)})") from None
    content = content.get("model", content) if isinstance(content, dict) else {}
    needed = {"cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.0.mlp.fc1.weight"}
    if not needed <= content.keys() or not all(isinstance(value, Tensor) for value in content.values()):
        raise ValueError(f"{path} holds no vision tower of EVA-CLIP: its keys begin with {list(content)[:3]}")
    return content
