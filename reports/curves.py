"""Curves over the steps of a run as a picture."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def draw_curves(path: Path, curves: dict[str, list[tuple[int, float]]]) -> None:
    """Draw named curves of (step, value) pairs into a PNG."""
    figure, axes = plt.subplots(figsize=(7, 3.5), layout="constrained")
    for name, points in curves.items():
        axes.plot(*zip(*points, strict=True), label=name, linewidth=1)
    axes.set(xlabel="optimiser step", ylabel="loss", ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    plt.close(figure)
