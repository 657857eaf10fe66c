"""Predicted and true spans as a picture."""

from collections.abc import Sequence
from pathlib import Path
from textwrap import shorten

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from datamodules.schema import Prediction, Query

TRUE, PREDICTED = "#4C9A5B", "#D5703A"


def draw_timelines(path: Path, rows: Sequence[tuple[Query, Prediction, float]], most: int = 12) -> None:
    """Draw each query as a line of time with its true spans above its predicted ones, the fainter the less likely.

    Args:
        path: of the PNG.
        rows: query, its prediction and the length of its video in seconds. A query without events (asked about
            one's own video) has predicted spans only.
        most: rows drawn.
    """
    rows = rows[:most]
    figure, axes = plt.subplots(figsize=(9, 0.75 * len(rows) + 0.9), layout="constrained")
    for y, (query, prediction, duration_s) in enumerate(rows):
        axes.plot([0, 1], [y, y], color="#CCCCCC", linewidth=1, zorder=0)
        true = [(e.start_s / duration_s, (e.end_s - e.start_s) / duration_s) for e in query.events]
        axes.broken_barh(true, (y - 0.3, 0.28), color=TRUE)
        for (start, end, _), alpha in reversed(list(zip(prediction.spans, opacities(prediction), strict=True))):
            bar = [(start / duration_s, max(end - start, 0) / duration_s)]
            axes.broken_barh(bar, (y + 0.02, 0.28), color=PREDICTED, alpha=alpha, linewidth=0)
        label = query.text or query.task.replace("_", " ")
        label = shorten(f"{label}   ({query.video}, {duration_s:.0f} s)", 110)
        axes.text(0, y - 0.34, label, va="bottom", fontsize=8, parse_math=False)  # a "$" is a dollar
    axes.set(xlim=(0, 1), ylim=(len(rows) - 0.4, -0.75), yticks=[], xlabel="share of the video")
    axes.spines[["left", "right", "top"]].set_visible(False)
    axes.legend(
        handles=[plt.Rectangle((0, 0), 1, 1, color=TRUE), plt.Rectangle((0, 0), 1, 1, color=PREDICTED)],
        labels=["true", "predicted"],
        loc="upper right",
        bbox_to_anchor=(1, 1.0),
        ncols=2,
        frameon=False,
        fontsize=8,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def opacities(prediction: Prediction) -> list[float]:
    """Of each span: its score as a share of the best one; 1 for events, which are no alternatives to each other."""
    if prediction.task == "dense_captioning" or not prediction.spans:
        return [1.0] * len(prediction.spans)
    best = prediction.spans[0][2]
    return [1.0, *(min(max(score / best, 0.0), 1.0) if best > 0 else 0.2 for _, _, score in prediction.spans[1:])]
