"""How long the metrics take on sets of full size, as a ratio to the official evaluators.

python -m benchmarks.scoring --annotations ../shared/data/annotations

Predictions are the published annotations, moved and shortened with a fixed seed. The seconds of the official evaluators
are CPU seconds of one process of their own code on sets of the same size. Times here are wall-clock seconds; the first
row of the caption metrics pays the start of METEOR (it loads its paraphrases once in the life of a program), the second
scores a fresh set with the process that is there.
"""

import argparse
import json
import random
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from metrics.benchmarks.event_captions import event_scores
from metrics.benchmarks.formats.files import read
from metrics.benchmarks.formats.stories import stories
from metrics.captions import meteor
from metrics.highlights import clip_matrix, highlight_scores
from metrics.moment_retrieval import retrieval_scores
from metrics.soda import soda_scores

OFFICIAL_S = {"QVHighlights": 7.0, "SODA_c": 17.0, "dense captioning": 43.0}


def moved(events: list, seed: int) -> list[tuple[float, float, str]]:
    """Events with other times and some words left out."""
    rng = random.Random(seed)
    story = []
    for start, end, text in events:
        shift = rng.gauss(0, 0.15 * (end - start))
        words = [word for word in text.split() if rng.random() > 0.15] or ["someone"]
        story.append((max(0.0, start + shift), max(0.1, end + shift), " ".join(words)))
    return story


def highlights(rows: list[dict]) -> Callable[[], object]:
    """QVHighlights: ten windows and the saliency of every clip, for each query of the set."""
    rng = np.random.default_rng(0)
    targets = [row["relevant_windows"] for row in rows]
    starts = rng.uniform(0, 140, (len(rows), 9))
    windows = [
        [[*target[0], 0.9], *([s, s + 10, float(rng.random())] for s in start)]
        for target, start in zip(targets, starts.tolist(), strict=True)
    ]
    saliency = [rng.normal(size=int(row["duration"] / 2)).tolist() for row in rows]

    def run():
        """Score the set once."""
        ratings = [clip_matrix(row["relevant_clip_ids"], row["saliency_scores"], row["duration"]) for row in rows]
        return retrieval_scores(windows, targets, "official"), highlight_scores(saliency, ratings, "official")

    return run


def timed(run: Callable[[], object]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def report(table: Table, name: str, note: str, seconds: float) -> dict:
    """Add a row; returns it for the file."""
    official = OFFICIAL_S[name]
    table.add_row(name, note, f"{official:.0f}", f"{seconds:.2f}", f"{official / seconds:.1f}x")
    return {"metric": name, "note": note, "official_s": official, "seconds": seconds, "ratio": official / seconds}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--annotations", type=Path, required=True, help="folder of the published annotation files")
    parser.add_argument("--output", type=Path, help="also write the rows to this JSON file")
    parser.add_argument("--videos", type=int, default=500, help="of each set of captions; the ratio holds for 500")
    arguments = parser.parse_args()
    table = Table("metric", "set", "official CPU s", "here s", "ratio", title="Metrics on sets of full size")
    queries = read(arguments.annotations / "qvhighlights_val.jsonl")
    run = highlights(queries)
    rows = [report(table, "QVHighlights", f"{len(queries)} queries", min(timed(run) for _ in range(3)))]
    annotated = stories(arguments.annotations / "activitynet_captions_val_2.json")
    names, videos = list(annotated), arguments.videos
    start = timed(lambda: meteor().pairs([("a", "a")]))
    for note, chosen, seed in (("first set", names[:videos], 0), ("next set", names[videos : 2 * videos], 1)):
        extra = start if seed == 0 else 0.0
        references = {name: list(annotated[name].events) for name in chosen}
        predicted = {name: moved(events, seed) for name, events in references.items()}
        seconds = timed(lambda p=predicted, r=references: soda_scores(p, [r], "c", "average", "official"))
        rows.append(report(table, "SODA_c", f"{videos} videos, {note}", extra + seconds))
        predicted = {name: moved(events, seed + 10) for name, events in references.items()}
        seconds = timed(lambda p=predicted, r=references: event_scores(p, [r], policy="official"))
        rows.append(report(table, "dense captioning", f"{videos} videos, {note}", extra + seconds))
    Console().print(table)
    Console().print(f"METEOR takes {start:.1f} s to start; it is in the rows of the first set.")
    if arguments.output:
        arguments.output.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
