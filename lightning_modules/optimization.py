"""How parameters are moved."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class Optimization:
    """AdamW with a linear warm-up and a cosine decay to zero."""

    lr: float = 1e-4
    """Peak learning rate."""
    warmup_ratio: float = 0.03
    """Share of all optimiser steps; rounded up."""
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    other_lr: float | None = None
    """Peak learning rate of everything that is not LoRA; None: the same."""
    head_lr: float | None = None
    """Peak learning rate of the localizer's head; None: that of everything that is not LoRA."""

    def __post_init__(self):
        rates = {"lr": self.lr, "other_lr": self.other_lr, "head_lr": self.head_lr, "weight_decay": self.weight_decay}
        for name, value in rates.items():
            if value is not None and not 0 <= value < math.inf:
                raise ValueError(f"{name} must be a finite number and not negative, got {value}")
        if not 0 <= self.warmup_ratio <= 1:
            raise ValueError(f"warmup_ratio must be between 0 and 1, got {self.warmup_ratio}")
        if not 0 < self.eps < math.inf or not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"eps must be positive and betas in [0, 1), got {self.eps} and {self.betas}")

    def configure(self, parameters: Mapping[str, nn.Parameter], steps: int) -> dict:
        """Optimiser and schedule of ``steps`` steps, as Lightning takes them; the first step's rate is 0, as released.

        Args:
            parameters: what is trained, by name, see ``rate``.
            steps: of the whole training.
        """
        from transformers import get_cosine_schedule_with_warmup  # whose module imports PEFT and all that it finds

        groups = self.groups(parameters).items()
        optimizer = torch.optim.AdamW(
            [{"params": [parameters[name] for name in members], "lr": lr} for lr, members in groups],
            betas=self.betas,
            eps=self.eps,
            weight_decay=self.weight_decay,
        )
        schedule = get_cosine_schedule_with_warmup(optimizer, math.ceil(self.warmup_ratio * steps), steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step", "name": "lr"}}

    def groups(self, names: Iterable[str]) -> dict[float, list[str]]:
        """Parameters by their peak learning rate, in their order."""
        groups: dict[float, list[str]] = {}
        for name in names:
            groups.setdefault(self.rate(name), []).append(name)
        return groups

    def rate(self, name: str) -> float:
        """Peak learning rate of a parameter: LoRA has ``lora_`` in its name, the head is ``model.head``."""
        if "lora_" in name:
            return self.lr
        rates = (self.head_lr if name.startswith("model.head.") else None, self.other_lr, self.lr)
        return next(rate for rate in rates if rate is not None)
