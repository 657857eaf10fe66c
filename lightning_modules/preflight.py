"""What is checked before a language model is loaded, and what a run will be."""

import math
import os
import shutil
import subprocess
from pathlib import Path

from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.utilities import rank_zero_warn

from command_line.tables import print_table
from command_line.training_files import REMEDY
from datamodules.batch import Batch, collate
from datamodules.sampling import Draw
from datamodules.temporal import TemporalDataModule, collate_readable
from lightning_modules.estimate import Estimate
from models.adapters import check_feature_width

SAMPLES = 64
"""Training dialogues that are read to know how long they are."""


def check(cli: LightningCLI) -> None:
    """Find cheap mistakes: in the output folder, the stage before, the data, and what becomes of the first samples.

    Raises:
        ValueError, OSError: naming the mistake.
    """
    check_numbers(cli)
    check_writable(Path(cli.config["output"]))
    cli.model.check_previous(cli.model.read_previous())
    data = cli.datamodule
    data.check_train()
    if data.sources["val"]:
        check_validation(data)
    if not data.streams:
        first_batch(data, 1)
        check_feature_width(data.header.width, cli.model.feature_width, cli.model.adapter_settings)
    elif cli.trainer.max_steps == -1 and cli.trainer.max_epochs is None:
        raise ValueError("streamed shards have no end: set trainer.max_steps or trainer.max_epochs")
    model = cli.model.structure()  # names of layers, and shapes of what the stage before left
    if cli.trainer.is_global_zero and not cli.config["dry_run"]:
        learning = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
        check_room(Path(cli.config["output"]), learning, 3 + (cli.best.save_top_k if cli.best else 0))


def check_room(output: Path, learning: int, files: int) -> None:
    """Warn where the disk has no room for the checkpoints of a run.

    Args:
        output: run folder.
        learning: numbers that learn; each has two moments of AdamW beside it.
        files: that lie there at a time: the newest, ``last.ckpt``, what is being written, and the best ones.
    """
    there = next(folder for folder in (output.absolute(), *output.absolute().parents) if folder.exists())
    needed, free = learning * 12 * files, shutil.disk_usage(there).free
    if free < needed:
        rank_zero_warn(
            f"--output {output}: checkpoints take about {needed / 2**30:.2f} GB, and {free / 2**30:.2f} GB are free"
        )


def check_numbers(cli: LightningCLI) -> None:
    """Raise ValueError for an empty run folder, and for settings with which nothing is trained."""
    if not str(cli.config["output"]).strip():
        raise ValueError("--output is empty; name the run folder")
    trainer = cli.config["trainer"]
    for name in ("max_steps", "max_epochs", "limit_train_batches"):
        if trainer.get(name) is not None and trainer[name] == 0:
            raise ValueError(f"trainer.{name} is 0: nothing would be trained")
    clip = trainer.get("gradient_clip_val")
    if clip is not None and not 0 <= clip < math.inf:
        raise ValueError(f"trainer.gradient_clip_val must be a finite number and not negative, got {clip}")


def check_writable(output: Path) -> None:
    """Raise OSError where nothing can be written below the run folder."""
    there = next(folder for folder in (output.absolute(), *output.absolute().parents) if folder.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise OSError(f"--output {output}: {there} {'cannot be written to' if there.is_dir() else 'is no folder'}")


def check_validation(data: TemporalDataModule) -> None:
    """Open ``data.val``, and say how to make it where it is not there."""
    for source in data.sources["val"]:
        if not source.queries.is_file():
            raise ValueError(f"data.val names {source.queries}, which is not there{REMEDY}")
    data.open("val")


def first_batch(data: TemporalDataModule, samples: int) -> Batch:
    """Training dialogues, spread evenly over the sources."""
    dataset, _ = data.training_set()
    count = len(dataset.pairs)
    places = sorted({number * count // samples for number in range(samples)})
    dialogues = dataset.__getitems__([Draw(place, 0, sequence=place) for place in places])
    return collate_readable(dialogues, collate, data.dialogue.pad_id)


def report(cli: LightningCLI) -> None:
    """Print what a run will be: data, steps, what learns, and the memory and time that a step is likely to take."""
    data, step = cli.datamodule, cli.step
    rows = [("output", cli.config["output"]), ("step", str(step))]
    if not data.streams:
        batch = first_batch(data, SAMPLES)
        lengths = batch.attention_mask.sum(-1).float()
        for source, part in data.mixture:
            rows.append((f"data.train: {source.queries}", f"{part.draws} of {part.samples} queries an epoch"))
        rows.append(("queries that share a video, at most", str(data.queries_per_video)))
        rows.append(("tokens of a dialogue, frames included", f"{lengths.mean():.0f}, at most {lengths.max():.0f}"))
        rows += [(f"of {SAMPLES} samples: {reason}", count) for reason, count in batch.counts.items()]
        rows += steps(sum(part.draws for _, part in data.mixture), step.dialogues, cli.trainer)
        rows += Estimate.of(cli.model, batch, step, cli.sharded).rows()
    if data.sources["val"]:
        for source, pairs in zip(data.sources["val"], data.open("val"), strict=True):
            rows.append((f"data.val: {source.queries}", f"{len(pairs)} queries"))
    if cli.best:
        rows.append(("best weights by", f"{cli.best.monitor}, {cli.best.mode}"))
    print_table("dry run: nothing was trained or written", ("what", "value"), rows)


def steps(dialogues: int, of_step: int, trainer) -> list[tuple[str, str]]:
    """Optimiser steps of an epoch and of the run."""
    each = math.ceil(dialogues / of_step)
    if isinstance(trainer.limit_train_batches, int):
        each = min(each, math.ceil(trainer.limit_train_batches / trainer.accumulate_grad_batches))
    total = each * trainer.max_epochs if trainer.max_epochs not in (None, -1) else None
    total = trainer.max_steps if trainer.max_steps != -1 and (total is None or trainer.max_steps < total) else total
    rows = [("steps an epoch", str(each))]
    return rows + [("steps, epochs", f"{total}, {total / each:.1f}" if total is not None else "without end")]


def version_of_code() -> str:
    """The commit of the checkout, with ``-dirty`` where files differ from it; ``unknown`` outside of one.

    The checkout is only read: ``git describe --dirty`` would lock and write its index.
    """
    git = ["git", "--no-optional-locks", "-C", str(Path(__file__).parent.parent)]

    def said(*command: str) -> str:
        done = subprocess.run([*git, *command], capture_output=True, text=True, check=True, timeout=10)
        return done.stdout.strip()

    try:
        commit = said("rev-parse", "--short=12", "HEAD")
        return commit + "-dirty" * bool(said("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return "unknown"
