"""How time and memory grow with the work, as a picture: python -m benchmarks.growth [--output docs/growth.svg].

A small random Llama learns and answers questions about videos of more frames, more questions about one video, longer
dialogues, and with larger vocabularies; and annotation files of more lines are opened, for the first time and again.
Both axes are logarithmic: a line as steep as the grey one grows as the work. Memory is what a work takes at most beside
what was there before it.
"""

import ctypes
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from jsonargparse import auto_cli
from matplotlib.figure import Figure

from benchmarks.generation import peak_bytes, reset_peak
from benchmarks.stages import SIZES, Shape, Subject
from datamodules import kept
from datamodules.line_index import open_lines

CPU = torch.device("cpu")
LINE = '{{"id": "q{0}", "video": "v{0}", "task": "grounding", "text": "a", "events": [{{"start_s": 1, "end_s": 2}}]}}\n'
LEAST_S, LEAST_MB = 0.01, 0.1
"""Less is drawn as this: no clock and no count of pages is finer."""
Cost = tuple[float, float]
"""CPU seconds, and MB."""


def cost(work: Callable[[], object], rounds: int) -> Cost:
    """Peak memory of the first of several rounds, and the least CPU time of those after it, if there are any."""
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)  # what was freed and not given back would be used again, unseen
    reset_peak()
    before, times = peak_bytes(), []
    for number in range(rounds + 1):
        start = sum(os.times()[:4])
        work()
        times.append(max(sum(os.times()[:4]) - start, LEAST_S))
        if number == 0:
            taken = peak_bytes() - before
    return min(times[1:] or times), max(taken / 1e6, LEAST_MB)


def learned_and_answered(shape: Shape, rounds: int) -> dict[str, Cost]:
    """Of a training step, and of the answers to all queries at once."""
    subject = Subject(shape, CPU)
    batch = subject.packed(1)
    learned = cost(lambda: subject.step(batch), rounds)
    subject.model.eval()
    return {"training step": learned, "answers": cost(lambda: subject.answers(True, shape.queries, 8), rounds)}


def opened(lines: int) -> dict[str, Cost]:
    """Of an annotation file of so many lines, each about a video of its own, opened and opened again."""
    with tempfile.TemporaryDirectory() as folder:
        path, cache = Path(folder) / "lines.jsonl", Path(folder) / "cache"
        with open(path, "w") as file:
            file.writelines(map(LINE.format, range(lines)))
        if path.stat().st_size >= kept.KEPT_FROM:
            time.sleep(kept.SETTLED_S + 0.1)
        first = cost(lambda: open_lines(path, cache=cache), 0)
        return {"first opening": first, "opening again": cost(lambda: open_lines(path, cache=cache), 1)}


def draw(figure: Figure, found: dict[str, tuple[Sequence[int], list[dict[str, Cost]]]]) -> None:
    """A column for each kind of work, of its time and memory."""
    axes = figure.subplots(2, len(found), sharex="col")
    for column, (name, (values, costs)) in enumerate(found.items()):
        for row, unit in enumerate(("CPU seconds", "MB")):
            here = axes[row, column]
            for work in costs[0]:
                here.loglog(values, [one[work][row] for one in costs], marker="o", label=work)
            start = min(each[row] for each in costs[0].values())
            here.loglog(values, [start * value / values[0] for value in values], color="0.8", label="as the work")
            here.set_ylabel(unit)
        axes[1, column].set_xlabel(name)
        if column in (0, len(found) - 1):
            axes[0, column].legend()


def main(
    output: Path = Path("growth.svg"),
    frames: Sequence[int] = (100, 200, 400, 800, 1600, 3200),
    queries: Sequence[int] = (1, 2, 4, 8, 16, 32, 64),
    repeats: Sequence[int] = (1, 4, 16, 64),
    vocabulary: Sequence[int] = (1000, 8000, 64000),
    lines: Sequence[int] = (10_000, 100_000, 1_000_000),
    width: int = 128,
    rounds: int = 1,
) -> None:
    """Measure and draw.

    Args:
        output: picture that is written.
        frames: of the video.
        queries: about it.
        repeats: of seven words, in each dialogue that is learned.
        vocabulary: words of the language model.
        lines: of an annotation file.
        width: of the language model (two layers).
        rounds: timed repetitions of each; the fastest counts.
    """
    usual = replace(SIZES["small"], width=width, inner=2 * width, layers=2, heads=2, vocabulary=1000, queries=4)
    ranges = {"frames": frames, "queries": queries, "repeats": repeats, "vocabulary": vocabulary, "lines": lines}
    found = {}
    for name, values in ranges.items():
        shapes = None if name == "lines" else [replace(usual, **{name: value}) for value in values]
        costs = [learned_and_answered(shape, rounds) for shape in shapes] if shapes else list(map(opened, values))
        found[name] = values, costs
        for work in costs[0]:
            each = zip(values, (one[work] for one in costs), strict=True)
            print(name, work, *(f"{value}: {seconds:.3f} s, {mb:.0f} MB;" for value, (seconds, mb) in each))
    figure = Figure(figsize=(3.2 * len(found), 5), layout="constrained")
    draw(figure, found)
    figure.savefig(output)
    print(f"written: {output}")


if __name__ == "__main__":
    auto_cli(main)
