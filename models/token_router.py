"""Which positions of a sequence are temporal, known to every adapted layer of a decoder while it runs.

Shape suffixes: B dialogues or videos, L tokens, R rank.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Cache
from transformers.modeling_layers import GradientCheckpointingLayer


class Router:
    """Knows which positions are temporal while a model runs, also while activations are recomputed."""

    def __init__(self, decoder: nn.Module):
        self.given: Tensor | None = None
        """(B, L) of ``route``; it counts from the first position of the sequence."""
        self.mask: Tensor | None = None
        """(B, L, 1) at the positions of the running forward pass."""
        self.merged = False
        self.layers = [layer for layer in decoder.modules() if isinstance(layer, GradientCheckpointingLayer)]
        decoder.expert_router = self
        decoder.register_forward_pre_hook(self._enter, with_kwargs=True)
        decoder.register_forward_hook(self._leave, always_call=True)

    def select(self, states: Tensor, temporal: bool) -> Tensor:
        """States (B, L, R) between the two matrices of an expert, zero where it does not act."""
        flat = self.mask is not None and states.shape[:-1] == (self.mask.numel(),)  # some families put rows end to end
        mask = self.mask.reshape(-1, 1) if flat else self.mask
        if mask is None or mask.shape[:-1] != states.shape[:-1]:
            found = None if self.mask is None else tuple(self.mask.shape[:-1])
            raise ValueError(
                f"an expert sees positions {tuple(states.shape[:-1])}, the routing mask of the decoder is {found}: "
                "experts only work in decoder layers that keep (batch, length)"
            )
        return states.masked_fill(~mask if temporal else mask, 0)

    def _enter(self, _: nn.Module, args: tuple, kwargs: dict) -> None:
        inputs = kwargs.get("inputs_embeds")
        inputs = inputs if inputs is not None else kwargs.get("input_ids", args[0] if args else None)
        # transformers 5.24 renamed the argument, so it is known by what it is
        cache = next((value for value in (*args, *kwargs.values()) if isinstance(value, Cache)), None)
        mask = self._positions(inputs, 0 if cache is None else int(cache.get_seq_length()))
        if self.merged and mask.any():
            raise ValueError("the spatial expert is merged into the weights: temporal positions cannot be computed")
        self.mask = mask[..., None]
        for layer in self.layers:
            if layer.gradient_checkpointing and not isinstance(layer._gradient_checkpointing_func, _KeepingMask):
                layer._gradient_checkpointing_func = _KeepingMask(self, layer._gradient_checkpointing_func)

    def _leave(self, *_) -> None:
        self.mask = None

    def _positions(self, inputs: Tensor, start: int) -> Tensor:
        """(B, L) at positions ``start`` and after. Those beyond the given mask are generated, hence spatial."""
        batch, length = inputs.shape[:2]
        if self.given is None:
            return torch.zeros(batch, length, dtype=torch.bool, device=inputs.device)
        if len(self.given) != batch or self.given.shape[1] > start + length:
            raise ValueError(
                f"the routing mask {tuple(self.given.shape)} does not fit inputs ({batch}, {length}) "
                f"after {start} cached positions"
            )
        given = self.given.to(inputs.device)[:, start:]
        return F.pad(given, (0, length - given.shape[1]))


class _KeepingMask:
    """A layer's checkpointing function that runs the layer again with the mask it ran with first."""

    def __init__(self, router: Router, checkpoint: Callable):
        self.router, self.checkpoint = router, checkpoint

    def __call__(self, function: Callable, *args):
        mask = self.router.mask

        def run(*args):
            current, self.router.mask = self.router.mask, mask
            try:
                return function(*args)
            finally:
                self.router.mask = current

        return self.checkpoint(run, *args)
