"""Patch tokens of a video -> a few S-tokens (Spatial Compress of VideoExpert).

Nothing here is learned: no gradients, and the same input always gives the same tokens. The rules the paper leaves open
are stated at each step.

Shape suffixes: T frames, P patches, D feature width; u groups of frames (GOPs), w tokens of a group.
"""

import zlib
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np
import torch
from torch.nn import functional

from datamodules.records import FeatureHeader
from datamodules.schema import Video


@dataclass(frozen=True)
class Compression:
    """How many S-tokens, and which.

    Raises:
        ValueError: a number below 1, more context tokens than tokens, or an unknown kind.

    Source: VideoExpert, Table VIII, for the sizes (4x64 is the main result).
    """

    gops: int = 4
    """u, groups of frames."""
    tokens: int = 64
    """w, tokens of a group."""
    context: int | None = None
    """Of the w tokens, how many are seeded by uniformly chosen patches. None: 10 of 64, in proportion."""
    kind: Literal["compressed", "random"] = "compressed"
    """``random``: the same number of randomly chosen patch tokens instead (Table VII, row 2)."""

    def __post_init__(self):
        if self.gops < 1 or self.tokens < 1:
            raise ValueError(
                f"S-tokens need at least 1x1, got {self.gops}x{self.tokens}; for none at all leave the setting out"
            )
        if not 0 <= self.context_tokens <= self.tokens:
            raise ValueError(f"context must be between 0 and {self.tokens} tokens, got {self.context}")
        if self.kind not in ("compressed", "random"):
            raise ValueError(f"kind must be compressed or random, got {self.kind!r}")

    @classmethod
    def parse(cls, text: str) -> "Compression":
        """``4x64``, ``4x64 context 12`` or ``4x64 random``, the wording of FeatureHeader.spatial."""
        size, *more = text.split() or [""]
        gops, _, tokens = size.partition("x")
        if gops.isdecimal() and tokens.isdecimal():
            match more:
                case []:
                    return cls(int(gops), int(tokens))
                case ["random"]:
                    return cls(int(gops), int(tokens), kind="random")
                case ["context", context] if context.isdecimal():
                    return cls(int(gops), int(tokens), int(context))
        raise ValueError(f"S-tokens must read like '4x64', '4x64 context 12' or '4x64 random', got {text!r}")

    def __str__(self) -> str:
        size = f"{self.gops}x{self.tokens}"
        if self.kind == "random":
            return f"{size} random"
        return size if self.context_tokens == round(self.tokens * 10 / 64) else f"{size} context {self.context}"

    @property
    def count(self) -> int:
        """m = u * w."""
        return self.gops * self.tokens

    @property
    def context_tokens(self) -> int:
        """Number of context tokens of a group."""
        return round(self.tokens * 10 / 64) if self.context is None else self.context


def idr_frames(frames: int, gops: int) -> list[int]:
    """Frame numbers of the IDR frames: the centres of ``gops`` equal parts, halves rounded to even."""
    return [round(Fraction((2 * part + 1) * frames - gops, 2 * gops)) for part in range(gops)]


def gop_lengths(features: torch.Tensor, idr: list[int]) -> list[int]:
    """How many frames each group has; groups are contiguous and cover the video.

    Between two IDR frames the border is where the cosines of the frames to their own IDR frame have the largest sum;
    of equal borders the one nearest the middle, then the smaller.

    Args:
        features: (T, D) features of the frames.
        idr: frame number of each IDR frame, increasing.
    """
    unit = functional.normalize(features.double(), dim=1)
    borders = [0]
    for a, b in zip(idr, idr[1:], strict=False):
        between = unit[a + 1 : b]
        gain = (between * unit[a]).sum(1) - (between * unit[b]).sum(1)  # of a frame, if it belongs to a
        totals = [0.0, *gain.cumsum(0).tolist()]
        splits = range(a + 1, b + 1)
        borders.append(
            max(splits, key=lambda s, a=a, b=b, totals=totals: (totals[s - a - 1], -abs(2 * s - a - b - 1), -s))
        )
    borders.append(len(features))
    return [end - start for start, end in zip(borders, borders[1:], strict=False)]


@torch.no_grad()
def compress(
    features: torch.Tensor,
    patches: torch.Tensor,
    cls_attention: torch.Tensor,
    settings: Compression = Compression(),  # noqa: B008  (frozen)
) -> torch.Tensor:
    """The S-tokens of one video.

    Args:
        features: (T, D) feature of each frame; decides which frames are similar.
        patches: (T, P, D) patch tokens.
        cls_attention: (T, P) attention of the class token to the patches; decides which patches matter.
        settings: how many tokens.

    Returns:
        (u*w, D) float32: groups in the order of time, within a group the raster order of the patches that seed it.

    Raises:
        ValueError: shapes disagree, more groups than frames (an image has one frame), or more tokens than patches.

    Source: VideoExpert, section "Spatial Compress"; VisionZip for the two kinds of seeds.
    """
    _check(features, patches, cls_attention, settings)
    features, patches, cls_attention = features.float(), patches.float(), cls_attention.float()
    if settings.kind == "random":
        return patches.flatten(0, 1)[_random_places(features, patches.shape[0] * patches.shape[1], settings.count)]
    idr = idr_frames(len(features), settings.gops)
    lengths = gop_lengths(features, idr)
    seeds = _seeds(cls_attention[idr], settings)
    group = torch.repeat_interleave(torch.arange(settings.gops), torch.tensor(lengths)).to(patches.device)
    labels = _labels(patches, idr, seeds, group)
    member = functional.one_hot(labels, settings.tokens) * _kept(labels, idr, group)[..., None]
    member = member.transpose(1, 2).to(patches.dtype)  # (T, w, P)
    sums = torch.stack([part.sum(0) for part in (member @ patches).split(lengths)])
    counts = torch.stack([part.sum((0, 2)) for part in member.split(lengths)])
    return (sums / counts[..., None]).flatten(0, 1)


