"""Being told to stop: SIGTERM, SIGUSR1 or Ctrl-C end a run behind a batch, with a checkpoint, on all processes."""

import os
import signal
import subprocess
import threading
from types import FrameType

import torch
import torch.distributed as dist
from lightning.fabric.plugins.environments import SLURMEnvironment
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.exceptions import SIGTERMException

from command_line.signals import GRACE_S, SIGNALS, status_of
from command_line.tables import complain


class Stopped(SIGTERMException):
    """A run was told to stop, and its processes have agreed on the batch behind which they do.

    Args:
        signum: of the signal.
        step: optimiser steps that are done.
    """

    def __init__(self, signum: int, step: int):
        super().__init__(status_of(signum))
        self.signum, self.step = signum, step

    def __str__(self) -> str:
        name = signal.Signals(self.signum).name
        return f"stopped by {name} behind step {self.step}; --resume true (or auto) goes on from there"


class Stopping(Callback):
    """Notes a signal, and stops at the end of the batch; the checkpoint callback then saves, once.

    A signal to one process stops all of them. Where the end of the batch does not come (because another process is
    gone), the process ends after ``GRACE_S`` seconds and keeps the checkpoints of before.
    """

    def __init__(self):
        self.received = 0
        self.saving = False

    def on_train_start(self, trainer, pl_module) -> None:
        """Take the signals, which Lightning's trainer puts back at its end."""
        self.received = 0
        if threading.current_thread() is threading.main_thread():
            for signum in SIGNALS:
                signal.signal(signum, self._note)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if not self.received:
            self.received = signum
            timer = threading.Timer(GRACE_S, self._give_up)
            timer.daemon = True
            timer.start()

    def _give_up(self) -> None:
        if self.saving:  # a checkpoint of many gigabytes: nothing is stuck
            return
        os.write(2, b"train.py: the batch did not come to its end; stopped without a new checkpoint\n")
        os._exit(status_of(self.received))

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx: int) -> None:
        """Stop here if any process was told to. Raises Stopped."""
        self._look(trainer)

    def on_validation_batch_end(self, trainer, pl_module, outputs, batch, batch_idx: int, dataloader_idx=0) -> None:
        """The same between questions. Raises Stopped."""
        if not trainer.sanity_checking:
            self._look(trainer)

    def _look(self, trainer) -> None:
        signum = self.received
        if trainer.world_size > 1:
            told = torch.tensor(signum, device=trainer.strategy.root_device)
            dist.all_reduce(told, op=dist.ReduceOp.MAX)
            signum = int(told)
        if signum:
            self.received, self.saving = self.received or signum, True
            raise Stopped(signum, trainer.global_step)


def requeue(trainer, signum: int) -> None:
    """Ask SLURM to start the job again, where it said with SIGUSR1 that its time is up."""
    environment = trainer._accelerator_connector.cluster_environment
    slurm = isinstance(environment, SLURMEnvironment) and environment.auto_requeue
    if not slurm or signum != signal.SIGUSR1 or not trainer.is_global_zero:
        return
    array, job = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_JOB_ID", "")
    job = f"{array}_{os.environ.get('SLURM_ARRAY_TASK_ID', '')}" if array else job
    try:
        subprocess.run(["scontrol", "requeue", job], check=False, timeout=30)
    except (OSError, subprocess.SubprocessError) as error:
        complain("train.py", f"the job was not requeued: {error}")
