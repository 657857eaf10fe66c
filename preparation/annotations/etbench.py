"""E.T. Bench: 12 tasks about events, with times in the questions as text (``txt``) or as ``<vid>`` tokens (``vid``).

``[{"version": 1.0, "idx": 0, "task": "tvg", "source": "qvhighlights", "video": "qvhighlights/a.mp4", "duration": 35.0,
"src": [1.2], "tgt": [[15.0, 31.0]], "p": 0, "o": ["a", "b"], "g": ["a cat .."], "q": "You are given a video .."}]``
"""

from collections import Counter
from pathlib import Path

from datamodules.schema import Query, Turn
from datamodules.skips import OnError
from preparation.annotations.files import Records, number
from preparation.annotations.meco_prompts import KEPT, Prompts, meco_question
from preparation.annotations.time_marks import TimeMarks, in_seconds

LAYOUT = "a list of {idx, task, source, video, duration, q} with src, tgt, p, o and g (etbench_txt_v1.0.json or vid)"
TASKS = {**dict.fromkeys(("tvg", "epm", "tal", "evs", "vhd", "tem"), "grounding"),
         **dict.fromkeys(("dvc", "slc"), "dense_captioning"),
         **dict.fromkeys(("rar", "eca", "rvq"), "qa"), "gvq": "grounded_qa"}  # fmt: skip


def read(
    path: Path, on_error: OnError = "fail", prompts: Prompts = "published", repair: bool = False
) -> tuple[list[Query], Counter[str]]:
    """Read the whole file.

    Args:
        path: one of the two published files.
        on_error: ``fail``, or ``skip`` to leave out samples that are wrong and count them.
        prompts: ``published``, or ``meco`` for the questions that MeCo asks instead.
        repair: mend windows that are reversed, overrun the video or have no length, and count them.

    Returns:
        One query a sample, with ``idx`` as its id: ``grounding`` (tvg, epm, tal, evs, vhd, tem), ``dense_captioning``
        (dvc, slc), ``qa`` (rar, eca, rvq) or ``grounded_qa`` (gvq). Its one turn asks in these words.
        And how many samples were left out for each reason, and how many questions could not be made MeCo's.

    Raises:
        ValueError: the file has another layout, or (``fail``) naming file, sample and what is wrong.
    """
    records = Records(path, on_error, LAYOUT, repair)
    for where, row in records.rows(("idx", "task", "video", "duration", "q")):
        with records.entry(where):
            if row["task"] not in TASKS:
                raise ValueError(f"unknown task: {row['task']!r}; known: {', '.join(TASKS)}")
            task, duration_s = TASKS[row["task"]], number(row["duration"], "duration")
            spans, video = list(_spans(row.get("tgt") or [])), str(Path(row["video"]).with_suffix(""))
            captions = row["g"] if task == "dense_captioning" else [""] * len(spans)
            if len(captions) != len(spans):
                raise ValueError(f"captions and windows differ: {len(captions)} and {len(spans)}")
            events = tuple(
                records.event(span, duration_s, text.strip().removesuffix("."))
                for span, text in zip(spans, captions, strict=True)
            )
            marks = TimeMarks(row.get("src") or [], paired=not len(row.get("src") or []) % 2)
            asked = meco_question(row, row["q"]) if prompts == "meco" else row["q"]
            if asked is None:
                records.notes[f"{KEPT}: {row['task']}, without the words at which MeCo cuts it"] += 1
                asked = row["q"]
            text, times = marks.replace(asked.strip())
            marks.finish()
            options, answer = (tuple(row["o"]), row["p"]) if task in ("qa", "grounded_qa") else ((), None)
            turns = (Turn(text, task=task, times=times),)
            published = in_seconds(row["q"].strip(), row.get("src") or [])
            query = Query(str(row["idx"]), video, task, published, events if task != "qa" else (), turns,
                          duration_s, options, answer, source=row.get("source", ""))  # fmt: skip
            records.add(query)
    return records.finish()


def _spans(target):
    """The windows in a target: one window, a list of them, or a list for each annotator."""
    if len(target) == 2 and not any(isinstance(item, (list, tuple)) for item in target):
        yield target
    else:
        for item in target:
            if not isinstance(item, (list, tuple)):
                raise ValueError(f"timestamps are not pairs of numbers: {target!r}")
            yield from _spans(item)
