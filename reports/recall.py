"""Recall over thresholds of IoU as a picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

THRESHOLDS = np.linspace(0.05, 0.95, 19)


def recalls(overlaps: Sequence[float]) -> np.ndarray:
    """R@1 in percent at each of ``THRESHOLDS``; the area below is the mean IoU, nearly."""
    return 100 * (np.asarray(overlaps)[:, None] >= THRESHOLDS - 1e-12).mean(0)


def draw_recall(path: Path, overlaps: Mapping[str, Sequence[float]]) -> None:
    """One curve a model.

    Args:
        path: of the PNG.
        overlaps: label -> IoU of the first span of every query, 0 where there is none.
    """
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for label, values in overlaps.items():
        axes.plot(THRESHOLDS, recalls(values), marker=".", label=f"{label} (n = {len(values)})")
    axes.set(xlabel="IoU that counts as found", ylabel="R@1 (percent)", xlim=(0, 1), ylim=(0, 100))
    axes.grid(alpha=0.3)
    legend = axes.legend(frameon=False, fontsize=8)
    for text in legend.get_texts():
        text.set_parse_math(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    plt.close(figure)
