"""NExT-GQA: questions with the moments that show the answer.

Questions: the csv of NExT-QA with the answer as text. Moments, ``gsub_val.json``: ``{"10001787725": {"duration": 34,
"fps": 29.97, "location": {"1": [[1.2, 5.8]]}}}``, by video and question.
"""

from collections import Counter
from dataclasses import replace
from pathlib import Path

from datamodules.schema import Query
from datamodules.skips import OnError
from preparation.annotations.files import Records, number, read_json
from preparation.annotations.nextqa import LAYOUT, OPTIONS, question


def read(
    path: Path, on_error: OnError = "fail", grounding: Path | None = None, repair: bool = False
) -> tuple[list[Query], Counter[str]]:
    """Read questions and moments.

    Args:
        path: the csv with the questions.
        on_error: ``fail``, or ``skip`` to leave out questions that are wrong and count them.
        grounding: the json with the moments.
        repair: mend windows that are reversed, overrun the video or have no length, and count them.

    Returns:
        One ``grounded_qa`` query a question, with the id ``VIDEO_QID``, and how many were left out for each reason.

    Raises:
        ValueError: no moments given, another layout, or (``fail``) naming file, place and what is wrong.
    """
    if not grounding:
        raise ValueError("nextgqa needs the moments: --grounding gsub_val.json (without moments, read it as nextqa)")
    records = Records(path, on_error, LAYOUT, repair)
    rows, moments, used = records.rows(("question", "answer", "qid", *OPTIONS)), read_json(grounding), set()
    first = next(iter(moments.values()), None) if isinstance(moments, dict) else None
    if not isinstance(first, dict) or not {"duration", "location"} <= set(first):
        layout = "{video: {duration, location: {question: [[start, end]]}}}"
        raise Records(grounding, on_error, layout).refuse(moments)
    for where, row in rows:
        with records.entry(where):
            asked = question(row)
            entry = moments.get(asked.video, {"location": {}})
            if not (spans := entry["location"].get(row["qid"])):
                raise ValueError(f"question without a moment: {asked.id} is not in {grounding}")
            used.add(asked.id)
            duration_s = number(entry["duration"], "duration")
            events = tuple(records.event(span, duration_s) for span in spans)
            records.add(replace(asked, task="grounded_qa", events=events, duration_s=duration_s))
    for video, entry in moments.items():
        for name in entry.get("location", {}):
            if f"{video}_{name}" not in used:
                records.skips.add(f"{grounding}, video {video!r}", "moment without a question", f"question {name}")
    return records.finish()
