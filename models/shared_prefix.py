"""What was read of a video, attended to by every question about it: its keys and values are kept once.

Shape suffixes: V videos, R rows (questions), M rows of a video, G key-value heads, H heads, N new tokens, P tokens of
the prefix, S tokens of a row's own, D width of a head.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, Cache, PreTrainedModel
from transformers.cache_utils import CacheLayerMixin
from transformers.masking_utils import eager_mask

NAME = "shared_prefix"
"""Under which transformers knows this attention."""


class SharedPrefix(Cache):
    """A cache whose rows begin with what another one holds, and go on each for itself.

    Inside ``attended`` no row has a copy of its video. Families whose attention cannot be replaced get one for the time
    that a layer runs.

    Args:
        read: the cache behind the pass over the videos; it stays as it is.
        videos: (R,) the video of each row. Rows of one video stand side by side.
    """

    def __init__(self, read: Cache, videos: Tensor):
        super().__init__(layers=[_Layer(layer, self) for layer in read.layers])
        self.joined = True
        """Whether layers give out whole rows, as the attention of every family takes them."""
        self._arrange(videos)

    def _arrange(self, videos: Tensor) -> None:
        """Lay out rows by video, and keep no video that no row is about."""
        kept, self.video, counts = videos.unique_consecutive(return_inverse=True, return_counts=True)
        starts = counts.cumsum(0) - counts
        index = torch.arange(len(videos), device=videos.device)
        most = int(counts.max())
        self.place = index - starts[self.video]
        self.rows = (starts[:, None] + index[:most]).clamp(max=len(videos) - 1)
        """(V, M): some of a video with fewer rows are those of others, and are not used."""
        self.even = len(kept) * most == len(videos)
        for layer in self.layers:
            layer.keep_videos(kept)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Only keep the rows at these places."""
        for layer in self.layers:
            layer.batch_select_indices(indices)
        self._arrange(self.video[indices])

    def times(self, rows: Tensor, videos: Tensor) -> Tensor:
        """Rows (R, G, N, X), each multiplied with the matrices of its video (V, G, X, Y): (R, G, N, Y)."""
        grouped = rows.unflatten(0, (len(videos), -1)) if self.even else rows[self.rows]
        product = grouped.transpose(1, 2).flatten(2, 3) @ videos
        product = product.unflatten(2, (grouped.shape[1], -1)).transpose(1, 2)
        return product.flatten(0, 1) if self.even else product[self.video, self.place]

    @contextmanager
    def attended(self, llm: PreTrainedModel) -> Iterator[None]:
        """Inside, the language model reads with this cache."""
        if not llm._can_set_attn_implementation():
            yield
            return
        usual, current = llm.config._attn_implementation, _current.set(self)
        llm.set_attn_implementation(NAME)
        self.joined = False
        try:
            yield
        finally:
            self.joined = True
            llm.set_attn_implementation(usual)
            _current.reset(current)


class _Layer(CacheLayerMixin):
    """What one layer knows: ``prefix`` (V, G, P, D), and of each row its own keys and values (R, G, S, D)."""

    def __init__(self, read: CacheLayerMixin, cache: SharedPrefix):
        super().__init__()
        self.prefix = read.keys, read.values
        self.is_sliding = getattr(read, "is_sliding", False)
        self.cache, self.read = cache, int(read.get_seq_length())

    @property
    def forgotten(self) -> int:
        """Tokens at the beginning that no row can see any more, in a layer with a window."""
        return self.read - self.prefix[0].shape[2]

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """A row begins with nothing of its own."""
        self.keys, self.values = key_states[:, :, :0], value_states[:, :, :0]
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *_, **__) -> tuple[Tensor, Tensor]:
        """Add new keys and values (R, G, N, D); returns those of the rows, with their video where these are joined."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self.keys = torch.cat([self.keys, key_states], dim=2)
        self.values = torch.cat([self.values, value_states], dim=2)
        if not self.cache.joined:
            return self.keys, self.values
        keys, values = (part[self.cache.video] for part in self.prefix)
        return torch.cat([keys, self.keys], dim=2), torch.cat([values, self.values], dim=2)

    def keep_videos(self, videos: Tensor) -> None:
        """Forget the other videos; nothing is copied where all of them stay."""
        if not torch.equal(videos, torch.arange(len(self.prefix[0]), device=videos.device)):
            self.prefix = tuple(part[videos] for part in self.prefix)

    def get_seq_length(self) -> int:
        """Tokens so far, those of the video included."""
        return self.read + (self.keys.shape[2] if self.is_initialized else 0)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Keys that a mask is about, and the place of the first of them."""
        return self.get_seq_length() + query_length - self.forgotten, self.forgotten

    def get_max_length(self) -> int:
        """There is no end."""
        return -1

    def batch_select_indices(self, indices: Tensor) -> None:
        """Only keep the rows at these places."""
        if self.is_initialized:
            self.keys, self.values = self.keys[indices], self.values[indices]


_current: ContextVar[SharedPrefix] = ContextVar("shared prefix")


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor,
    scaling: float | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **_,
) -> tuple[Tensor, None]:
    """Attention (R, N, H, D) of queries (R, H, N, D) to their video and to what is their own, one softmax over both.

    Args:
        module: the attention layer.
        query: (R, H, N, D).
        key: (R, G, S, D) of the rows.
        value: (R, G, S, D).
        attention_mask: (R, 1, N, P + S), added to the scores.
        scaling: of the scores; None: by the width of a head.
        softcap: what scores stay below.
        s_aux: (H,) scores of sinks, which take attention and give nothing.
    """
    cache = _current.get()
    prefix = cache.layers[module.layer_idx].prefix
    query = query * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    # So few queries at once that their scores take no more memory than the keys of the prefix.
    step = max(1, prefix[0].numel() // (attention_mask[:, 0, 0].numel() * query.shape[1]))
    parts = zip(query.split(step, dim=2), attention_mask.split(step, dim=2), strict=True)
    found = [_attend(cache, prefix, part, (key, value), mask, softcap, s_aux) for part, mask in parts]
    return torch.cat(found, dim=1), None


def _attend(
    cache: SharedPrefix,
    prefix: tuple[Tensor, Tensor],
    query: Tensor,
    own: tuple[Tensor, Tensor],
    mask: Tensor,
    softcap: float | None,
    sinks: Tensor | None,
) -> Tensor:
    """(R, N, H, D) of queries that are scaled."""
    tokens, shared, (key, value) = query.shape[2], prefix[0].shape[2], own
    flat = query.unflatten(1, (key.shape[1], -1)).flatten(2, 3)  # (R, G, H / G * N, D): heads that share keys as more N
    scores = torch.cat([cache.times(flat, prefix[0].mT), flat @ key.mT], dim=-1).unflatten(2, (-1, tokens))
    if softcap is not None:
        scores = (scores / softcap).tanh() * softcap
    scores += mask[:, :, None]
    if sinks is not None:
        sinks = sinks.to(scores.dtype).view(1, *scores.shape[1:3], 1, 1).expand(*scores.shape[:-1], 1)
        scores = torch.cat([scores, sinks], dim=-1)
    weights = scores.softmax(-1, dtype=torch.float32).to(value.dtype).flatten(2, 3)
    found = cache.times(weights[..., :shared], prefix[1]) + weights[..., shared : shared + key.shape[2]] @ value
    return found.unflatten(2, (-1, tokens)).flatten(1, 2).transpose(1, 2).contiguous()


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, eager_mask)
