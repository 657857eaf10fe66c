"""How a batch is laid out for the decoder, and what its attention is told: the one place where a kernel is chosen.

Sequences stand end to end in one row, without padding, and attention runs

* by FlexAttention, on CUDA, where it is more than causal: a block mask of the pattern's rule, nothing quadratic;
* by SDPA for each sequence on its own elsewhere, those of one length together: causal where the pattern is (its flash
  kernels), else with a dense mask of that sequence.

Families whose attention cannot be replaced (GPT-Neo), and those with one of their own (``eager``: Gemma 2, gpt-oss),
keep padded rows and dense masks.

Shape suffixes: B sequences, L tokens of the longest, P tokens of all, H heads, D width of a head.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import groupby

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, create_block_mask
from torch.utils._triton import has_triton
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.flex_attention import flex_attention_forward
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from datamodules.packing import Pattern
from models.decoders import FULL, SLIDING, check_patterns, layer_windows

NAME = "end_to_end"
"""Under which transformers knows this attention."""
TILE = 128
"""Places that FlexAttention takes together; a row has a multiple of them, so that few lengths are compiled."""
LITTLE = 0.05
"""Share of padding, behind causal sequences which do not see it, that costs less than to lay them end to end."""
SMALLEST_HEAD = 16
"""Width below which FlexAttention has no kernel."""


class Ends(Tensor):
    """Lengths (1, 1, 1, G) of the sequences of a row, those of one length together. It has four dimensions, and
    transformers hands it to every layer as it is, also to one that runs again in the backward pass.
    """

    groups: list[tuple[int, int, Tensor | None]]
    """How many sequences of one length follow one another, the length, and their mask (N, 1, L, L); None: causal."""

    @classmethod
    def of(cls, groups: list[tuple[int, int, Tensor | None]], device: torch.device) -> "Ends":
        """Of groups that follow one another on a device."""
        ends = torch.tensor([length for _, length, _ in groups], device=device).view(1, 1, 1, -1).as_subclass(cls)
        ends.groups = groups
        return ends


Mask = Tensor | BlockMask


@dataclass(frozen=True, eq=False)
class Layout:
    """Where the tokens of a batch stand while a decoder runs."""

    mask: Mask | dict[str, Mask] | None
    """What the decoder takes, or that of each kind of layer; None: all is causal."""
    shape: tuple[int, int]
    """B and L."""
    places: Tensor | None = None
    """(P,) of the row's tokens among the B * L of the batch. None: the batch is read as it is."""
    behind: int = 0
    """Places at the end of the row that stand for nothing."""

    @property
    def positions(self) -> int:
        """That the decoder runs on, those that stand for nothing included."""
        return self.shape[0] * self.shape[1] if self.places is None else len(self.places) + self.behind

    def join(self, values: Tensor) -> Tensor:
        """(1, P, ..) of (B, L, ..); behind it, the first of them again."""
        if self.places is None:
            return values
        return values.flatten(0, 1)[F.pad(self.places, (0, self.behind))][None]

    def split(self, values: Tensor) -> Tensor:
        """(B, L, ..) of (1, P, ..), zero at padding."""
        if self.places is None:
            return values
        empty = values.new_zeros(self.shape[0] * self.shape[1], *values.shape[2:])
        return empty.index_copy(0, self.places, values[0, : len(self.places)]).unflatten(0, self.shape)


def lay_out(llm: PreTrainedModel, pattern: Pattern, dtype: torch.dtype) -> Layout:
    """The layout that suits a language model and its device; it may set the model's attention.

    Args:
        llm: the causal language model.
        pattern: of a batch (B, L) that is padded on the right.
        dtype: of dense masks.

    Raises:
        ValueError: the attention of a layer cannot follow the pattern.
    """
    shape = tuple(pattern.real.shape)
    if end_to_end(llm) and flexible(llm, pattern):
        return _joined(llm, pattern)
    lengths = pattern.real.sum(-1).tolist()
    if end_to_end(llm) and pattern.plain and sum(lengths) >= (1 - LITTLE) * pattern.real.numel():
        return Layout(None, shape)
    if end_to_end(llm) and min(lengths) < shape[1]:
        return _grouped(llm, pattern, lengths, dtype)
    return Layout(rows_mask(llm, pattern, dtype), shape)


def rows_mask(llm: PreTrainedModel, pattern: Pattern, dtype: torch.dtype) -> Mask | dict[str, Mask]:
    """Of rows as they are: the plain mask (B, L) where attention is causal, else the whole pattern (B, 1, L, L).

    Raises:
        ValueError: the attention of a layer cannot follow the pattern.
    """
    if pattern.plain:
        return pattern.real.long()
    check_patterns(llm, "dialogues that share a video, or frames that attend to later ones,")
    return by_kind(llm, lambda window: pattern.dense(dtype, window))


