"""Answers as a file."""

from pathlib import Path

import torch.distributed as dist
from lightning.pytorch.callbacks import Callback

from datamodules.schema import Prediction


class PredictionWriter(Callback):
    """Gathers the predictions of a test run from all ranks, each query once, and writes ``predictions.jsonl``.

    Args:
        folder: where to write; None: only gather.
    """

    def __init__(self, folder: Path | None = None):
        self.folder = folder
        self.predictions: dict[str, Prediction] = {}
        """By query id; complete on every rank after the test run."""

    def on_test_batch_end(self, trainer, pl_module, outputs: list[Prediction], batch, batch_idx, dataloader_idx=0):
        """Keep a batch's predictions."""
        for prediction in outputs:
            self.predictions.setdefault(prediction.query_id, prediction)

    def on_test_end(self, trainer, pl_module) -> None:
        """Exchange between ranks, then write on rank 0."""
        if trainer.world_size > 1:
            gathered = [None] * trainer.world_size
            dist.all_gather_object(gathered, self.predictions)
            self.predictions = {key: value for part in gathered for key, value in part.items()}
        self.predictions = dict(sorted(self.predictions.items()))
        if self.folder and trainer.is_global_zero:
            self.folder.mkdir(parents=True, exist_ok=True)
            lines = (prediction.to_json() + "\n" for prediction in self.predictions.values())
            (self.folder / "predictions.jsonl").write_text("".join(lines), encoding="utf-8")
