"""Answers as a picture: one axis a video, in seconds, with all that was asked about it.

Shape suffixes: T frames.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from textwrap import shorten

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from datamodules.prediction import Prediction
from datamodules.schema import Query
from reports.results import opacities

TRUE, PREDICTED, SALIENT = "#4C9A5B", "#D5703A", "#4878B8"
WIDTH_IN, SIDE_IN, LINE_IN = 9.0, 0.2, 0.26
"""Inches of the picture, of what stays free beside it, and of one line in it."""
LEGEND_IN, TITLE_IN, TICKS_IN = 0.3, 0.28, 0.44
"""Inches above all videos, above each and below each."""
Row = tuple[Query, Prediction, float]
"""A query, its answer, and the length of its video in seconds."""


@dataclass(frozen=True)
class _Line:
    """One line of a video's axis: ``height`` lines high, drawn by ``draw(axes, y)`` between y and y + height."""

    height: float
    draw: object


def draw_timelines(path: Path, rows: Sequence[Row], most: int = 12) -> None:
    """Draw each video as an axis in seconds, and on it every query with its true spans above its predicted ones.

    The fainter a predicted span, the less likely it is. Captions of events stand on the axis, saliency is a curve, and
    ``strips`` of a prediction (similarity maps of MeCo, the indicator of VideoExpert) are rows of colour.

    Args:
        path: of the PNG.
        rows: queries about one video side by side. A query without events (asked about one's own video) has predicted
            spans only.
        most: rows drawn.
    """
    videos = [list(group) for _, group in groupby(rows[:most], lambda row: (row[0].video, row[2]))]
    lines = [[line for row in group for line in _lines(*row)] for group in videos]
    heights = [LINE_IN * sum(line.height for line in group) for group in lines]
    height = LEGEND_IN + sum(heights) + (TITLE_IN + TICKS_IN) * len(heights)
    figure = Figure((WIDTH_IN, height))
    top = height - LEGEND_IN
    for group, content, size in zip(videos, lines, heights, strict=True):
        top -= TITLE_IN + size
        box = (SIDE_IN / WIDTH_IN, top / height, 1 - 2 * SIDE_IN / WIDTH_IN, size / height)
        _draw_video(figure.add_axes(box), group[0], content)
        top -= TICKS_IN
    handles = [Rectangle((0, 0), 1, 1, color=color) for color in (TRUE, PREDICTED)]
    figure.legend(handles, ("true", "predicted"), loc="upper right", ncols=2, frameon=False, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # no font has all scripts; such a letter is a box
        figure.savefig(path, dpi=120)


def _draw_video(axes: Axes, row: Row, lines: Sequence[_Line]) -> None:
    query, _, duration_s = row
    y = 0.0
    for line in lines:
        line.draw(axes, y)
        y += line.height
    axes.set(xlim=(0, duration_s), ylim=(y, 0), yticks=[])
    axes.set_title(shorten(query.video, 90), loc="left", fontsize=9, fontweight="bold", parse_math=False)
    axes.set_xlabel("s", fontsize=8, labelpad=0)
    axes.tick_params(axis="x", labelsize=8)
    axes.spines[["left", "right", "top"]].set_visible(False)


def _lines(query: Query, prediction: Prediction, duration_s: float) -> list[_Line]:
    """The lines of one query, from top to bottom."""
    title = shorten(query.title, 110)
    lines = [_Line(1.0, lambda axes, y: _text(axes, 0, y + 0.95, title, va="bottom", clip_on=False))]
    if query.events:
        spans = [(*event.span, event.caption) for event in query.events]
        lines.append(_Line(0.9, lambda axes, y: _bars(axes, y, spans, TRUE, [1.0] * len(spans), duration_s)))
    captions = prediction.captions or ("",) * len(prediction.spans)
    found = [(start, end, caption) for (start, end, _), caption in zip(prediction.spans, captions, strict=True)]
    shades = opacities(prediction)
    lines.append(_Line(0.9, lambda axes, y: _bars(axes, y, found, PREDICTED, shades, duration_s)))
    if prediction.saliency:
        clip_s = query.clip_s or duration_s / len(prediction.saliency)
        lines.append(_Line(1.2, lambda axes, y: _curve(axes, y, prediction.saliency, clip_s)))
    for strip in prediction.strips:
        lines.append(_Line(0.8, lambda axes, y, strip=strip: _heat(axes, y, strip.label, strip.scores, duration_s)))
    return [*lines, _Line(0.3, lambda axes, y: None)]


def _bars(axes: Axes, y: float, spans: Sequence[tuple], color: str, shades: Sequence[float], duration_s: float) -> None:
    axes.plot([0, duration_s], [y + 0.45] * 2, color="#CCCCCC", linewidth=1, zorder=0)
    for (start, end, caption), shade in reversed(list(zip(spans, shades, strict=True))):
        axes.broken_barh(
            [(start, max(end - start, 0))], (y + 0.05, 0.8), facecolor=(color, shade), edgecolor="white", linewidth=0.8
        )
        room = int((end - start) / duration_s * 118)  # letters of this size that the bar has room for
        if caption and room > 3:
            _text(axes, start + 0.003 * duration_s, y + 0.47, shorten(caption, room, placeholder="…"), fontsize=6.5)


def _curve(axes: Axes, y: float, scores: Sequence[float], clip_s: float) -> None:
    """Saliency: high is up."""
    values = np.asarray(scores, dtype=float)
    spread = np.ptp(values)
    heights = (values - values.min()) / spread if spread > 0 else np.full(len(values), 0.5)
    centres = (np.arange(len(values)) + 0.5) * clip_s
    axes.plot(centres, y + 1.1 - heights, color=SALIENT, linewidth=1.2)


def _heat(axes: Axes, y: float, label: str, scores: Sequence[float], duration_s: float) -> None:
    """One strip of colours, a frame a cell, with its name on it."""
    box = (0, duration_s, y + 0.7, y + 0.05)
    axes.imshow(np.asarray(scores, dtype=float)[None], cmap="inferno", aspect="auto", extent=box, zorder=1)
    _text(axes, 0.003 * duration_s, y + 0.4, shorten(label, 60), fontsize=6.5, color="white", fontweight="bold")


def _text(axes: Axes, x: float, y: float, text: str, **style) -> None:
    settings = {"va": "center", "fontsize": 8, "clip_on": True} | style
    axes.text(x, y, text, parse_math=False, **settings)  # a "$" is a dollar
