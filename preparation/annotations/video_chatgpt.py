"""Video-ChatGPT's benchmark of video dialogue: questions with one reference answer, for a judge to score.

``[{"Q": "..", "A": "..", "video_name": "v_p1QGn0IzfW0"}]`` in ``generic_qa.json`` and ``temporal_qa.json``;
``{"Q1", "Q2", "A", "video_name"}`` in ``consistency_qa.json``, two questions with the same answer.
"""

from collections import Counter
from pathlib import Path
from typing import Literal

from datamodules.schema import Query, Turn
from datamodules.skips import OnError
from preparation.annotations.files import Records

LAYOUT = "a list of {Q, A, video_name}, or of {Q1, Q2, A, video_name}"
PAIRS = "consistency"
"""The part whose questions come in pairs, which are asked apart."""


def read(
    path: Path, on_error: OnError = "fail", subset: Literal["generic", "temporal", "consistency"] | None = None
) -> tuple[list[Query], Counter[str]]:
    """Read the whole file.

    Args:
        path: the published json.
        on_error: ``fail``, or ``skip`` to leave out questions that are wrong and count them.
        subset: which part of the benchmark it is, ``generic``, ``temporal`` or ``consistency``; None: as its name says.

    Returns:
        One ``dialogue`` of one turn a question; its source, ``video_chatgpt/generic`` and so on, says what a judge
        looks at. The two of a pair are ``VIDEO#PLACE.1`` and ``VIDEO#PLACE.2``. And what was left out for each reason.

    Raises:
        ValueError: the file has another layout or does not say which part it is, or (``fail``) naming file and place.
    """
    records = Records(path, on_error, LAYOUT)
    rows = records.rows(("A", "video_name"))
    kind = subset or next((name for name in ("generic", "temporal", PAIRS) if name in Path(path).name), None)
    if kind not in ("generic", "temporal", PAIRS):
        raise ValueError(f"{path}: which part of the benchmark is it? Give --subset generic, temporal or {PAIRS}")
    keys = ("Q1", "Q2") if kind == PAIRS else ("Q",)
    for place, (where, row) in enumerate(rows):
        with records.entry(where):
            for number, key in enumerate(keys, 1):
                asked, answer = row[key].strip(), row["A"].strip()
                if not asked or not answer:
                    raise ValueError(f"empty text: {row!r}")
                name = f"{row['video_name']}#{place}" + (f".{number}" if len(keys) > 1 else "")
                turns = (Turn(asked, answer),)
                records.add(Query(name, row["video_name"], "dialogue", turns=turns, source=f"video_chatgpt/{kind}"))
    return records.finish()
