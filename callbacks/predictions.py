"""Answers as a file."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import torch.distributed as dist
from lightning.pytorch.callbacks import Callback

from datamodules.prediction import Prediction

PART = "predictions.rank{}.jsonl"
"""What one process has answered so far."""
CONDITIONS = "conditions.json"
"""What answers depend on: those of one file were asked for under the same conditions."""


class PredictionWriter(Callback):
    """Writes the predictions of a test run, each query once, to ``predictions.jsonl``.

    While the run goes on each rank writes its answers, as they come, to a part of its own, so that a run that is killed
    loses the batch at most; at the end rank 0 gathers them and removes the parts.

    Args:
        folder: where to write; None: only gather.
        known: answers of a run that was stopped.
        conditions: what the answers depend on, written beside them.
    """

    def __init__(
        self,
        folder: Path | None = None,
        known: Mapping[str, Prediction] | None = None,
        conditions: Mapping | None = None,
    ):
        self.folder, self.conditions = folder, conditions
        self.predictions: dict[str, Prediction] = dict(known or {})
        """By query id; complete on every rank after the test run."""
        self.finished = False
        """Everything is in one file."""
        self._part: BinaryIO | None = None

    def on_test_start(self, trainer, pl_module) -> None:
        """Open this rank's part. All ranks have read what is there by now: they have met to form a group."""
        if self.folder is None:
            return
        self.open(trainer.global_rank)
        if trainer.is_global_zero and self.conditions is not None:
            (self.folder / CONDITIONS).write_text(json.dumps(self.conditions, indent=2) + "\n", encoding="utf-8")

    def open(self, rank: int = 0, afresh: bool = False) -> None:
        """Open a part: go on behind its last whole line, or begin it afresh."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / PART.format(rank)
        cut_half_line(path)
        self._part = open(path, "wb" if afresh else "ab")  # noqa: SIM115 (closed when the run ends)
        if rank == 0 and not path.stat().st_size:
            self._write(self.predictions.values())  # those of a finished run that is completed

    def on_test_batch_end(self, trainer, pl_module, outputs: list[Prediction], batch, batch_idx, dataloader_idx=0):
        """Keep a batch's predictions."""
        self.add(outputs)

    def add(self, predictions: Sequence[Prediction]) -> None:
        """Keep predictions, and write them to the part that is open."""
        new = [prediction for prediction in predictions if prediction.query_id not in self.predictions]
        for prediction in new:
            self.predictions.setdefault(prediction.query_id, prediction)
        if self._part:
            self._write(new)

    def _write(self, predictions) -> None:
        lines = "".join(prediction.to_json() + "\n" for prediction in predictions)
        self._part.write(lines.encode("utf-8"))
        self._part.flush()
        os.fsync(self._part.fileno())

    def close(self) -> None:
        """Close the part."""
        if self._part:
            self._part.close()

    def on_test_end(self, trainer, pl_module) -> None:
        """Exchange between ranks, then write on rank 0."""
        self.close()
        if trainer.world_size > 1:
            gathered = [None] * trainer.world_size
            dist.all_gather_object(gathered, self.predictions)
            self.predictions = {key: value for part in gathered for key, value in part.items()}
        if self.folder and trainer.is_global_zero:
            self.finish()

    def finish(self) -> None:
        """Write all predictions into one file, and remove the parts."""
        self.close()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.predictions, self.finished = dict(sorted(self.predictions.items())), True
        lines = (prediction.to_json() + "\n" for prediction in self.predictions.values())
        whole = self.folder / "predictions.jsonl"
        new = whole.with_suffix(".new")
        new.write_text("".join(lines), encoding="utf-8")
        os.replace(new, whole)
        for part in self.folder.glob(PART.format("*")):
            part.unlink()


def cut_half_line(path: Path) -> None:
    """Remove what stands behind the last line break of a file: a line that a kill left half written."""
    if path.is_file():
        content = path.read_bytes()
        if content and not content.endswith(b"\n"):
            os.truncate(path, content.rfind(b"\n") + 1)
