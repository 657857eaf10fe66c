"""``make demo``: a made-up world, all three systems on one tiny language model, and what each has learned.

Everything is written below ``runs/demo``. The same configs, shards and commands serve real videos and Vicuna.
"""

import csv
import json
import os
import shutil
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import torch
from rich.table import Table

import train
from command_line.tables import PlainConsole, say
from datamodules.changed_frames import Frames
from datamodules.query_files import read_queries, write_queries
from evaluation.benchmark import benchmark
from lightning_modules.answering import Generation
from preparation.world.synthetic import World, write_world
from reports.curves import draw_curves

CONFIGS = Path("configs/quickstart")
RUNS = {
    "stage1": "VTimeLLM stage 1, feature alignment",
    "stage2": "VTimeLLM stage 2, boundary perception",
    "stage3": "VTimeLLM stage 3, instruction tuning",
    "meco": "MeCo, on stage 1",
    "videoexpert": "VideoExpert, on stage 1",
}
"""Config and run folder of each model. MeCo and VideoExpert see the data and take the steps of stage 2."""
HERE, BESIDE = ("stage2", "stage3"), ("meco", "videoexpert")
"""What goes on from stage 1, in two processes on one core each: numbers do not depend on how many cores there are."""
FINAL = ("stage3", "meco", "videoexpert")
"""Also asked with the features of another video."""
COLUMNS = ("grounding/R1@0.3", "grounding/R1@0.5", "grounding/R1@0.7", "grounding/mIoU")
EVENTS = ("dense_captioning/F1", "dense_captioning/SODA_d")


@dataclass(frozen=True)
class Size:
    """How much of everything; a test takes less."""

    images: int = 3000
    train: int = 3000
    val: int = 20
    test: int = 100
    steps: int | None = None
    """Optimiser steps of each run. None: those of its config."""


def main(output: Path = Path("runs/demo"), size: Size = Size()) -> None:  # noqa: B008 (frozen)
    """Make the world, train, evaluate, compare with three baselines, and print one table."""
    shutil.rmtree(output, ignore_errors=True)
    world = output / "world"
    write_world(world, World(seed=0), images=size.images, train=size.train, val=size.val, test=size.test)
    moments = list(read_queries(world / "test/grounding.jsonl"))
    queries = [*moments, *read_queries(world / "test/dense_captioning.jsonl")]
    write_queries(world / "test/all.jsonl", queries)

    train_and_ask(output, ("stage1",), size.steps)
    log = output / "beside.log"
    say(f"MeCo and VideoExpert are trained at the same time; {log} has what they print")
    other = get_context("spawn").Process(target=beside, args=(log, output, BESIDE, size.steps), daemon=True)
    other.start()
    train_and_ask(output, HERE, size.steps)
    other.join()
    if other.exitcode:
        sys.exit(f"quickstart.py: error: MeCo and VideoExpert were not trained; {log} says why")

    rows = {name: report(output, run, "all-given")["metrics"] for run, name in RUNS.items()}
    rows |= {f"wrong video: {RUNS[run]}": report(output, run, "grounding-other_video")["metrics"] for run in FINAL}
    last = report(output, FINAL[-1], "all-given")
    rows["best constant window (each column's own)"] = last["baselines"]["constant window"]
    rows["random window"] = last["baselines"]["random window"]
    (output / "metrics.json").write_text(json.dumps({"metrics": rows, "protocol": last["protocol"]}, indent=2) + "\n")
    for name in ("predictions.jsonl", "timelines.png"):
        shutil.copy(output / f"eval/{FINAL[-1]}-all-given" / name, output / name)
    draw_curves(output / "curves.png", {run: read_losses(output / run) for run in RUNS})
    PlainConsole(width=110).print(summary(rows), f"Pictures, predictions and protocol: {output}")


def beside(log: Path, *arguments) -> None:
    """``train_and_ask`` in a process of its own, whose words go into a file."""
    with open(log, "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    train_and_ask(*arguments)


def train_and_ask(output: Path, runs: Sequence[str], steps: int | None) -> None:
    """Train models one after the other, and ask each the test questions."""
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", module="lightning")  # advice about logging intervals and workers
    for run in runs:
        length = [f"--trainer.max_steps={steps}"] if steps else []
        train.main(["--config", str(CONFIGS / f"{run}.yaml"), "--output", str(output / run), *length])
        answer(output, run, output / "world/test/all.jsonl")
        if run in FINAL:
            answer(output, run, output / "world/test/grounding.jsonl", "other_video")


def answer(output: Path, run: str, queries: Path, frames: Frames = "given") -> None:
    """Ask a run's model the questions of a file."""
    benchmark(
        checkpoint=output / run,
        shards=str(output / "world/videos"),
        queries=queries,
        output=output / "eval" / f"{run}-{queries.stem}-{frames}",
        frames=frames,
        batch_size=64,
        num_workers=0,
        generation=Generation(max_new_tokens=96),
    )


def report(output: Path, run: str, asked: str) -> dict:
    """What an evaluation has found."""
    return json.loads((output / "eval" / f"{run}-{asked}" / "metrics.json").read_text())


def read_losses(run: Path) -> list[tuple[int, float]]:
    """(step, loss) pairs of a run's log."""
    with open(run / "logs/metrics.csv", newline="") as lines:
        return [(int(row["step"]), float(row["train/loss"])) for row in csv.DictReader(lines) if row["train/loss"]]


def summary(rows: dict[str, dict[str, float]]) -> Table:
    """One line a model or baseline."""
    table = Table(title="Held-out videos: temporal grounding and event localisation (percent)")
    table.add_column("")
    for column in COLUMNS + EVENTS:
        table.add_column(column.split("/")[1].replace("R1", "R"), justify="right")
    for name, scores in rows.items():
        table.add_row(name, *(f"{scores[column]:.1f}" if column in scores else "-" for column in COLUMNS + EVENTS))
    return table


if __name__ == "__main__":
    main()
