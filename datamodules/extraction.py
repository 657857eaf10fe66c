"""Raw videos and images -> feature shards: decode, encode, write.

Decoding runs one step ahead of the encoder in a thread.

Shape suffixes: T frames, H height, W width, P patches, D feature width.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import decord
import numpy as np
import torch
from rich.progress import track
from torch.nn import functional
from transformers import CLIPVisionModelWithProjection
from transformers.utils import cached_file

from datamodules.decoding import DECODE_ERRORS, Decoded, Sampling, Source, decode, decode_all, first_line, one_ahead
from datamodules.records import FeatureHeader
from datamodules.schema import Video
from datamodules.shards import ShardWriter
from datamodules.skips import OnError, Skip, SkippedFiles, Skips

OUTPUT = "image_embeds (projected, unnormalised)"


def describe_preprocessing(size: int, crop: int, mean: Iterable[float], std: Iterable[float]) -> str:
    """The wording of FeatureHeader.preprocessing; ``size`` and ``crop`` in pixels."""
    mean, std = (" ".join(map(str, values)) for values in (mean, std))
    return f"bicubic antialias shorter side {size}, centre crop {crop}, mean {mean}, std {std}"


class ClipEncoder:
    """A frozen CLIP vision tower: pixels in, features of each frame out.

    Args:
        name: hub name or local folder of a CLIP checkpoint (``openai/clip-vit-large-patch14``).
        device: ``auto`` takes CUDA when there is one.
        dtype: ``float32``, ``float16`` or ``bfloat16``; what the encoder computes in.
        patches: also return the patch tokens.
        cls_attention: also return the attention of the class token to the patches.

    Raises:
        ValueError: no such checkpoint, weights are missing in it, or its preprocessing is none that is known here.
    """

    def __init__(
        self,
        name: str,
        device: str = "auto",
        dtype: str = "float32",
        patches: bool = False,
        cls_attention: bool = False,
    ):
        self.name, self.patches, self.cls_attention = name, patches, cls_attention
        self.device = torch.device(
            "cuda" if device == "auto" and torch.cuda.is_available() else device.replace("auto", "cpu")
        )
        attention = "eager" if cls_attention else "sdpa"  # only eager returns it
        try:
            self.model, loaded = CLIPVisionModelWithProjection.from_pretrained(
                name, attn_implementation=attention, output_loading_info=True
            )
            preprocessing = json.loads(Path(cached_file(name, "preprocessor_config.json")).read_text())
        except (OSError, ValueError) as error:
            raise ValueError(
                f"no CLIP checkpoint in the folder or on the hub at {name!r}: {first_line(error)}"
            ) from None
        if loaded["missing_keys"] or loaded["mismatched_keys"]:
            raise ValueError(
                f"{name} is not a CLIP with projection: no weights for {sorted(loaded['missing_keys'])[:3]}"
            )
        self.sha256 = _digest(self.model)
        self.model = self.model.to(self.device, getattr(torch, dtype)).eval()
        self._read_preprocessing(preprocessing)

    def _read_preprocessing(self, config: dict) -> None:
        """Resize, crop, mean and standard deviation of the checkpoint; refuse any other kind of preprocessing."""
        steps = ("do_resize", "do_center_crop", "do_normalize", "do_rescale")
        size, crop = config.get("size", 224), config.get("crop_size", 224)
        self.size = size.get("shortest_edge") if isinstance(size, dict) else size
        crop = crop if isinstance(crop, dict) else {"height": crop, "width": crop}
        self.crop = crop["height"]
        known = config.get("resample", 3) == 3 and all(config.get(step, True) for step in steps)
        if not known or not self.size or crop["width"] != self.crop or self.crop > self.size:
            raise ValueError(
                f"{self.name}: preprocessor_config.json asks for other steps than rescale, bicubic resize of the "
                "shorter side, square centre crop and normalisation; only these are known here"
            )
        self.scale = config.get("rescale_factor", 1 / 255)
        self.mean, self.std = config["image_mean"], config["image_std"]

    def header(self, sampling: Sampling) -> FeatureHeader:
        """What a folder of features made with this encoder says about itself."""
        vision = self.model.config
        patches = {
            "patches": "last_hidden_state without CLS (no final norm, unprojected)",
            "patch_width": vision.hidden_size,
        }
        attention = {"cls_attention": f"layer {vision.num_hidden_layers}, CLS to patches, mean over heads"}
        return FeatureHeader(
            encoder=self.name,
            output=OUTPUT,
            preprocessing=describe_preprocessing(self.size, self.crop, self.mean, self.std),
            sampling=str(sampling),
            width=vision.projection_dim,
            encoder_sha256=self.sha256,
            patch_count=(vision.image_size // vision.patch_size) ** 2 if self.patches or self.cls_attention else 0,
            **(patches if self.patches else {}),
            **(attention if self.cls_attention else {}),
        )

    def preprocess(self, pixels: np.ndarray) -> torch.Tensor:
        """(T, H, W, 3) uint8 -> (T, 3, crop, crop), as the official code does it on float tensors."""
        images = torch.from_numpy(pixels).to(self.device).permute(0, 3, 1, 2).float() * self.scale
        height, width = images.shape[-2:]
        shorter = min(height, width)
        height, width = int(self.size * height / shorter), int(self.size * width / shorter)
        images = functional.interpolate(images, (height, width), mode="bicubic", antialias=True)
        top, left = round((height - self.crop) / 2), round((width - self.crop) / 2)
        images = images[..., top : top + self.crop, left : left + self.crop]
        mean, std = (torch.tensor(values, device=self.device).view(3, 1, 1) for values in (self.mean, self.std))
        return ((images - mean) / std).to(self.model.dtype)

    @torch.inference_mode()
    def encode(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        """Encode some frames.

        Args:
            pixels: (T, H, W, 3) uint8.

        Returns:
            ``features`` (T, D); ``patches`` (T, P, D_patch) and ``cls_attention`` (T, P) where asked for; float16.
        """
        output = self.model(self.preprocess(pixels), output_attentions=self.cls_attention)
        arrays = {"features": output.image_embeds}
        if self.patches:
            arrays["patches"] = output.last_hidden_state[:, 1:]
        if self.cls_attention:
            arrays["cls_attention"] = output.attentions[-1].mean(dim=1)[:, 0, 1:]
        return {name: array.to(torch.float16).cpu().numpy() for name, array in arrays.items()}


def _digest(model: torch.nn.Module) -> str:
    """Hash of the weights as they lie in the checkpoint."""
    sha256 = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        sha256.update(name.encode())
        sha256.update(tensor.contiguous().view(-1).view(torch.uint8).numpy())
    return sha256.hexdigest()


def _join(parts: list[dict[str, np.ndarray]], end: Decoded) -> Video:
    """The Video of one file from its encoded chunks."""
    about = dict(end.video)
    repeat = about.pop("repeat")
    arrays = {name: np.concatenate([part[name] for part in parts])[repeat] for name in parts[0]}
    return Video(end.source.id, source=end.source.path.name, **about, **arrays)


def extract_video(source: Source, encoder: ClipEncoder, sampling: Sampling, chunk_frames: int = 32) -> Video:
    """Features of one file, in memory.

    Raises:
        ValueError: the file cannot be decoded, or has too few frames.
    """
    parts = []
    try:
        for step in decode(source, sampling, chunk_frames):
            if step.video is not None:
                return _join(parts, step)
            parts.append(encoder.encode(step.pixels))
    except DECODE_ERRORS as error:
        raise ValueError(f"{source.path}: {first_line(error)}") from None
    raise AssertionError("decode ends with the times")


@dataclass(frozen=True)
class Summary:
    """What became of the sources."""

    written: int
    present: int
    """Were in finished shards already."""
    skipped: tuple[Skip, ...]


def extract(
    sources: Iterable[Source],
    encoder: ClipEncoder,
    sampling: Sampling,
    output: Path,
    on_error: OnError = "fail",
    chunk_frames: int = 32,
    max_records: int = 256,
) -> Summary:
    """Encode files into a folder of shards; run it again after an interruption and it goes on.

    Args:
        sources: what to encode, in this order.
        encoder: the vision tower.
        sampling: which frames.
        output: folder of the shards. What was skipped is also written to its ``skipped.jsonl``.
        on_error: ``fail`` at the first file that cannot be used, or ``skip`` and count it.
        chunk_frames: frames that are decoded and encoded together.
        max_records: videos in a shard; what a kill can cost.

    Raises:
        ValueError: naming the file and what is wrong with it (``fail``), or the folder was made differently.
    """
    Skips(on_error)  # refuse an unknown policy before anything is written
    with ShardWriter(output, encoder.header(sampling), max_records) as writer:
        skips = SkippedFiles(on_error, Path(output) / "skipped.jsonl")
        wanted = _unique(sources, skips)
        todo = [source for source in wanted if source.id not in writer.finished_ids]
        steps = one_ahead(decode_all(todo, sampling, chunk_frames))
        for source in track(todo, "extracting", disable=not todo):
            parts = []
            while (step := next(steps)).pixels is not None:
                parts.append(encoder.encode(step.pixels))
            assert step.source == source
            try:
                if step.error:
                    raise step.error
                video = _join(parts, step)
                writer.header.check_video(video)
            except (RuntimeError, decord.DECORDError) as error:
                skips.add(str(source.path), "cannot be decoded", first_line(error))
            except DECODE_ERRORS as error:
                skips.add(str(source.path), first_line(error))
            else:
                writer.add(video)  # outside: a full disk is no reason to skip a video
        return Summary(writer.added, len(wanted) - len(todo), tuple(skips.entries))


def _unique(sources: Iterable[Source], skips: Skips) -> list[Source]:
    """The first source of each id; the later ones are skipped."""
    first: dict[str, Source] = {}
    for source in sources:
        if first.setdefault(source.id, source) is not source:
            skips.add(str(source.path), f"id {source.id!r} is used already", f"for {first[source.id].path}")
    return list(first.values())
