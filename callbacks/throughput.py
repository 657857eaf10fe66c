"""How fast training is, and who waits for whom."""

import time

import torch
from lightning.pytorch.callbacks import Callback


class Throughput(Callback):
    """Measures ``speed/samples_per_s`` and ``speed/tokens_per_s`` (frames, and no padding), both of all ranks,
    ``speed/data_wait``, the share of the time in which the model waited for its next batch, and peak memory.

    ``StepLog`` asks for the rates when it writes.
    """

    def __init__(self):
        self._restart()

    def on_train_start(self, trainer, pl_module) -> None:
        """Start the clocks. A run that is resumed within an epoch has no epoch start."""
        self._restart()

    def on_train_epoch_start(self, trainer, pl_module) -> None:
        """Do not count what happens between epochs as waiting."""
        self.ended_s = time.perf_counter()

    def on_validation_start(self, trainer, pl_module) -> None:
        """Validation is not training."""
        self._paused_s = time.perf_counter()

    def on_validation_end(self, trainer, pl_module) -> None:
        """Go on from here."""
        passed_s = time.perf_counter() - self._paused_s
        self.started_s += passed_s
        self.ended_s += passed_s

    def _restart(self) -> None:
        self.samples = self.tokens = 0
        self.waited_s = 0.0
        self.started_s = self.ended_s = time.perf_counter()

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx: int) -> None:
        """The batch is here: what passed since the last one ended was waiting."""
        self.waited_s += time.perf_counter() - self.ended_s

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx: int) -> None:
        """Count."""
        self.samples += len(batch.queries)
        self.tokens = self.tokens + batch.attention_mask.sum()  # stays on its device until it is asked for
        self.ended_s = time.perf_counter()

    def rates(self, trainer) -> dict[str, float]:
        """Of the time since they were asked for last; nothing without a batch in it."""
        passed_s = self.ended_s - self.started_s
        if not self.samples or passed_s <= 0:
            return {}
        rates = {
            "speed/samples_per_s": self.samples * trainer.world_size / passed_s,
            "speed/tokens_per_s": float(self.tokens) * trainer.world_size / passed_s,
            "speed/data_wait": self.waited_s / passed_s,
        }
        if torch.cuda.is_available():
            rates["speed/peak_memory_gb"] = torch.cuda.max_memory_allocated() / 2**30
        self._restart()
        return rates
