"""Which positions of a sequence are temporal, known to every adapted layer of a decoder while it runs.

Shape suffixes: B dialogues or videos, L tokens, R rank.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Cache
from transformers.modeling_layers import GradientCheckpointingLayer


@dataclass(frozen=True, eq=False)
class Positions:
    """Those of one forward pass."""

    shape: tuple[int, int]
    """B and L."""
    temporal: Tensor | None
    """(B, L, 1) bool. None: none of them is temporal, and nothing learns from this pass."""


class Router:
    """Knows which positions are temporal while a model runs, also while activations are recomputed."""

    def __init__(self, decoder: nn.Module):
        self.given: Tensor | None = None
        """(B, L) of ``route``; it counts from the first position of the sequence."""
        self.running: Positions | None = None
        """Of the forward pass that runs now."""
        self.layers = [layer for layer in decoder.modules() if isinstance(layer, GradientCheckpointingLayer)]
        decoder.expert_router = self
        decoder.register_forward_pre_hook(self._enter, with_kwargs=True)
        decoder.register_forward_hook(self._leave, always_call=True)

    def temporal(self, states: Tensor) -> Tensor | None:
        """Which positions of states (B, L, D) are temporal, as ``Positions`` has them; (B * L, 1) of (B * L, D).

        Raises:
            ValueError: these are not the positions of the decoder that runs.
        """
        shape = None if self.running is None else self.running.shape
        if shape and states.shape[:-1] == (shape[0] * shape[1],):  # some families put rows end to end
            return None if self.running.temporal is None else self.running.temporal.reshape(-1, 1)
        if shape != states.shape[:-1]:
            raise ValueError(
                f"an expert sees positions {tuple(states.shape[:-1])}, the routing mask of the decoder is {shape}: "
                "experts only work in decoder layers that keep (batch, length)"
            )
        return self.running.temporal

    def _enter(self, _: nn.Module, args: tuple, kwargs: dict) -> None:
        inputs = kwargs.get("inputs_embeds")
        inputs = inputs if inputs is not None else kwargs.get("input_ids", args[0] if args else None)
        # transformers 5.24 renamed the argument, so it is known by what it is
        cache = next((value for value in (*args, *kwargs.values()) if isinstance(value, Cache)), None)
        self.running = self._positions(inputs, 0 if cache is None else int(cache.get_seq_length()))
        for layer in self.layers:
            if layer.gradient_checkpointing and not isinstance(layer._gradient_checkpointing_func, _KeepingPositions):
                layer._gradient_checkpointing_func = _KeepingPositions(self, layer._gradient_checkpointing_func)

    def _leave(self, *_) -> None:
        self.running = None

    def _positions(self, inputs: Tensor, start: int) -> Positions:
        """Positions ``start`` and after. Those beyond the given mask are generated, hence not temporal."""
        batch, length = inputs.shape[:2]
        if self.given is not None and (len(self.given) != batch or self.given.shape[1] > start + length):
            raise ValueError(
                f"the routing mask {tuple(self.given.shape)} does not fit inputs ({batch}, {length}) "
                f"after {start} cached positions"
            )
        if self.given is not None and self.given.shape[1] > start:
            given = self.given.to(inputs.device)[:, start:]
            return Positions((batch, length), F.pad(given, (0, length - given.shape[1]))[..., None])
        # Where something learns, every expert takes part: each process must have a gradient of all of them.
        nowhere = inputs.new_zeros(batch, length, 1, dtype=torch.bool) if torch.is_grad_enabled() else None
        return Positions((batch, length), nowhere)


class _KeepingPositions:
    """A layer's checkpointing function that runs the layer again with the positions it ran with first."""

    def __init__(self, router: Router, checkpoint: Callable):
        self.router, self.checkpoint = router, checkpoint

    def __call__(self, function: Callable, *args):
        running = self.router.running

        def run(*args):
            current, self.router.running = self.router.running, running
            try:
                return function(*args)
            finally:
                self.router.running = current

        return self.checkpoint(run, *args)
