"""Randomness that needs no memory."""

import os

import torch
from lightning.pytorch.callbacks import Callback


class StepRandomness(Callback):
    """Seeds torch before each training batch from (seed, rank, epoch, batch).

    Dropout is then a function of the place in the run, so that a resumed run draws what the uninterrupted one drew,
    on any rank, without saving generator states.
    """

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx: int) -> None:
        """Seed the CPU and the accelerator."""
        place = (int(os.environ.get("PL_GLOBAL_SEED", 0)), trainer.global_rank, trainer.current_epoch, batch_idx)
        torch.manual_seed(hash(place) & 0x7FFF_FFFF_FFFF_FFFF)  # a tuple of ints hashes alike in every process
