"""What the evaluators of moment retrieval report: length ranges, thresholds and ranks."""

import math
from collections.abc import Mapping

from metrics.moment_retrieval import Protocol

UNIVTG = Protocol(
    {"short": (0, 10), "middle": (10, 30), "long": (30, math.inf), "full": None},
    recall_from=0.3,
    ranks=(1, 5),
    mean_iou=True,
    brief_recalls=(0.3, 0.5, 0.7),
    empty_range="all",
)
"""Lin et al., UniVTG (2023); MeCo (2025) uses the same."""


def vidchapters(ranges: Mapping[str, tuple[float, float] | None]) -> Protocol:
    """The protocol of VidChapters-7M (Yang et al., 2023) with the length ranges of one data set."""
    return Protocol(
        ranges,
        recall_from=0.3,
        start_distances=(1, 3, 5, 10),
        brief_recalls=(0.3, 0.5, 0.7, 0.9),
        empty_range="zero",
    )


VIDCHAPTERS = {
    "charades": vidchapters({"short": (0, 10), "middle": (10, 30), "full": None}),
    "activitynet": vidchapters({"short": (0, 30), "middle": (30, 60), "long": (60, 800), "full": (0, 800)}),
    "other": vidchapters({"short": (0, 60), "middle": (60, 180), "long": (180, 3600), "full": (0, 3600)}),
}

LIGHTHOUSE = Protocol({"full": (0, 1500)})
"""lighthouse (Nishimura et al., 2024) for data other than QVHighlights: one range, in which every moment lies."""


def protocol(evaluator: str, benchmark: str) -> Protocol | None:
    """What an evaluator of ranked windows reports for a benchmark; None for an evaluator of another kind."""
    data = next((name for name in ("charades", "activitynet") if benchmark.startswith(name)), "other")
    return {"lighthouse": LIGHTHOUSE, "univtg": UNIVTG, "vidchapters": VIDCHAPTERS[data]}.get(evaluator)
