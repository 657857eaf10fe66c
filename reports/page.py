"""Answers as one HTML file: each video beside its timeline, every span a button that plays it. Needs no network.

The file holds its data as JSON; ``assets/`` holds the page around it and the scripts that build it in the browser.
"""

import base64
import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template

from datamodules.prediction import Prediction
from datamodules.schema import Query
from metrics.grounding import best_ious
from reports.escaping import escaped, script_json
from reports.media import place
from reports.results import TIMED, opacities

ASSETS = Path(__file__).parent / "assets"
SCRIPTS = ("page.js", "stage.js", "overview.js")
"""In the order in which they run."""
LOCATED = ("grounding", "grounded_qa")
"""Tasks whose first span is held against the true ones."""


@dataclass(frozen=True)
class Shown:
    """A video with what was asked about it."""

    name: str
    duration_s: float
    answers: tuple[tuple[Query, Prediction | None], ...]
    """A query without a prediction is shown as not answered."""
    file: Path | None = None
    link: str = ""
    """URL of the video, where the page is served and not opened as a file."""


def write_page(
    path: Path,
    videos: Sequence[Shown],
    title: str,
    facts: Mapping[str, object] | None = None,
    embed: bool = False,
    reencode: bool = False,
) -> None:
    """Write a page; it is there when it is whole.

    Args:
        path: of the HTML file. Videos are linked relatively, so page and videos can be moved together.
        videos: in the order in which they are shown.
        title: heading.
        facts: what stands under the heading: names and values.
        embed: put videos of up to 20 MB inside.
        reencode: see ``media.place``.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    shown = [_video(video, path, embed, reencode) for video in videos]
    data = {"videos": shown, "facts": [[str(name), str(value)] for name, value in (facts or {}).items()]}
    style = (ASSETS / "page.css").read_text(encoding="utf-8")
    script = "\n".join((ASSETS / name).read_text(encoding="utf-8") for name in SCRIPTS)
    page = Template((ASSETS / "page.html").read_text(encoding="utf-8")).substitute(
        title=escaped(title),
        style=style,
        style_hash=_hash(style),
        data=script_json(data),
        script=script,
        script_hash=_hash(script),
    )
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(page, encoding="utf-8")
    os.replace(partial, path)


def _hash(content: str) -> str:
    """As a content security policy names an inline script or style: nothing else on the page is run."""
    return f"sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}"


def _video(video: Shown, page: Path, embed: bool, reencode: bool) -> dict:
    media = place(video.file, page, embed, reencode)
    return {
        "name": video.name,
        "duration": video.duration_s,
        "source": video.link or media.source,
        "note": media.note,
        "offset": media.offset_s,
        "rows": [row(query, prediction) for query, prediction in video.answers],
    }


def row(query: Query, prediction: Prediction | None) -> dict:
    """One query and its answer, as the scripts of the page read them."""
    found = prediction or Prediction(query.id, query.video, query.task, "")
    captions = found.captions or ("",) * len(found.spans)
    spans = zip(found.spans, opacities(found), captions, strict=True)
    return {
        "id": query.id,
        "task": query.task,
        "text": query.title,
        "options": list(query.options),
        "answer": found.answer,
        "option": found.option,
        "right": query.answer,
        "rule": _rule(found) if prediction else "not answered",
        "source": query.source,
        "spans": [[*map(float, span), opacity, caption] for span, opacity, caption in spans],
        "truth": [[event.start_s, event.end_s, event.caption] for event in query.events],
        "iou": iou(query, prediction),
        "saliency": list(found.saliency),
        "clip": query.clip_s if found.saliency else None,
        "strips": [[strip.label, list(strip.scores)] for strip in found.strips],
    }


def _rule(prediction: Prediction) -> str | None:
    """What read the times; None where none could be read, empty where none need be."""
    return prediction.rule if prediction.rule is not None or prediction.task in TIMED else ""


def iou(query: Query, prediction: Prediction | None) -> float | None:
    """IoU of the first span with the best of the true ones; None where nothing is known, 0 without a span."""
    if query.task not in LOCATED or not query.events:
        return None
    spans = [span[:2] for span in prediction.spans[:1]] if prediction else []
    return float(best_ious(spans, [event.span for event in query.events])[0]) if spans else 0.0
