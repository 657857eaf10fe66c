"""Loss curves as a picture."""

from pathlib import Path

from lightning.pytorch.callbacks import Callback

from callbacks.reporting import only_reported
from reports.curves import draw_curves


class LossCurves(Callback):
    """Draws ``curves.png`` in the run folder: every training loss over the optimiser steps, as StepLog tells them."""

    def __init__(self):
        self.losses: dict[str, list[tuple[int, float]]] = {}

    def state_dict(self) -> dict:
        """The curves so far."""
        return {"losses": self.losses}

    def load_state_dict(self, state: dict) -> None:
        """Go on with the curves of an interrupted run."""
        self.losses = state["losses"]

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        """Keep a step's losses."""
        for name, value in metrics.items():
            if name.startswith("train/") and name.endswith("loss"):
                self.losses.setdefault(name.removeprefix("train/"), []).append((step, value))

    def on_fit_end(self, trainer, pl_module) -> None:
        """Draw, on rank 0."""
        if trainer.is_global_zero and self.losses:
            with only_reported("curves.png"):
                draw_curves(Path(trainer.default_root_dir) / "curves.png", self.losses)
