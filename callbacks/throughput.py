"""How fast training is, and who waits for whom."""

import time

from lightning.pytorch.callbacks import Callback


class Throughput(Callback):
    """Logs ``speed/samples_per_s``, ``speed/tokens_per_s`` (frames, and no padding), both of all ranks, and
    ``speed/data_wait``: the share of the time in which the model waited for its next batch.

    Args:
        every_n_steps: batches between two logged values.
    """

    def __init__(self, every_n_steps: int = 50):
        self.every_n_steps = every_n_steps
        self.samples = self.tokens = 0
        self.waited_s = 0.0

    def on_train_start(self, trainer, pl_module) -> None:
        """Start the clocks. A run that is resumed within an epoch has no epoch start."""
        self._restart()

    def on_train_epoch_start(self, trainer, pl_module) -> None:
        """Do not count what happens between epochs."""
        self._restart()

    def _restart(self) -> None:
        self.samples = self.tokens = 0
        self.waited_s = 0.0
        self.started_s = self.ended_s = time.perf_counter()

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx: int) -> None:
        """The batch is here: what passed since the last one ended was waiting."""
        self.waited_s += time.perf_counter() - self.ended_s

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx: int) -> None:
        """Count, and log now and then."""
        self.samples += len(batch.queries)
        self.tokens = self.tokens + batch.attention_mask.sum()  # stays on its device until it is logged
        self.ended_s = time.perf_counter()
        if (batch_idx + 1) % self.every_n_steps == 0:
            passed_s = self.ended_s - self.started_s
            rates = {
                "speed/samples_per_s": self.samples * trainer.world_size / passed_s,
                "speed/tokens_per_s": float(self.tokens) * trainer.world_size / passed_s,
                "speed/data_wait": self.waited_s / passed_s,
            }
            for logger in trainer.loggers:
                logger.log_metrics(rates, step=trainer.global_step)
            self._restart()
