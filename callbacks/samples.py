"""A few answers of every validation, to look at."""

import hashlib
import json
import logging
from dataclasses import dataclass, field
from pathlib import Path

import torch.distributed as dist
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger

from datamodules.prediction import Prediction
from datamodules.schema import Query
from metrics.spans import iou, is_valid
from reports.timelines import draw_timelines

MOST = 16
"""Queries that are shown."""
COLUMNS = ("step", "query", "video", "question", "true spans", "answer", "predicted spans", "IoU", "timeline")


@dataclass(frozen=True)
class Sample:
    """One answered query."""

    query: Query
    question: str
    prediction: Prediction
    duration_s: float

    @property
    def iou(self) -> float | None:
        """Of the first predicted span with the true span that it meets best; None without true spans."""
        true = [event.span for event in self.query.events]
        found = [span[:2] for span in self.prediction.spans[:1] if is_valid(span)]
        if not true:
            return None
        return float(iou(found, true).max()) if found else 0.0


@dataclass
class Samples:
    """Those of one validation."""

    step: int
    rows: list[Sample] = field(default_factory=list)


class ValidationSamples(Callback):
    """Shows the same few queries after each validation: in ``samples/`` of the run folder, with pictures of the times,
    as a table in W&B and as text and picture in TensorBoard.

    Args:
        seed: chooses the queries.
        most: how many.
    """

    def __init__(self, seed: int = 0, most: int = MOST):
        self.seed, self.most = seed, most
        self.chosen: set[str] = set()
        self.found: dict[str, Sample] = {}

    def on_validation_epoch_start(self, trainer, pl_module) -> None:
        """Choose by a hash of seed and id: the same ones each time, whatever their order."""
        queries = trainer.datamodule.queries.get("val", []) if trainer.datamodule else []
        ids = sorted((query.id for query in queries if query.task not in ("dialogue", "events")), key=self._place)
        self.chosen, self.found = set(ids[: self.most]), {}

    def _place(self, name: str) -> str:
        return hashlib.sha256(f"{self.seed}/{name}".encode()).hexdigest()

    def on_validation_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0) -> None:
        """Keep what was chosen."""
        for query, prediction, clip in zip(batch.queries, outputs, getattr(batch, "clips", ()), strict=False):
            if query.id in self.chosen:
                turns = pl_module.dialogue.writer.asked(query)
                question = "\n".join(turn.question for turn in turns)
                self.found[query.id] = Sample(query, question, prediction, clip.duration_s)

    def on_validation_epoch_end(self, trainer, pl_module) -> None:
        """Exchange between processes and write, on rank 0."""
        if trainer.sanity_checking or not self.chosen:
            return
        if dist.is_available() and dist.is_initialized():
            gathered = [None] * dist.get_world_size()
            dist.all_gather_object(gathered, self.found)
            self.found = {key: value for part in gathered for key, value in part.items()}
        if trainer.is_global_zero and self.found:
            rows = [self.found[key] for key in sorted(self.found, key=self._place)]
            folder = Path(trainer.default_root_dir) / "samples" / f"step-{trainer.global_step:06d}"
            write(folder, rows)
            for logger in trainer.loggers:
                show(logger, folder, rows, trainer.global_step)


def cells(sample: Sample) -> dict:
    """What a table says about a sample."""
    return {
        "query": sample.query.id,
        "video": sample.query.video,
        "question": sample.question,
        "true spans": [list(event.span) for event in sample.query.events],
        "answer": sample.prediction.answer,
        "predicted spans": [[round(value, 2) for value in span[:2]] for span in sample.prediction.spans[:3]],
        "IoU": sample.iou,
    }


def write(folder: Path, rows: list[Sample]) -> None:
    """``samples.jsonl`` and a picture of all."""
    draw(folder / "timelines.png", rows)
    lines = (json.dumps(cells(sample), ensure_ascii=False) + "\n" for sample in rows)
    (folder / "samples.jsonl").write_text("".join(lines), encoding="utf-8")


def draw(path: Path, rows: list[Sample]) -> Path:
    """A picture of samples; gives its path."""
    drawn = [(sample.query, sample.prediction, sample.duration_s) for sample in rows]
    draw_timelines(path, drawn, most=len(rows))
    return path


def show(logger, folder: Path, rows: list[Sample], step: int) -> None:
    """Hand samples to a logger that can show them."""
    if isinstance(logger, WandbLogger):
        import wandb

        logging.getLogger("PIL").setLevel(logging.INFO)
        data = [
            [step, *(json.dumps(cell) if isinstance(cell, list) else cell for cell in cells(sample).values()),
             wandb.Image(str(draw(folder / f"{number:02d}.png", [sample])))]
            for number, sample in enumerate(rows)
        ]  # fmt: skip
        logger.log_table("val/samples", columns=list(COLUMNS), data=data, step=step)
    elif isinstance(logger, TensorBoardLogger):
        from matplotlib.image import imread

        text = "\n\n".join(f"    {json.dumps(cells(sample), ensure_ascii=False)}" for sample in rows)
        logger.experiment.add_text("val/samples", text, step)
        logger.experiment.add_image("val/timelines", imread(folder / "timelines.png"), step, dataformats="HWC")
