"""A video in the place that a dialogue keeps for it: one position a frame, texts between them, then the S-tokens.

Shape suffixes: T frames, P patches, M S-tokens, L tokens, D feature width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from datamodules.chat import VIDEO_ID
from datamodules.markup import VIDEO, Text
from datamodules.records import FeatureHeader
from datamodules.schema import Video
from datamodules.spatial_compression import Compression, check_shards, spatial_tokens

QUESTION_TOKENS = 256
"""Length at which a question to an adapter is cut (E.T. Chat, released code)."""
WITH_PATCHES = "extract again with --patches true"


@dataclass(frozen=True)
class Splicer:
    """Replaces the placeholder of a video by its frames."""

    pad_id: int
    """Stands at the positions of the video."""
    spatial: Compression | None = None
    """S-tokens that stand behind a video's frames; None: there are none."""
    question_tokenizer: PreTrainedTokenizerBase | None = None
    """Of an adapter that reads patches with the question in mind; None: it reads features."""
    timed: bool = False
    """Whether the adapter is also given when each frame was decoded."""

    def reads(self, header: FeatureHeader, folder: Path | str) -> FeatureHeader:
        """Of a folder's header, what decides about the positions of a video.

        Raises:
            ValueError: the folder lacks what is read, naming it.
        """
        if self.spatial:
            check_shards(header, self.spatial, str(folder))
        if self.question_tokenizer is not None and not header.patches:
            raise ValueError(f"{folder} has no patch tokens, which the adapter reads; {WITH_PATCHES}")
        return header.read_as(self.question_tokenizer is not None, str(self.spatial or ""))

    def splice(
        self, ids: list[int], video: Video, question: Text, texts: Sequence[Sequence[int]] = ()
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Replace the video's placeholder.

        Args:
            ids: of a dialogue, with one ``VIDEO_ID``.
            video: its features, or its patches where the adapter reads them.
            question: what is asked about the video.
            texts: ids that stand before each of T frames, and then those behind the last. Empty: there are none.

        Returns:
            ids (L,), where the video stands with its texts (L,), features and masks as Example and Prompt name them.

        Raises:
            ValueError: the video lacks patches or S-tokens, naming it.
        """
        frames, tokens = len(video.features), {"features": torch.from_numpy(video.features)}
        if self.question_tokenizer is not None:
            tokens = self._patches(video, question)
        if self.timed:
            tokens["frame_times_s"] = torch.from_numpy(video.frame_times_s).float()
        if self.spatial:
            tokens["spatial"] = torch.from_numpy(spatial_tokens(video, self.spatial))
        *before, behind = texts or [()] * (frames + 1)
        seen = [*chain.from_iterable((*text, VIDEO_ID) for text in before)]
        seen += [VIDEO_ID] * len(tokens.get("spatial", ())) + [*behind]
        counts = torch.tensor([len(seen) if i == VIDEO_ID else 1 for i in ids])
        spliced = torch.tensor(ids).repeat_interleave(counts)
        of_video = spliced == VIDEO_ID
        spliced[of_video] = torch.tensor(seen).repeat(ids.count(VIDEO_ID))
        stands = spliced == VIDEO_ID
        tokens["frame_mask"] = stands & (stands.cumsum(0) <= frames)
        if self.spatial:
            tokens["spatial_mask"] = stands & ~tokens["frame_mask"]
        return spliced.masked_fill(stands, self.pad_id), of_video, tokens

    def _patches(self, video: Video, question: Text) -> dict[str, Tensor]:
        """Patches in place of features, and the question that they are read with."""
        if video.patches is None:
            raise ValueError(f"video {video.id} has no patch tokens, which the adapter reads; {WITH_PATCHES}")
        text = question.change({VIDEO: ""}).strip()
        cut = {"truncation": True, "max_length": QUESTION_TOKENS, "split_special_tokens": True}
        ids = self.question_tokenizer(text, **cut).input_ids
        return {"features": torch.from_numpy(video.patches), "question_ids": torch.tensor(ids)}
