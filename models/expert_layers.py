"""How PEFT runs VideoExpert's two experts in one layer, see ``models.routed_lora``.

Shape suffixes: B dialogues or videos, L tokens, D width.
"""

import torch
import torch.nn.functional as F
from peft.tuners.lora.layer import LoraLayer, LoraVariant
from torch import Tensor

from models.token_router import Router


class BothExperts(LoraVariant):
    """How PEFT runs the experts of one layer: all of them when it comes to the first, none of the others."""

    def __init__(self, router: Router, names: tuple[str, ...]):
        self.router, self.names = router, names

    def forward(self, module: LoraLayer, active_adapter: str, x: Tensor, result: Tensor, **_) -> Tensor:
        """Add what the experts say to ``result`` (B, L, D). They share one dropout mask, as no position needs two."""
        names = [name for name in self.names if name in module.active_adapters]
        if active_adapter != names[0]:
            return result
        temporal = self.router.temporal(x)
        if temporal is None and "temporal" in names:
            names.remove("temporal")
        if not names:
            return result
        down = _joined([module.lora_A[name].weight for name in names], 0)
        up = _joined([module.lora_B[name].weight * module.scaling[name] for name in names], 1)
        inner = F.linear(module.lora_dropout[names[0]](x), down)
        if temporal is not None:
            spatial = torch.cat([temporal.new_full((module.r[name],), name == "spatial") for name in names])
            inner = inner.masked_fill(temporal == spatial, 0)  # an expert of the other kind
        return result + F.linear(inner, up)

    def merge_unsafe(self, module: LoraLayer, active_adapter: str, orig_weight: Tensor) -> None:
        """Refuse: no one matrix does what both experts do. Raises ValueError."""
        raise ValueError("experts cannot be merged into the weights one by one; see models.routed_lora.merge_experts")

    merge_safe = merge_unsafe


def _joined(parts: list[Tensor], dim: int) -> Tensor:
    """All parts side by side, without a copy where there is one."""
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim)
