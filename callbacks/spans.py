"""Where predicted and true spans begin and end, as a picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from reports.timelines import PREDICTED, TRUE

COLOURS = (TRUE, PREDICTED)


def draw_spans(path: Path, spans: Mapping[str, Sequence[tuple[float, float]]]) -> None:
    """Draw each set of spans as points (start, end), the denser the darker (VideoExpert, Fig. 2).

    Spans that depend on the video lie as the true ones do; those from the words of a question alone lie on few points.

    Args:
        path: of the PNG.
        spans: title -> (start, end) as shares of the video; the true ones first.
    """
    figure, panels = plt.subplots(
        1, len(spans), figsize=(3.6 * len(spans), 3.8), sharex=True, sharey=True, layout="constrained", squeeze=False
    )
    for axes, (title, points), colour in zip(panels[0], spans.items(), COLOURS * len(spans), strict=False):
        axes.plot([0, 1], [0, 1], color="#CCCCCC", linewidth=1, zorder=0)
        if len(points):
            alpha = min(1.0, max(0.05, 30 / len(points)))
            axes.scatter(*zip(*points, strict=True), s=14, color=colour, alpha=alpha, linewidths=0)
        axes.set(title=title, xlabel="start, share of the video", xlim=(0, 1), ylim=(0, 1), aspect="equal")
    panels[0][0].set_ylabel("end, share of the video")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    plt.close(figure)
