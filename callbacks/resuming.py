"""Checkpoints from which a run goes on exactly, and the one whose weights are best."""

import time
from pathlib import Path

import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException

from callbacks.finite import NotFinite


class TogetherCheckpoint(ModelCheckpoint):
    """Lightning's; where rank 0 cannot write, all processes fail, and none waits for it."""

    def load_state_dict(self, state: dict) -> None:
        """Go on in the folder where the run is now."""
        super().load_state_dict(moved(state, self.dirpath))

    def _save_checkpoint(self, trainer, filepath: str) -> None:
        super()._save_checkpoint(trainer, filepath)
        if error := trainer.strategy.broadcast(getattr(trainer.strategy.checkpoint_io, "error", None)):
            raise OSError(error)


class RunCheckpoint(TogetherCheckpoint):
    """Lightning's, to go on from: every so many steps, minutes or epochs, and whatever the scores are.

    A process that fails among others saves nothing on its way out. All processes save together. The others do not know
    of the failure and would not come, so the one that fails would wait for them and never say why. A SIGTERM reaches
    all of them at the same batch.

    Args:
        every_n_minutes: save when so many have passed; looked at every ``trainer.log_every_n_steps`` steps.
        monitor: the score, for example ``val/grounding/mIoU``, whose best weights ``BestCheckpoint`` keeps beside.
        mode: whether the score is best at its ``min`` or ``max``.
        save_top_k: checkpoints kept: the newest, and so many of the best.
        patience: validations without a better score after which training ends. None: it goes on to its end.
        **settings: of Lightning's ModelCheckpoint.
    """

    def __init__(
        self,
        *args,
        every_n_minutes: float | None = None,
        monitor: str | None = None,
        mode: str = "min",
        save_top_k: int = 1,
        patience: int | None = None,
        **settings,
    ):
        super().__init__(*args, save_top_k=save_top_k if monitor is None else min(save_top_k, 1), **settings)
        self.every_n_minutes = every_n_minutes
        self._begun: int | None = None
        self._looked_s = time.monotonic()

    def on_train_start(self, trainer, pl_module) -> None:
        """Start the clock."""
        super().on_train_start(trainer, pl_module)
        self._looked_s = time.monotonic()

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx: int) -> None:
        """Save behind a step when it is time."""
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        step = trainer.global_step
        if self.every_n_minutes is None or step == self._last_global_step_saved:
            return
        if trainer.log_every_n_steps == 0 or step % trainer.log_every_n_steps:
            return
        due = time.monotonic() - self._looked_s >= 60 * self.every_n_minutes
        if trainer.strategy.broadcast(due):  # clocks differ
            self._save(trainer)

    def on_validation_end(self, trainer, pl_module) -> None:
        """Scores are ``BestCheckpoint``'s; it has not heard of this one yet."""

    def _should_save_on_train_epoch_end(self, trainer) -> bool:
        return True

    def on_train_end(self, trainer, pl_module) -> None:
        """Let the newest checkpoint be the end of the run, and know the last score."""
        if not self._should_skip_saving_checkpoint(trainer):
            self._save(trainer)
        elif self.save_last and self._last_global_step_saved == trainer.global_step:
            self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))

    def on_save_checkpoint(self, trainer, pl_module, checkpoint: dict) -> None:
        """Write an epoch that was cut short as one that is open.

        Lightning counts it as complete once training ends, and a resumed run would leave out the rest of it.
        """
        loop = checkpoint["loops"]["fit_loop"]
        if loop["epoch_loop.batch_progress"]["is_last_batch"]:
            return
        for progress in (loop["epoch_progress"]["total"], loop["epoch_progress"]["current"]):
            progress["processed"] = progress["completed"] = max(progress["started"] - 1, 0)
        checkpoint["epoch"] = loop["epoch_progress"]["current"]["completed"]

    def _save(self, trainer) -> None:
        candidates = self._monitor_candidates(trainer)
        self._save_topk_checkpoint(trainer, candidates)
        self._save_last_checkpoint(trainer, candidates)
        self._looked_s = time.monotonic()

    def on_before_optimizer_step(self, trainer, pl_module, optimizer: torch.optim.Optimizer) -> None:
        """Remember the step that begins: until it is counted, some weights may be new and some old."""
        self._begun = trainer.global_step

    def on_exception(self, trainer, pl_module, exception: BaseException) -> None:
        """Save where all processes can be there, and what there is is worth it."""
        no_room = getattr(trainer.strategy.checkpoint_io, "error", None)
        if isinstance(exception, NotFinite) or no_room or self._begun == trainer.global_step:
            return
        together = trainer.world_size == 1 or isinstance(exception, SIGTERMException)
        if together and self._should_save_on_exception(trainer):
            self._save(trainer)


class BestCheckpoint(TogetherCheckpoint):
    """Keeps the weights that were best in validation, each filed under the score that it just had.

    Args:
        folder: of the checkpoints.
        monitor: name of the score.
        mode: whether it is best at its ``min`` or ``max``.
        most: checkpoints kept.
    """

    def __init__(self, folder: Path, monitor: str, mode: str = "min", most: int = 1):
        settings = {"every_n_epochs": 1, "save_on_train_epoch_end": False, "enable_version_counter": False}
        super().__init__(folder, "best-{step}", monitor=monitor, mode=mode, save_top_k=most, **settings)

    def on_validation_end(self, trainer, pl_module) -> None:
        """Save, if the score is among the best.

        Raises:
            ValueError: validation gave no such score, which is seen before training begins.
        """
        scores = {name for name in trainer.callback_metrics if not name.startswith("train/")}
        if self.monitor not in trainer.callback_metrics:
            raise ValueError(
                f"checkpoint.monitor {self.monitor} is no score of this validation, which gives "
                f"{', '.join(sorted(scores)) or 'none'}"
            )
        super().on_validation_end(trainer, pl_module)

    def describe(self) -> dict:
        """Which checkpoint is best, for the manifest of its weights."""
        kept = torch.load(self.best_model_path, map_location="cpu", weights_only=True, mmap=True)
        return {
            "checkpoint": Path(self.best_model_path).name,
            "step": kept["global_step"],
            "epoch": kept["epoch"],
            "monitor": self.monitor,
            "score": float(self.best_model_score),
        }


def moved(state: dict, folder: str) -> dict:
    """What ModelCheckpoint keeps, with its paths in another folder; a run folder may be copied or mounted elsewhere."""
    before = Path(state["dirpath"])

    def here(path: str) -> str:
        return str(Path(folder) / Path(path).name) if path and Path(path).parent == before else path

    paths = {key: here(state[key]) for key in ("best_model_path", "kth_best_model_path", "last_model_path")}
    best = {here(path): score for path, score in state["best_k_models"].items()}
    return state | paths | {"dirpath": folder, "best_k_models": best}


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
