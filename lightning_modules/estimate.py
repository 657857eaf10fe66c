"""The memory and the time that a training step is likely to take, from shapes alone.

They are rules of thumb: a training step is told from one that is ten times larger, not from one a tenth larger.
"""

import time
from dataclasses import dataclass

import torch

from datamodules.batch import Batch
from lightning_modules.batching import StepSize
from models.quantization import base_bytes

LEARNING_BYTES = 16
"""Of a number that learns: value, gradient and AdamW's two moments, in float32."""
LAYER_BYTES = 34
"""Of a token and unit of width: what the backward pass of a decoder layer keeps in half precision."""
REACHED = 0.4
"""Share of a matrix product's speed that a whole model reaches."""


@dataclass(frozen=True)
class Estimate:
    """What a step takes on one device."""

    base_bytes: float
    learning: int
    """Numbers that learn."""
    state_bytes: float
    activation_bytes: float
    flops: float
    device: str
    flops_per_s: float

    @classmethod
    def of(cls, module, batch: Batch, step: StepSize, processes: int) -> "Estimate":
        """Of a ``VideoLanguageModule`` that was not built yet.

        Args:
            module: of the run.
            batch: some training dialogues.
            step: what a step consists of.
            processes: how many share one copy of the parameters; 1: each has its own.
        """
        model = module.structure()
        frozen = [p for p in model.parameters() if not p.requires_grad]
        learning = sum(p.numel() for p in model.parameters() if p.requires_grad)
        config = model.causal_lm.config if hasattr(model.llm, "config") else None
        length = batch.attention_mask.sum(-1).float()
        tokens, width = step.batch_size * float(length.max()), config.hidden_size if config else 0
        layers = config.num_hidden_layers if config else 0
        kept = 2 * layers + LAYER_BYTES if module.gradient_checkpointing else layers * LAYER_BYTES
        supervised = float((batch.labels >= 0).sum()) / max(len(batch.labels), 1) * step.batch_size
        # Forward, backward to the inputs, and forward again with gradient checkpointing; frozen weights get none.
        passes = 6 if module.gradient_checkpointing else 4
        size = sum(p.numel() for p in frozen) + learning
        return cls(
            base_bytes=base_bytes(model, module.quantization) / processes,
            learning=learning,
            state_bytes=learning * LEARNING_BYTES / processes,
            activation_bytes=tokens * width * kept + supervised * (config.vocab_size if config else 0) * 10,
            flops=passes * size * float(length.mean()) * step.batch_size * step.accumulate,
            **device_speed(module.llm_dtype),
        )

    def rows(self) -> list[tuple[str, str]]:
        """For a table."""
        parts = self.base_bytes, self.state_bytes, self.activation_bytes
        gb = [f"{part / 2**30:.1f}" for part in (*parts, sum(parts))]
        return [
            ("numbers that learn", f"{self.learning:,}"),
            ("memory of a device, about", f"{gb[3]} GB = {gb[0]} base + {gb[1]} what learns + {gb[2]} activations"),
            ("time of a step, about", f"{self.flops / (REACHED * self.flops_per_s):.1f} s on {self.device}"),
        ]


def device_speed(dtype: torch.dtype) -> dict:
    """Name of this machine's device, and how many operations a second a matrix product does on it."""
    cuda = torch.cuda.is_available()
    size = 4096 if cuda else 512
    device = torch.device("cuda" if cuda else "cpu")
    matrix = torch.zeros(size, size, dtype=dtype if cuda else torch.float32, device=device)
    for _ in range(2):  # the first one warms up
        started_s = time.perf_counter()
        for _ in range(8):
            matrix @ matrix
        if cuda:
            torch.cuda.synchronize()
        passed_s = time.perf_counter() - started_s
    name = torch.cuda.get_device_name() if cuda else f"{torch.get_num_threads()} CPU threads"
    return {"device": name, "flops_per_s": 8 * 2 * size**3 / passed_s}
