"""YouTube Highlights as UMT published it: every clip of a video is a highlight (1) or not (0 or -1).

One line: ``{"vid": "fXx44D1sqUw", "domain": "dog", "duration": 126, "label": [[0], [1], ..]}``.
"""

from collections import Counter
from pathlib import Path

from datamodules.schema import Query
from datamodules.skips import OnError
from preparation.annotations import tvsum


def read(path: Path, on_error: OnError = "fail") -> tuple[list[Query], Counter[str]]:
    """Read the whole file: TVSum's layout with one score a clip.

    Args:
        path: the published file.
        on_error: ``fail``, or ``skip`` to leave out videos that are wrong and count them.

    Returns:
        One ``highlights`` query a video, and how many videos were left out for each reason.

    Raises:
        ValueError: the file has another layout, or (``fail``) naming file, place and what is wrong.
    """
    return tvsum.read(path, on_error, annotators=1)
