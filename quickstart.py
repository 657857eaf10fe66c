"""``make demo``: a made-up world, all three systems on one tiny language model, and what each has learned.

Everything is written below ``runs/demo``. The same configs, shards and commands serve real videos and Vicuna.
"""

import csv
import json
import shutil
import warnings
from pathlib import Path

from rich.table import Table

import train
from command_line.tables import PlainConsole
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
FINAL = ("stage3", "meco", "videoexpert")
"""Also asked with the features of another video."""
COLUMNS = ("grounding/R1@0.3", "grounding/R1@0.5", "grounding/R1@0.7", "grounding/mIoU")
EVENTS = ("dense_captioning/F1", "dense_captioning/SODA_d")


def main(output: Path = Path("runs/demo")) -> None:
    """Make the world, train, evaluate, compare with three baselines, and print one table."""
    warnings.filterwarnings("ignore", module="lightning")  # advice about logging intervals and workers
    shutil.rmtree(output, ignore_errors=True)
    world = output / "world"
    write_world(world, World(seed=0), images=3000, train=3000, val=20, test=100)
    moments = list(read_queries(world / "test/grounding.jsonl"))
    queries = [*moments, *read_queries(world / "test/dense_captioning.jsonl")]
    asked = world / "test/all.jsonl"
    write_queries(asked, queries)

    for run in RUNS:
        train.main(["--config", str(CONFIGS / f"{run}.yaml"), "--output", str(output / run)])
    rows = {name: answer(output, run, asked) for run, name in RUNS.items()}
    wrong = world / "test/grounding.jsonl"
    rows |= {f"wrong video: {RUNS[run]}": answer(output, run, wrong, "other_video") for run in FINAL}
    last = output / f"eval/{FINAL[-1]}-all-given"
    report = json.loads((last / "metrics.json").read_text())
    rows["best constant window (each column's own)"] = report["baselines"]["constant window"]
    rows["random window"] = report["baselines"]["random window"]

    (output / "metrics.json").write_text(json.dumps({"metrics": rows, "protocol": report["protocol"]}, indent=2) + "\n")
    for name in ("predictions.jsonl", "timelines.png"):
        shutil.copy(last / name, output / name)
    draw_curves(output / "curves.png", {run: read_losses(output / run) for run in RUNS})
    PlainConsole(width=110).print(summary(rows), f"Pictures, predictions and protocol: {output}")


def answer(output: Path, run: str, queries: Path, frames: Frames = "given") -> dict[str, float]:
    """Scores of a run's model on a query file."""
    return benchmark(
        checkpoint=output / run,
        shards=str(output / "world/videos"),
        queries=queries,
        output=output / "eval" / f"{run}-{queries.stem}-{frames}",
        frames=frames,
        batch_size=64,
        num_workers=0,
        generation=Generation(max_new_tokens=96),
    )


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
