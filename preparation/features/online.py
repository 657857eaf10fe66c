"""Features made while training: decode, encode, and keep what there is room for."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from datamodules.names import VideoNames
from datamodules.records import FeatureHeader
from datamodules.schema import Video
from datamodules.video_reader import OnlineEncoding
from preparation.features.decoding import Sampling, Source, find_sources
from preparation.features.encoders import load_encoder
from preparation.features.extraction import extract_video
from preparation.features.feature_cache import FeatureCache
from preparation.features.shared_encoder import SharedEncoder
from preparation.features.vision_encoder import Outputs


@dataclass
class Encoding(OnlineEncoding):
    """Decodes in the processes that read, encodes in the one that trains, with the settings of ``prepare.py features``.

    Args:
        encoder: see ``prepare.py features``.
        sampling: which frames.
        patches: the patch tokens too, for an adapter that reads them.
        pool: the grid that the patches of a frame are averaged to.
        spatial: S-tokens, for example ``4x64``.
        space: of features and patches.
        attention_layer: that S-tokens are chosen by.
        device: where the encoder is; ``auto`` is the accelerator that the process trains on.
        dtype: what the encoder computes in.
        batch_frames: frames encoded together.
        cache: folder that keeps features from epoch to epoch. None: each epoch encodes anew.
        cache_gb: what it may take, in 1e9 bytes; what does not fit is encoded each time.
    """

    encoder: str = "openai/clip-vit-large-patch14"
    sampling: str = "uniform 100"
    patches: bool = False
    pool: str | None = None
    spatial: str | None = None
    space: Literal["projected", "raw"] = "projected"
    attention_layer: int | None = None
    device: str = "auto"
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    batch_frames: int = 32
    cache: Path | None = None
    cache_gb: float = 100.0

    def __post_init__(self):
        self._outputs = Outputs.parse(self.patches, False, self.spatial, self.space, self.attention_layer, self.pool)
        self._sampling, self._shared = Sampling.parse(self.sampling), None

    def open(self, videos: Path) -> "OnlineReader":
        """See OnlineEncoding. The encoder is loaded once, whatever the number of sources."""
        sources = {source.id: source for source in find_sources(videos)[0]}
        if self._shared is None:
            with torch.random.fork_rng(devices=[]):  # what a model draws while it is made changes no training
                encoder = load_encoder(self.encoder, self.device, self.dtype, self._outputs)
            self._shared, self._header = SharedEncoder(encoder), encoder.header(self._sampling)
        cache = FeatureCache(self.cache, self._header, self.cache_gb * 1e9) if self.cache else None
        return OnlineReader(Path(videos), sources, self._shared, self._sampling, self._header, cache, self.batch_frames)


class OnlineReader:
    """Gives videos as a ShardReader does, from their files.

    Args:
        folder: where they are.
        sources: id -> file.
        encoder: shared by all processes.
        sampling: which frames.
        header: how features are made.
        cache: None: there is none.
        batch_frames: frames encoded together.
    """

    def __init__(
        self,
        folder: Path,
        sources: Mapping[str, Source],
        encoder: SharedEncoder,
        sampling: Sampling,
        header: FeatureHeader,
        cache: FeatureCache | None,
        batch_frames: int,
    ):
        self.folder, self.header, self.cache = folder, header, cache
        self._sources, self._names = sources, VideoNames(sources)
        self._encoder, self._sampling, self._batch_frames = encoder, sampling, batch_frames
        self._latest: Video | None = None
        """Questions about one video are asked one after the other."""

    def __contains__(self, video_id: str) -> bool:
        return self._names.find(video_id) is not None

    def shard_of(self, video_id: str) -> int:
        """0: the files may be read in any order."""
        return 0

    def remedy(self, video_id: str) -> str:
        """See VideoReader."""
        return self._names.remedy(video_id, f"no file of that name is in {self.folder}")

    def duration_s(self, video_id: str) -> float:
        """See VideoReader; the video is encoded."""
        return self.read(video_id).duration_s

    def read(self, video_id: str) -> Video:
        """See VideoReader."""
        found = self._names.find(video_id)
        if found is None:
            raise ValueError(f"{self.folder} has no video {video_id!r}; {self.remedy(video_id)}")
        if self._latest is None or self._latest.id != found:
            self._latest = self._read(self._sources[found])
        return self._latest

    def _read(self, source: Source) -> Video:
        if self.cache and (kept := self.cache.get(source)):
            return kept
        video = extract_video(source, self._encoder, self._sampling, self._batch_frames)
        try:
            self.header.check_video(video)
        except ValueError as error:
            raise ValueError(f"{source.path}: {error}") from None
        if self.cache:
            self.cache.put(source, video)
        return video

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_latest": None}
