"""Time tokens are read with their times: what a localizer puts into the input vector of a token that stands for a time.

In training and in questions the times are known. While an answer is written, the time of a token is what the localizer
reads off the state that predicted it, and stands in the token's input vector when the next token is predicted.

Shape suffixes: B dialogues, V videos, Q queries, N time tokens, T frames, L tokens, D width.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn


class TimeReader(Protocol):
    """What a model needs of a localizer; see ``localizers.base.Localizer``, which is one."""

    inner: str | None
    """Where the states of frames are taken that it reads beside their input vectors."""

    def read_back(
        self, head: nn.Module | None, inputs: Tensor, moments: Tensor, frames: Tensor, rows: Tensor
    ) -> Tensor:
        """Input vectors (N, D) of time tokens."""

    def just_written(
        self, head: nn.Module | None, states: Mapping[str, Tensor], frames: Mapping[str, Tensor], mask: Tensor
    ) -> Tensor | None:
        """What time tokens (N, 2) stand for that were just written."""


@dataclass(frozen=True)
class Feedback:
    """The time tokens of a localizer, and the localizer that reads them."""

    reader: TimeReader
    ids: tuple[int, ...]

    def frames(self, inputs: Tensor, states: Mapping[str, Tensor]) -> Tensor:
        """What tokens are read with: input vectors (V, T, D), and where the reader wants them the inner states too."""
        if self.reader.inner is None:
            return inputs
        return torch.stack([inputs, states.get(self.reader.inner, inputs).to(inputs.dtype)], dim=2)

    def __call__(
        self,
        head: nn.Module | None,
        inputs: Tensor,
        moments: Tensor | None,
        frames: Tensor,
        videos: Tensor | None = None,
    ) -> Tensor:
        """Input vectors (B, L, D) with the times in those of time tokens.

        Args:
            head: of the localizer.
            inputs: (B, L, D).
            moments: (B, L, 2), NaN for other tokens; None: there is no time token.
            frames: (V, T, D) input vectors of the frames.
            videos: (B,) the video of each row; None: each has its own.
        """
        if moments is None:
            return inputs
        row, at = (~moments[..., 0].isnan()).nonzero(as_tuple=True)
        video = row if videos is None else videos[row]
        read = self.reader.read_back(head, inputs[row, at], moments[row, at], frames, video)
        return inputs.index_put((row, at), read.to(inputs.dtype))


@dataclass(eq=False)
class Writing:
    """Answers while they are written: each time token goes back in with the time that it was just given.

    Args:
        feedback: the localizer and its tokens.
        head: of the localizer.
        frames: (V, T, D) input vectors of the videos' frames.
        seen: (V, T, D) by ``StatePoint``, states of these frames.
        mask: (V, T), true where a frame is real.
        videos: (Q,) the video of each query that is being answered.
    """

    feedback: Feedback
    head: nn.Module | None
    frames: Tensor
    seen: Mapping[str, Tensor]
    mask: Tensor
    videos: Tensor
    moments: list[Tensor] = field(default_factory=list)
    """(Q, 2) of every new token, as they are read."""

    def read(self, ids: Tensor, inputs: Tensor, states: Mapping[str, Tensor]) -> Tensor:
        """Input vectors (Q, 1, D) of the new tokens (Q,).

        Args:
            ids: of the new tokens.
            inputs: (Q, 1, D) what the embedding says of them.
            states: (Q, D) by ``StatePoint``, that predicted them.
        """
        moments = torch.full((len(ids), 2), torch.nan, device=inputs.device)
        rows = torch.isin(ids, ids.new_tensor(self.feedback.ids)).nonzero().flatten()
        if len(rows):
            before = {point: state[rows] for point, state in states.items()}
            seen = {point: frames[self.videos[rows]] for point, frames in self.seen.items()}
            found = self.feedback.reader.just_written(self.head, before, seen, self.mask[self.videos[rows]])
            if found is not None:
                moments[rows] = found.to(moments)
        self.moments.append(moments)
        return self.feedback(self.head, inputs, moments[:, None], self.frames, self.videos)
