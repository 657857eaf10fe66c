"""``make demo``: a made-up world, all three systems on one tiny language model, and what each has learned.

Everything is written below ``runs/demo``. The same configs, shards and commands serve real videos and Vicuna.
"""

import csv
import json
import shutil
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random

from rich.console import Console
from rich.table import Table

import evaluate
import train
from callbacks.curves import draw_curves
from datamodules.query_files import read_queries, write_queries
from datamodules.schema import Prediction, Query
from lightning_modules.answering import Generation
from lightning_modules.scoring import compute_metrics, new_metrics, update_metrics
from preparation.world.synthetic import World, write_world

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
GRID = 20
"""Constant windows begin and end at multiples of 1 / GRID of the video."""


def main(output: Path = Path("runs/demo")) -> None:
    """Make the world, train, evaluate, compare with three baselines, and print one table."""
    warnings.filterwarnings("ignore", module="lightning")  # advice about logging intervals and workers
    shutil.rmtree(output, ignore_errors=True)
    world = output / "world"
    write_world(world, World(seed=0), images=3000, train=3000, val=20, test=100)
    moments = list(read_queries(world / "test/grounding.jsonl"))
    queries = [*moments, *read_queries(world / "test/dense_captioning.jsonl")]
    asked, wrong = world / "test/all.jsonl", world / "test/wrong_video.jsonl"
    write_queries(asked, queries)
    write_queries(wrong, with_wrong_videos(moments))

    for run in RUNS:
        train.main(["--config", str(CONFIGS / f"{run}.yaml"), "--output", str(output / run)])
    rows = {name: answer(output, run, asked) for run, name in RUNS.items()}
    rows |= {f"wrong video: {RUNS[run]}": answer(output, run, wrong) for run in FINAL}
    rows["best constant window (each column's own)"] = best_constant(queries)
    rows["random window"] = random_window(queries)

    last = output / f"eval/{FINAL[-1]}-all"
    protocol = json.loads((last / "metrics.json").read_text())["protocol"]
    (output / "metrics.json").write_text(json.dumps({"metrics": rows, "protocol": protocol}, indent=2) + "\n")
    for name in ("predictions.jsonl", "timelines.png"):
        shutil.copy(last / name, output / name)
    draw_curves(output / "curves.png", {run: read_losses(output / run) for run in RUNS})
    Console(width=110).print(summary(rows), f"Pictures, predictions and protocol: {output}")


def answer(output: Path, run: str, queries: Path) -> dict[str, float]:
    """Scores of a run's model on a query file."""
    return evaluate.benchmark(
        checkpoint=output / run,
        shards=str(output / "world/videos"),
        queries=queries,
        output=output / "eval" / f"{run}-{queries.stem}",
        batch_size=64,
        num_workers=0,
        generation=Generation(max_new_tokens=96),
    )


def with_wrong_videos(queries: list[Query]) -> list[Query]:
    """The same questions and answers, each about the next video's features."""
    videos = sorted({query.video for query in queries})
    following = dict(zip(videos, [*videos[1:], videos[0]], strict=True))
    return [replace(query, video=following[query.video]) for query in queries]


def score_windows(queries: list[Query], window: Callable[[Query], tuple[float, float]]) -> dict[str, float]:
    """Grounding scores of one window a query, given as fractions of the video."""
    metrics = new_metrics()
    answers = []
    for query in (query for query in queries if query.task == "grounding"):
        start, end = window(query)
        span = (start * query.duration_s, end * query.duration_s, 1.0)
        answers.append((query, Prediction(query.id, query.video, query.task, "", (span,), rule="baseline")))
    update_metrics(metrics, answers)
    return compute_metrics(metrics)


def best_constant(queries: list[Query]) -> dict[str, float]:
    """The most that one window for all queries can reach on these very queries, column by column."""
    windows = [(a / GRID, b / GRID) for a in range(GRID) for b in range(a + 1, GRID + 1)]
    scores = [score_windows(queries, lambda _, window=window: window) for window in windows]
    return {column: max(score[column] for score in scores) for column in COLUMNS}


def random_window(queries: list[Query], draws: int = 20) -> dict[str, float]:
    """The mean over ``draws`` sets of windows with two uniform ends."""
    random = Random(0)
    scores = [score_windows(queries, lambda _: tuple(sorted((random.random(), random.random())))) for _ in range(draws)]
    return {column: sum(score[column] for score in scores) / draws for column in COLUMNS}


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