def end_to_end(llm: PreTrainedModel) -> bool:
    """Whether a family's attention can be told where each sequence of a row ends."""
    usual = llm.config._attn_implementation in ("sdpa", NAME) and llm._can_set_attn_implementation()
    return usual and layer_windows(llm).keys() <= {FULL, SLIDING}


def flexible(llm: PreTrainedModel, pattern: Pattern) -> bool:
    """Whether FlexAttention should read a batch, and can: its kernels are compiled for CUDA and have no dropout."""
    config, real = llm.config.get_text_config(), pattern.real
    if not (real.is_cuda and llm._supports_flex_attn and has_triton()):
        return False
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    dropout = max(getattr(config, name, None) or 0 for name in ("attention_dropout", "attn_pdrop"))
    near = any(window and window < real.shape[1] for window in layer_windows(llm).values())
    return (near or not pattern.plain) and head >= SMALLEST_HEAD and not (dropout and llm.training)


def by_kind(llm: PreTrainedModel, make: Callable[[int | None], Mask]) -> Mask | dict[str, Mask]:
    """The mask that ``make`` gives of a layer's window, or that of each kind of layer where there are several."""
    masks = {kind: make(window) for kind, window in layer_windows(llm).items()}
    return masks if len(masks) > 1 else next(iter(masks.values()))


def block_mask(pattern: Pattern, window: int | None) -> BlockMask:
    """What FlexAttention takes: which tiles of a pattern are empty, and its rule for the others."""
    (rows, length), device = pattern.real.shape, pattern.real.device
    return create_block_mask(pattern.rule(window), rows, None, length, length, device, _compile=device.type == "cuda")


def _joined(llm: PreTrainedModel, pattern: Pattern) -> Layout:
    """One row with the block masks of a pattern."""
    real = pattern.real
    places = real.flatten().nonzero().squeeze(1)
    layout = Layout(None, tuple(real.shape), places, -len(places) % TILE)
    there = torch.arange(layout.positions, device=real.device)[None] < len(places)
    number, place = (torch.arange(size, device=real.device) for size in real.shape)
    known = (pattern.blocks, pattern.frames, place.expand_as(real) if pattern.positions is None else pattern.positions)
    blocks, frames, positions = (None if values is None else layout.join(values) for values in known)
    sequences = layout.join(number[:, None].expand_as(real)).masked_fill(~there, -1)
    row = Pattern(there, blocks, frames, positions, sequences)
    _attend_so(llm)
    return replace(layout, mask=by_kind(llm, lambda window: block_mask(row, window)))


def _grouped(llm: PreTrainedModel, pattern: Pattern, lengths: list[int], dtype: torch.dtype) -> Layout:
    """One row in which sequences of one length stand together, and are read by one call."""
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    groups = [(list(rows), length) for length, rows in groupby(order, lengths.__getitem__)]
    parts = [pattern.part(rows, length) for rows, length in groups]
    numbers = torch.arange(pattern.real.numel(), device=pattern.real.device).view_as(pattern.real)
    _attend_so(llm)
    masks = by_kind(llm, lambda window: _ends(parts, dtype, window))
    return Layout(masks, tuple(pattern.real.shape), numbers[order][pattern.real[order]])


def _ends(parts: list[Pattern], dtype: torch.dtype, window: int | None) -> Ends:
    """Where sequences of these patterns end; those that are causal have no mask."""
    groups = []
    for part in parts:
        count, length = part.real.shape
        causal = part.plain and (window is None or window >= length)
        groups.append((count, length, None if causal else part.dense(dtype, window)))
    return Ends.of(groups, parts[0].real.device)


def _attend_so(llm: PreTrainedModel) -> None:
    """It stays so, as layers may run again in the backward pass; other masks go to SDPA as before."""
    if llm.config._attn_implementation != NAME:
        llm.set_attn_implementation(NAME)


def attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Mask | None, **settings
) -> tuple[Tensor, Tensor | None]:
    """Attention (1, P, H, D) of queries (1, H, P, D) of a row; with any other mask than those made here, SDPA's."""
    if isinstance(attention_mask, BlockMask):
        query, key = query.to(value.dtype), key.to(value.dtype)  # SDPA does so under autocast
        return flex_attention_forward(module, query, key, value, attention_mask, **settings)
    if not isinstance(attention_mask, Ends):
        return sdpa_attention_forward(module, query, key, value, attention_mask, **settings)
    found, sizes = [], [count * length for count, length, _ in attention_mask.groups]
    parts = zip(*(states.split(sizes, dim=2) for states in (query, key, value)), attention_mask.groups, strict=True)
    for *states, (count, length, mask) in parts:
        rows = (part[0].unflatten(1, (count, length)).transpose(0, 1) for part in states)
        found.append(sdpa_attention_forward(module, *rows, mask, **settings)[0].flatten(0, 1))
    return torch.cat(found)[None], None


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, sdpa_mask)
