"""LLaVA's image captions (LCS-558K) and Video-ChatGPT's VideoInstruct100K, as dialogues without times.

``blip_laion_cc_sbu_558k.json``: ``[{"id": "004539375", "image": "00453/004539375.jpg", "conversations": [{"from":
"human", "value": "Give a summary.\\n<image>"}, {"from": "gpt", "value": ".."}]}]``, which VTimeLLM's reader knows;
``VideoInstruct100K.json``: ``[{"q": "..", "a": "..", "video_id": "v_p1QGn0IzfW0"}]``.
"""

from collections import Counter
from pathlib import Path

from datamodules.schema import Query, Turn
from datamodules.skips import OnError
from preparation.annotations import vtimellm
from preparation.annotations.files import Records

LAYOUTS = "a list of {id, conversations: [{from, value}]}, or of {q, a, video_id}"


def read(path: Path, on_error: OnError = "fail") -> tuple[list[Query], Counter[str]]:
    """Read the whole file.

    Args:
        path: the published json.
        on_error: ``fail``, or ``skip`` to leave out dialogues that are wrong and count them.

    Returns:
        One ``dialogue`` a sample, with the id ``VIDEO#PLACE``, and how many were left out for each reason.

    Raises:
        ValueError: the file has another layout, or (``fail``) naming file, place and what is wrong.
    """
    records = Records(path, on_error, LAYOUTS)
    rows = records.rows(())
    if {"id", "conversations"} <= set(rows[0][1]):
        return vtimellm.read(path, on_error)
    if not {"q", "a", "video_id"} <= set(rows[0][1]):
        raise records.refuse([row for _, row in rows])
    for place, (where, row) in enumerate(rows):
        with records.entry(where):
            asked, said = row["q"].strip(), row["a"].strip()
            if not asked or not said:
                raise ValueError(f"empty text: {row!r}")
            turns = (Turn(asked, said),)
            records.add(Query(f"{row['video_id']}#{place}", row["video_id"], "dialogue", turns=turns))
    return records.finish()
