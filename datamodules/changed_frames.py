"""Videos that do not show what they should: what a model knows of an answer without seeing.

Shape suffixes: T frames, P patches, M S-tokens, D feature width.
"""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from datamodules.schema import Video
from datamodules.shards import ShardReader

Frames = Literal["given", "shuffled", "none", "other_video"]
"""What a model gets to see: the frames as they are, in a random order, only zeros, or those of another video."""
OF_FRAMES = ("features", "patches", "cls_attention")
"""Arrays with one row a frame."""


class ChangedFrames(ShardReader):
    """A folder of shards whose videos keep their lengths and frame times, and look otherwise.

    ``shuffled`` draws an order for each video, the same each time; S-tokens that are stored stay as they are.
    ``other_video`` shows the next one of the folder, its frames spread over those of the asked one.

    Args:
        folder: what ShardWriter wrote.
        frames: what is seen instead.

    Raises:
        ValueError: there is no other video; and as ShardReader does.
    """

    def __init__(self, folder: Path, frames: Frames):
        super().__init__(folder)
        self.frames = frames
        ids = sorted(self.ids) if frames == "other_video" else []
        self._next = dict(zip(ids, [*ids[1:], *ids[:1]], strict=True))
        if frames == "other_video" and len(ids) < 2:
            raise ValueError(f"{folder} holds one video: there is no other to show in its place")

    def read(self, video_id: str) -> Video:
        """One video, as it is shown. Raises ValueError as ShardReader does."""
        video = super().read(video_id)
        if self.frames == "none":
            return replace(video, **{name: np.zeros_like(array) for name, array in _arrays(video).items()})
        if self.frames == "shuffled":
            seed = np.frombuffer(video.id.encode(), dtype=np.uint8)
            return _rearranged(video, video, np.random.default_rng(seed).permutation(len(video.features)))
        other = super().read(self._next[video.id])
        return _rearranged(video, other, np.arange(len(video.features)) * len(other.features) // len(video.features))


def _arrays(video: Video) -> dict[str, np.ndarray]:
    found = {name: getattr(video, name) for name in (*OF_FRAMES, "spatial")}
    return {name: array for name, array in found.items() if array is not None}


def _rearranged(video: Video, shown: Video, order: np.ndarray) -> Video:
    """A video that shows the frames ``order`` (T,) of another, and its S-tokens."""
    arrays = {name: array[order] if name in OF_FRAMES else array for name, array in _arrays(shown).items()}
    return replace(video, **arrays)
