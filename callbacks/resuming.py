"""Checkpoints from which a run goes on exactly."""

from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException


class RunCheckpoint(ModelCheckpoint):
    """Lightning's, but a process that fails among others saves nothing on its way out.

    All processes save together. The others do not know of the failure and would not come, so the one that fails would
    wait for them and never say why. A SIGTERM reaches all of them at the same batch.
    """

    def on_exception(self, trainer, pl_module, exception: BaseException) -> None:
        """Save where all processes can be there."""
        if trainer.world_size == 1 or isinstance(exception, SIGTERMException):
            super().on_exception(trainer, pl_module, exception)


class WholeSteps(Callback):
    """Lets every checkpoint stand behind a whole optimiser step.

    A run that is stopped while gradients accumulate loses them. The weights are still those of the last step, so the
    checkpoint counts the batches up to that step, and the resumed run does the others again.
    """

    def on_save_checkpoint(self, trainer, pl_module, checkpoint: dict) -> None:
        """Set the counts of batches back, if need be."""
        progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        done = progress["current"]["processed"]
        lost = 0 if done >= trainer.num_training_batches else done % trainer.accumulate_grad_batches
        if lost:
            for counts in (progress["total"], progress["current"]):
                counts.update(dict.fromkeys(counts, counts["processed"] - lost))
