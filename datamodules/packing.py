"""Several dialogues about one video in one sequence: its frames are read once, and no dialogue sees another.

Shape suffixes: B sequences, L tokens.
"""

from collections import Counter

import torch
from torch import Tensor

from datamodules.batch import Example


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
    of_video = first.frame_mask if first.spatial_mask is None else first.frame_mask | first.spatial_mask
    prefix = int(of_video.nonzero().max()) + 1 if of_video.any() else 0
    for example in examples:
        alike = torch.equal(example.input_ids[:prefix], first.input_ids[:prefix])
        # Times as shares of a length differ where queries say different lengths.
        alike = alike and torch.equal(*(each.moments[:prefix].nan_to_num(-1) for each in (example, first)))
        if prefix == 0 or not alike or example.frame_mask[prefix:].any():
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


def attention_pattern(
    attention_mask: Tensor,
    dtype: torch.dtype,
    blocks: Tensor | None = None,
    frame_mask: Tensor | None = None,
    window: int | None = None,
) -> Tensor:
    """Additive attention mask (B, 1, L, L): causal, but for what the arguments say.

    It is a float mask because transformers adds it as it is under eager attention.

    Args:
        attention_mask: (B, L) 1 for real tokens.
        dtype: of the mask.
        blocks: (B, L) tokens reach the shared beginning (0) and their own dialogue only.
        frame_mask: (B, L) frames that reach all others of their row, later ones too (MeCo, ``bi_attention``).
        window: tokens that a token sees, itself and those before it, by their positions; frames that reach all
            others do so beyond it. None: all.
    """
    length, device = attention_mask.shape[1], attention_mask.device
    allowed = torch.ones(length, length, dtype=torch.bool, device=device).tril()[None]
    if window is not None:
        index = torch.arange(length, device=device)[None]
        positions = index if blocks is None else block_positions(blocks)
        allowed = allowed & (positions[:, :, None] - positions[:, None, :] < window)
    if frame_mask is not None:
        allowed = allowed | (frame_mask[:, None, :] & frame_mask[:, :, None])
    if blocks is not None:
        allowed = allowed & ((blocks[:, None, :] == 0) | (blocks[:, None, :] == blocks[:, :, None]))
    allowed = allowed & attention_mask[:, None, :].bool()
    allowed = allowed | torch.eye(length, dtype=torch.bool, device=device)  # no padding row without a key
    mask = torch.zeros(allowed.shape, dtype=dtype, device=device)
    return mask.masked_fill(~allowed, torch.finfo(dtype).min)[:, None]
