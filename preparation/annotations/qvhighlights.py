"""QVHighlights: moments of a sentence, and how salient each clip of 2 s is (three annotators, 0 to 4).

One line: ``{"qid": 2579, "query": "A girl ..", "duration": 150, "vid": "NUsG9BgSes0_210.0_360.0",
"relevant_windows": [[82, 150]], "relevant_clip_ids": [41, ..], "saliency_scores": [[1, 1, 2], ..]}``; the test split
has none of the last three.
"""

from collections import Counter
from dataclasses import replace
from pathlib import Path

from datamodules.schema import Query
from datamodules.skips import OnError
from preparation.annotations.files import Records, number

CLIP_S = 2.0
ANNOTATORS = 3

LAYOUT = (
    "one a line, {qid, query, duration, vid} with relevant_windows, relevant_clip_ids and saliency_scores where the "
    "split has them"
)


def read(path: Path, on_error: OnError = "fail", repair: bool = False) -> tuple[list[Query], Counter[str]]:
    """Read the whole file.

    Args:
        path: ``highlight_train_release.jsonl``, or that of another split.
        on_error: ``fail``, or ``skip`` to leave out lines that are wrong and count them.
        repair: mend windows that are reversed, overrun the video or have no length, and count them.

    Returns:
        One ``grounding`` query a line, with saliency where the split has any (clips that are not relevant score 0, as
        the official evaluator has it), and how many lines were left out for each reason.

    Raises:
        ValueError: the file has another layout, or (``fail``) naming file, line and what is wrong.
    """
    records = Records(path, on_error, LAYOUT, repair)
    for where, row in records.rows(("qid", "query", "vid", "duration")):
        with records.entry(where):
            duration_s = number(row["duration"], "duration")
            events = tuple(records.event(span, duration_s) for span in row.get("relevant_windows") or ())
            query = Query(str(row["qid"]), row["vid"], "grounding", row["query"].strip(), events, (), duration_s)
            records.add(replace(query, saliency=_saliency(row, duration_s), clip_s=CLIP_S))
    return records.finish()


def _saliency(row: dict, duration_s: float) -> tuple[tuple[float, ...], ...]:
    """Scores of every clip; empty where the line has none."""
    if "saliency_scores" not in row:
        return ()
    clips, scores = row["relevant_clip_ids"], row["saliency_scores"]
    if len(clips) != len(scores):
        raise ValueError(f"clips and scores differ in number: {len(clips)} and {len(scores)}")
    table = [(0.0,) * ANNOTATORS] * int(duration_s // CLIP_S)
    for clip, row_scores in zip(clips, scores, strict=True):
        if isinstance(clip, bool) or not isinstance(clip, int) or not 0 <= clip < len(table):
            raise ValueError(f"clip outside the video: {clip!r} of {len(table)}")
        if len(row_scores) != ANNOTATORS:
            raise ValueError(f"not {ANNOTATORS} scores: clip {clip} has {row_scores!r}")
        table[clip] = tuple(number(score, "score") for score in row_scores)
    return tuple(table)
