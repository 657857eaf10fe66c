"""Metrics of video temporal grounding, highlights, dense captions and grounded questions.

``from metrics import score`` scores files as the benchmarks of the field do; the other names are functions on lists of
windows in seconds, and the same as torchmetrics classes. Nothing is imported before it is asked for: a function on
windows needs numpy only. docs/metrics.md shows each of them.
"""

from importlib import import_module

EXPORTS = {
    "metrics.benchmarks.benchmarks": ("score",),
    "metrics.benchmarks.answers": ("Parsed", "read_moments"),
    "metrics.benchmarks.event_answers": ("read_events",),
    "metrics.spans": ("iou", "is_valid"),
    "metrics.grounding": ("grounding_rows", "grounding_scores"),
    "metrics.moment_retrieval": ("retrieval_rows", "retrieval_scores"),
    "metrics.moment_sets": ("retrieval_row", "set_row", "union_iou"),
    "metrics.no_moments": ("no_moment_row", "no_moment_scores"),
    "metrics.highlights": ("clip_matrix", "highlight_rows", "highlight_scores"),
    "metrics.video_highlights": ("tvsum_precision", "video_scores", "youtube_precision"),
    "metrics.dense_captioning": ("localization_scores", "soda_d"),
    "metrics.soda": ("soda_scores",),
    "metrics.grounded_qa": ("grounded_qa_scores", "question_accuracy"),
    "metrics.bootstrap": ("intervals", "moved", "paired"),
    "metrics.modules": (
        "EventLocalization",
        "GroundedQA",
        "HighlightDetection",
        "MomentRetrieval",
        "QuestionAccuracy",
        "Soda",
        "TemporalGrounding",
        "VideoHighlights",
    ),
    "metrics.benchmarks.modules": ("ETBench", "EventCaptions", "TimeChatCaptions", "VideoMind"),
}
"""Module -> the names that this package gives."""

HOMES = {name: module for module, names in EXPORTS.items() for name in names}
__all__ = [*HOMES, "rewards"]


def __getattr__(name: str) -> object:
    """Import the module of a name when it is first used."""
    if name == "rewards":
        return import_module("metrics.rewards")
    if name not in HOMES:
        raise AttributeError(f"module 'metrics' has no attribute {name!r}")
    return getattr(import_module(HOMES[name]), name)


def __dir__() -> list[str]:
    """The names to use, for tab completion."""
    return sorted({*globals(), *__all__})
