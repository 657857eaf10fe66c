"""Several dialogues about one video in one sequence: its frames are read once, and no dialogue sees another.

``Pattern`` is the rule of who sees whom.

Shape suffixes: B sequences, L tokens.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from datamodules.batch import Example


def pack_alike(examples: list[Example]) -> list[Example]:
    """Put dialogues about one video behind one copy of its frames, those that begin alike.

    Others, for example with words before the video that differ, stand in sequences of their own.
    """
    groups: list[list[Example]] = []
    for example in examples:
        alike = (group for group in groups if begin_alike(group[0], example))
        if group := next(alike, None):
            group.append(example)
        else:
            groups.append([example])
    return [pack(group) if len(group) > 1 else group[0] for group in groups]


def beginning(example: Example) -> int:
    """Tokens up to the last of the video; 0: there are none of it."""
    video = example.frame_mask if example.spatial_mask is None else example.frame_mask | example.spatial_mask
    return int(video.nonzero().max()) + 1 if video.any() else 0


def begin_alike(first: Example, other: Example) -> bool:
    """Whether two dialogues about one video are the same up to its last token."""
    end = beginning(first)
    if end == 0 or end != beginning(other):
        return False
    # Times as shares of a length differ where queries say different lengths.
    moments = (each.moments[:end].nan_to_num(-1) for each in (first, other))
    return torch.equal(first.input_ids[:end], other.input_ids[:end]) and torch.equal(*moments)


def pack(examples: list[Example]) -> Example:
    """Put dialogues about one video behind one copy of its frames.

    Args:
        examples: they begin alike, up to the video's last frame.

    Returns:
        one Example; its ``blocks`` are 0 for the shared beginning and 1, 2, .. for the dialogues.

    Raises:
        ValueError: a dialogue begins differently, or its video was cut off.
    """
    first = examples[0]
    assert first.question_ids is None, "the adapter reads the frames anew for every question"
    prefix = beginning(first)
    for example in examples:
        if not begin_alike(first, example):
            raise ValueError(
                f"queries {first.queries[0].id} and {example.queries[0].id} cannot share one copy of the video: "
                "their dialogues differ before its last frame; set queries_per_video: 1"
            )
    rest = [len(example.input_ids) - prefix for example in examples]

    def join(name: str) -> Tensor:
        return torch.cat([getattr(first, name)[:prefix], *(getattr(example, name)[prefix:] for example in examples)])

    return Example(
        queries=tuple(query for example in examples for query in example.queries),
        input_ids=join("input_ids"),
        labels=join("labels"),
        frame_mask=join("frame_mask"),
        moments=join("moments"),
        features=first.features,
        frame_times_s=first.frame_times_s,
        targets=tuple(target for example in examples for target in example.targets),
        counts=sum((example.counts for example in examples), Counter()),
        blocks=torch.arange(len(examples) + 1).repeat_interleave(torch.tensor([prefix, *rest])),
        spatial=first.spatial,
        spatial_mask=None if first.spatial_mask is None else join("spatial_mask"),
        source=first.source,
    )


def block_positions(blocks: Tensor) -> Tensor:
    """Positions (B, L): every dialogue counts on from the shared beginning, as if it stood there alone."""
    index = torch.arange(blocks.shape[1], device=blocks.device).expand_as(blocks)
    starts = torch.ones_like(blocks, dtype=torch.bool)
    starts[:, 1:] = blocks[:, 1:] != blocks[:, :-1]
    own_start = torch.where(starts, index, 0).cummax(dim=1).values
    shared = (blocks == 0).sum(dim=1, keepdim=True)
    return torch.where(blocks == 0, index, index - own_start + shared)


Rule = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""Whether a token sees another one: of rows, heads, the places of the tokens and of those they may see, all of shapes
that go together. FlexAttention calls it a ``mask_mod``."""


@dataclass(frozen=True, eq=False)
class Pattern:
    """Which tokens of a row see which: causal, but for what is known of them."""

    real: Tensor
    """(B, L) false at padding."""
    blocks: Tensor | None = None
    """(B, L) tokens see the shared beginning (0) and their own dialogue only. None: there is one dialogue."""
    frames: Tensor | None = None
    """(B, L) frames that see all others of their row, later ones too (MeCo, ``bi_attention``)."""
    positions: Tensor | None = None
    """(B, L) by which windows count. None: places in the row."""
    sequences: Tensor | None = None
    """(B, L) of several that stand end to end in one row; none sees another. None: a row is one sequence."""

    @classmethod
    def of(cls, attention_mask: Tensor, blocks: Tensor | None, frames: Tensor | None) -> "Pattern":
        """That of dialogues (B, L), several behind a shared beginning, whose positions go on from it."""
        return cls(attention_mask.bool(), blocks, frames, None if blocks is None else block_positions(blocks))

    @property
    def plain(self) -> bool:
        """Whether it is causal, and no more."""
        return self.blocks is None and self.frames is None

    def part(self, rows: Sequence[int], length: int) -> "Pattern":
        """That of the beginning of some rows."""
        parts = ((f.name, getattr(self, f.name)) for f in fields(self))
        return Pattern(**{name: None if all_ is None else all_[list(rows), :length] for name, all_ in parts})

    def rule(self, window: int | None = None) -> Rule:
        """The pattern as a function of two places.

        Args:
            window: tokens that a token sees, itself and those before it, by their positions; frames that see all
                others do so beyond it. None: all.
        """
        real, blocks, frames, positions, sequences = (
            self.real.bool(), self.blocks, self.frames, self.positions, self.sequences
        )  # fmt: skip

        def sees(row: Tensor, head: Tensor, token: Tensor, other: Tensor) -> Tensor:
            seen = other <= token
            if window is not None:
                places = (token, other) if positions is None else (positions[row, token], positions[row, other])
                seen = seen & (places[0] - places[1] < window)
            if frames is not None:
                seen = seen | (frames[row, token] & frames[row, other])
            if blocks is not None:
                seen = seen & ((blocks[row, other] == 0) | (blocks[row, other] == blocks[row, token]))
            if sequences is not None:
                seen = seen & (sequences[row, other] == sequences[row, token])
            return (seen & real[row, other]) | (token == other)  # no padding row without a key

        return sees

    def dense(self, dtype: torch.dtype, window: int | None = None) -> Tensor:
        """The rule at all places, as a mask (B, 1, L, L) that is added to scores.

        It is a float mask because transformers adds it as it is under eager attention.
        """
        rows, length = self.real.shape
        row, place = (torch.arange(size, device=self.real.device) for size in (rows, length))
        seen = self.rule(window)(row[:, None, None], row[:1], place[:, None], place[None])
        seen = seen.expand(rows, length, length)
        return torch.zeros_like(seen, dtype=dtype).masked_fill(~seen, torch.finfo(dtype).min)[:, None]


def attention_pattern(
    attention_mask: Tensor,
    dtype: torch.dtype,
    blocks: Tensor | None = None,
    frame_mask: Tensor | None = None,
    window: int | None = None,
) -> Tensor:
    """Additive attention mask (B, 1, L, L): causal, but for what the arguments say; see ``Pattern``.

    Args:
        attention_mask: (B, L) 1 for real tokens.
        dtype: of the mask.
        blocks: (B, L).
        frame_mask: (B, L).
        window: tokens that a token sees. None: all.
    """
    return Pattern.of(attention_mask, blocks, frame_mask).dense(dtype, window)
