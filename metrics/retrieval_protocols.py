"""What the evaluators of moment retrieval report: length ranges, thresholds and ranks."""

import math
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Protocol:
    """What one evaluator of the field reports. Lengths in seconds."""

    ranges: Mapping[str, tuple[float, float] | None]
    """Range name -> (more than, at most); None keeps every target window."""
    recall_from: float = 0.5
    """R@k is reported at this threshold and every 0.05 above it, below 1."""
    ranks: tuple[int, ...] = (1,)
    mean_iou: bool = False
    start_distances: tuple[int, ...] = ()
    """R1@Ns: the start of the first window is at most N seconds off."""
    brief_recalls: tuple[float, ...] = (0.5, 0.7)
    empty_range: str = "raise"
    """Official treatment of a range without a query: ``raise``, ``zero``, or ``all`` queries."""
    max_windows: int = 10
    """Windows of a query that enter mAP."""

    @property
    def recall_thresholds(self) -> tuple[float, ...]:
        """The IoU thresholds of R@k."""
        steps = round((1 - self.recall_from) / 0.05)
        return tuple(round(self.recall_from + 0.05 * i, 2) for i in range(steps))


QVHIGHLIGHTS = Protocol({"short": (0, 10), "middle": (10, 30), "long": (30, 150), "full": None})
"""Lei et al., Detecting Moments and Highlights in Videos via Natural Language Queries (2021)."""
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
