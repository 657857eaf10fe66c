"""What answers cost beside what they score: what had to be learned, tokens, time."""

import time
from collections.abc import Iterable
from statistics import mean

import torch
from lightning.pytorch.callbacks import Callback

from datamodules.prediction import Prediction
from lightning_modules.trained import TrainedModel


class Clock(Callback):
    """Adds up how long a model takes to answer; reading videos and loading the model are not in it."""

    def __init__(self):
        self.seconds, self.queries = 0.0, 0

    def on_test_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0) -> None:
        """Begin."""
        self._began_s = now_s()

    def on_test_batch_end(self, trainer, pl_module, outputs: list[Prediction], batch, batch_idx, dataloader_idx=0):
        """End."""
        self.seconds += now_s() - self._began_s
        self.queries += len(outputs)


def now_s() -> float:
    """The time at which everything that was asked of an accelerator is done."""
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
    return time.perf_counter()


def cost(module: TrainedModel, clock: Clock, answers: Iterable[Prediction]) -> dict[str, float | int]:
    """Costs by name; those that are not known (a run of an older version, nothing left to ask) are not there.

    Args:
        module: the model; ``trained_numbers`` and ``new_tokens`` are of its last stage.
        clock: that ran while this process asked; ``ms_per_query`` depends on the batch size.
        answers: all of them.
    """
    found: dict[str, float | int] = {}
    if trained := module.manifest.get("trained"):
        found |= {"trained_numbers": trained["numbers"], "new_tokens": trained["new_tokens"]}
    if tokens := [answer.tokens for answer in answers if answer.tokens is not None]:
        found["tokens_per_answer"] = mean(tokens)
    if clock.queries:
        found["ms_per_query"] = 1000 * clock.seconds / clock.queries
    return found
