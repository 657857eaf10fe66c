"""What gives the videos of a data source: shards on disk, or files that are encoded while training."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Protocol

from datamodules.records import FeatureHeader
from datamodules.schema import Video


class VideoReader(Protocol):
    """Gives videos by their ids, or by the end of them (see ``names.VideoNames``), in workers of any kind too."""

    folder: Path
    """Where the videos lie, for messages."""
    header: FeatureHeader
    """How all of them were made, or are."""

    def __contains__(self, video_id: str) -> bool:
        """Whether there is such a video."""

    def read(self, video_id: str) -> Video:
        """One video. Raises ValueError, naming it, if there is none or it cannot be read."""

    def shard_of(self, video_id: str) -> int:
        """Videos with one number are read near each other."""

    def duration_s(self, video_id: str) -> float:
        """Length of a video. Raises ValueError as ``read`` does."""

    def remedy(self, video_id: str) -> str:
        """What to do about a video that is not here."""


class OnlineEncoding(ABC):
    """How video files are encoded while a model is trained on them (``data.encoder``), instead of before.

    A class of its own, named by class path, so that training alone needs no decoder and no vision tower:
    ``preparation.features.online.Encoding`` is one. It is made before anything is loaded, and must be cheap until then.
    """

    @abstractmethod
    def open(self, videos: Path) -> VideoReader:
        """Reader of a folder or list of files. Loads what encodes; raises ValueError where it cannot."""
