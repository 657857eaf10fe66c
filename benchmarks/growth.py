"""How time grows with the work, as a picture: python -m benchmarks.growth [--output docs/growth.svg].

A small random Llama learns and answers questions about videos of more frames, more questions about one video, longer
dialogues, and with larger vocabularies. Both axes are logarithmic: a line as steep as the grey one grows as the work.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from jsonargparse import auto_cli
from matplotlib.figure import Figure

from benchmarks.limits import best_s
from benchmarks.stages import SIZES, Shape, Subject

CPU = torch.device("cpu")


def seconds(shape: Shape, rounds: int) -> dict[str, float]:
    """Of a training step, and of the answers to all queries at once."""
    subject = Subject(shape, CPU)
    batch = subject.packed(1)
    learned = best_s(lambda: subject.step(batch, False), CPU, rounds)
    subject.model.eval()
    return {"training step": learned, "answers": best_s(lambda: subject.answers(True, shape.queries, 8), CPU, rounds)}


def main(
    output: Path = Path("growth.svg"),
    frames: Sequence[int] = (100, 200, 400, 800, 1600),
    queries: Sequence[int] = (1, 2, 4, 8, 16, 32),
    repeats: Sequence[int] = (1, 4, 16, 64),
    vocabulary: Sequence[int] = (1000, 8000, 64000),
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
        width: of the language model (two layers).
        rounds: timed repetitions of each; the fastest counts.
    """
    usual = replace(SIZES["small"], width=width, inner=2 * width, layers=2, heads=2, vocabulary=1000, queries=4)
    ranges = {"frames": frames, "queries": queries, "repeats": repeats, "vocabulary": vocabulary}
    figure = Figure(figsize=(3.2 * len(ranges), 3), layout="constrained")
    for axes, (name, values) in zip(figure.subplots(1, len(ranges)), ranges.items(), strict=True):
        found = [seconds(replace(usual, **{name: value}), rounds) for value in values]
        for work in found[0]:
            axes.loglog(values, [one[work] for one in found], marker="o", label=work)
            print(name, work, *(f"{value}: {one[work]:.3f} s" for value, one in zip(values, found, strict=True)))
        start = min(found[0].values())
        axes.loglog(values, [start * value / values[0] for value in values], color="0.8", label="as the work")
        axes.set(xlabel=name, ylabel="seconds")
    axes.legend()
    figure.savefig(output)
    print(f"written: {output}")


if __name__ == "__main__":
    auto_cli(main)
