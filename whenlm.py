"""WhenLM from Python: load a run, ask it about videos, score anyone's predictions.

::

    import whenlm

    model = whenlm.load("runs/clip/run")
    found = model.find("clip.mp4", "a blue box")      # moments, best first
    print(found, found[0].start_s, found[0].score)
    print(model.describe("clip.mp4"))                 # events with captions
    print(model.ask("clip.mp4", "What comes last?").text)
    print(whenlm.score("predictions.jsonl", "charades_sta_test.json", "charades_sta"))

Results print as tables and draw themselves in a notebook. The rooms behind this module are for those who change WhenLM;
this module is for those who use it. Importing it loads nothing: torch comes with ``load``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from reports.results import Moment, Moments, Scores

if TYPE_CHECKING:
    from asking.model import Model

__all__ = ["Moment", "Moments", "Scores", "load", "score"]


def load(run: Path | str, llm: str | None = None, encoder: str | None = None, dtype: str | None = None) -> Model:
    """A finished run as a model that answers: ``find``, ``describe`` and ``ask``.

    Args:
        run: run folder of train.py, an exported folder, or a folder with released weights.
        llm: base model, if it is not where the run names it; released weights need it.
        encoder: vision encoder, if it is not where the run names it.
        dtype: to compute in; None: bfloat16 on an accelerator, else float32.

    Raises:
        ValueError: no trained weights are there, or they were trained on another base.
    """
    from asking.model import Model

    model = Model(Path(run), llm, encoder, dtype)
    model.load()
    return model


def score(
    predictions: Path | str,
    annotations: Path | str | Sequence[Path | str],
    benchmark: str,
    policy: Literal["sound", "official"] = "sound",
) -> Scores:
    """Score a prediction file as a benchmark of the field does it.

    Args:
        predictions: predictions.jsonl of this project, or a format that the benchmark passes around.
        annotations: the published annotations; several where the benchmark has several reference files.
        benchmark: whose metrics and file formats; see docs/evaluation.md.
        policy: ``sound``, or ``official`` to reproduce the official evaluator with its quirks.

    Returns:
        the metrics, a mapping with ``.protocol``: what they depend on, and the counts of what could not be used.

    Raises:
        ValueError: an unknown benchmark, or files that do not fit it, naming file and line.
    """
    from metrics.benchmarks import benchmarks

    several = not isinstance(annotations, (str, Path))
    files = [Path(file) for file in annotations] if several else Path(annotations)
    report = benchmarks.score(benchmark, Path(predictions), files, policy)
    return Scores(report["metrics"], report["protocol"], f"{benchmark}, policy {policy}")
