"""NExT-QA, multiple choice, and the questions of NExT-GQA, which use the same columns.

``video,frame_count,width,height,question,answer,qid,type,a0,a1,a2,a3,a4``: the answer is the number of an option in
NExT-QA; NExT-GQA writes its text, and ``video_id`` for ``video``.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from datamodules.schema import Query
from datamodules.skips import OnError
from preparation.annotations.durations import read_durations
from preparation.annotations.files import Records

LAYOUT = "a csv with the columns video (or video_id), question, answer, qid, a0 .. a4"
OPTIONS = ("a0", "a1", "a2", "a3", "a4")


def read(path: Path, on_error: OnError = "fail", durations: Path | None = None) -> tuple[list[Query], Counter[str]]:
    """Read the whole file.

    Args:
        path: the published csv.
        on_error: ``fail``, or ``skip`` to leave out questions that are wrong and count them.
        durations: file with the length of each video, where it should go into the queries.

    Returns:
        One ``qa`` query a question, with the id ``VIDEO_QID``, and how many were left out for each reason.

    Raises:
        ValueError: the file has other columns, or (``fail``) naming file, line and what is wrong.
    """
    records = Records(path, on_error, LAYOUT)
    lengths = read_durations(durations) if durations else {}
    for where, row in records.rows(("question", "answer", "qid", *OPTIONS)):
        with records.entry(where):
            query = question(row)
            records.add(replace(query, duration_s=lengths.get(query.video)))
    return records.finish()


def question(row: Mapping[str, str]) -> Query:
    """The ``qa`` query of one row. Raises ValueError for an answer that is not among the options."""
    video = row["video"] if "video" in row else row["video_id"]
    options, answer = tuple(row[key].strip() for key in OPTIONS), row["answer"].strip()
    if answer in options:
        place = options.index(answer)
    elif answer.isdecimal() and int(answer) < len(options):
        place = int(answer)
    else:
        raise ValueError(f"answer is no option: {answer!r} of {options}")
    return Query(f"{video}_{row['qid']}", video, "qa", row["question"].strip(), options=options, answer=place)
