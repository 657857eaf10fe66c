"""TVSum as UMT published it: every clip of a video scored by 20 annotators, 1 to 5.

One line: ``{"vid": "sTEELN-vY30", "domain": "VU", "query": "..", "duration": 149, "label": [[5, 3, ..], ..]}``
(query and duration are not always there).
"""

from collections import Counter
from pathlib import Path

from datamodules.schema import Query
from datamodules.skips import OnError
from preparation.annotations.files import Records, number

LAYOUT = "a jsonl, or a list, of {vid, label: clips x annotators} with domain, query and duration where known"
CLIP_S = 2.0


def read(path: Path, on_error: OnError = "fail", annotators: int | None = 20) -> tuple[list[Query], Counter[str]]:
    """Read the whole file.

    Args:
        path: the published file.
        on_error: ``fail``, or ``skip`` to leave out videos that are wrong and count them.
        annotators: scores that each clip must have; None: as many as the first clip of the video.

    Returns:
        One ``highlights`` query a video (its text is the query, or else the domain), and how many videos were left
        out for each reason. Clips last 2 s; where ``duration`` says otherwise, the duration over their number.

    Raises:
        ValueError: the file has another layout, or (``fail``) naming file, place and what is wrong.
    """
    records = Records(path, on_error, LAYOUT)
    for where, row in records.rows(("vid", "label")):
        with records.entry(where):
            labels = tuple(tuple(number(score, "score") for score in clip) for clip in row["label"])
            wanted = annotators or len(labels[0])
            if wrong := [k for k, clip in enumerate(labels) if len(clip) != wanted]:
                raise ValueError(f"not {wanted} scores: clip {wrong[0]} has {len(labels[wrong[0]])}")
            duration_s = None if row.get("duration") is None else number(row["duration"], "duration")
            clip_s = CLIP_S
            if duration_s is not None and abs(len(labels) * CLIP_S - duration_s) > CLIP_S:
                clip_s = duration_s / len(labels)
            text = (row.get("query") or row.get("domain") or "").strip()
            query = Query(row["vid"], row["vid"], "highlights", text, duration_s=duration_s,
                          saliency=labels, clip_s=clip_s)  # fmt: skip
            records.add(query)
    return records.finish()