def _check(features: torch.Tensor, patches: torch.Tensor, cls_attention: torch.Tensor, settings: Compression) -> None:
    shapes = f"features {tuple(features.shape)}, patches {tuple(patches.shape)}, attention {tuple(cls_attention.shape)}"
    if features.ndim != 2 or patches.ndim != 3 or len(features) != len(patches):
        raise ValueError(f"features must be (T, D) and patches (T, P, D) of the same frames, got {shapes}")
    if cls_attention.shape != patches.shape[:2]:
        raise ValueError(f"the attention must be (T, P), one number a patch, got {shapes}")
    frames, count = patches.shape[:2]
    if settings.gops > frames:
        raise ValueError(
            f"{settings} S-tokens need at least {settings.gops} frames, there are {frames}; take fewer groups, "
            "or leave images and short videos out"
        )
    if settings.tokens > count:
        raise ValueError(f"{settings} S-tokens need at least {settings.tokens} patches a frame, there are {count}")


def _random_places(features: torch.Tensor, places: int, count: int) -> torch.Tensor:
    """(count,) different places in the order of time, drawn anew for each video, but always the same for it."""
    generator = torch.Generator().manual_seed(zlib.crc32(features.cpu().numpy().tobytes()))
    return torch.randperm(places, generator=generator)[:count].sort().values.to(features.device)


def _seeds(attention: torch.Tensor, settings: Compression) -> torch.Tensor:
    """(u, w) patch numbers that seed the tokens, from the (u, P) attention of the IDR frames, in raster order.

    Key seeds are the patches with the highest attention (of equal ones the first); context seeds lie uniformly among
    the remaining patches in raster order.
    """
    context = settings.context_tokens
    ranked = attention.argsort(dim=1, descending=True, stable=True)
    key, rest = ranked[:, : settings.tokens - context], ranked[:, settings.tokens - context :].sort(dim=1).values
    places = torch.arange(context, device=rest.device) * rest.shape[1] // max(context, 1)
    return torch.cat([key, rest[:, places]], dim=1).sort(dim=1).values


def _labels(patches: torch.Tensor, idr: list[int], seeds: torch.Tensor, group: torch.Tensor) -> torch.Tensor:
    """(T, P) for every patch the number of the seed of its group with the highest cosine; a seed has its own."""
    unit = functional.normalize(patches, dim=2)
    idr = torch.tensor(idr, device=patches.device)
    rows = torch.take_along_dim(unit[idr], seeds[..., None], dim=1)  # (u, w, D)
    labels = (unit @ rows[group].transpose(1, 2)).argmax(dim=2)
    own = torch.arange(seeds.shape[1], device=patches.device).expand_as(seeds)
    labels[idr] = labels[idr].scatter(1, seeds, own)
    return labels


def _kept(labels: torch.Tensor, idr: list[int], group: torch.Tensor) -> torch.Tensor:
    """(T, P) whether a patch counts: in an IDR frame always, elsewhere unless it repeats what was there before.

    What was there before is the patch at the same place, one frame nearer to the IDR frame; it repeats it if both
    have the same label, whether or not the nearer one was dropped itself.
    """
    frame = torch.arange(len(labels), device=labels.device)
    nearer = frame - torch.sign(frame - torch.tensor(idr, device=labels.device)[group])
    return (labels != labels[nearer]) | (nearer == frame)[:, None]


def spatial_tokens(video: Video, settings: Compression = Compression()) -> np.ndarray:  # noqa: B008  (frozen)
    """The S-tokens of a video: those stored with it, or else computed from its patch tokens.

    Returns:
        (u*w, D) float16.

    Raises:
        ValueError: naming the video, if it has neither, another number of S-tokens, or too few frames or patches.
    """
    if video.spatial is not None:
        if len(video.spatial) != settings.count:
            raise ValueError(
                f"video {video.id}: {len(video.spatial)} S-tokens are stored, {settings} asks for {settings.count}"
            )
        return video.spatial
    arrays = {"features": video.features, "patches": video.patches, "cls_attention": video.cls_attention}
    missing = [name for name, array in arrays.items() if array is None]
    if missing:
        raise ValueError(f"video {video.id}: {_absent(settings, missing)}")
    try:
        return compress(*map(torch.from_numpy, arrays.values()), settings).to(torch.float16).numpy()
    except ValueError as error:
        raise ValueError(f"video {video.id}: {error}") from None


def check_shards(header: FeatureHeader, settings: Compression, folder: str) -> None:
    """Raise ValueError, naming the folder, if its shards cannot give the S-tokens that ``settings`` asks for."""
    if header.spatial:
        if header.spatial != str(settings):
            raise ValueError(f"{folder} holds S-tokens {header.spatial}, {settings} are requested; extract them again")
        return
    missing = [name for name in ("patches", "cls_attention") if not getattr(header, name)]
    if missing:
        raise ValueError(f"{folder}: {_absent(settings, missing)}")
    if header.patch_width != header.width:
        raise ValueError(
            f"{folder}: patches have width {header.patch_width}, features {header.width}; S-tokens and features share "
            "one adapter, extract both in the same space"
        )


def _absent(settings: Compression, missing: list[str]) -> str:
    return (
        f"S-tokens {settings} are requested, but the shards hold neither S-tokens nor {' nor '.join(missing)}; extract "
        f"again with --spatial '{settings}' (small), or with --patches true --cls_attention true"
    )
