"""E.T. Instruct 164K: dialogues about events, with times as text (``txt``) or as ``<vid>`` tokens (``vid``).

``[{"task": "tvg", "source": "queryd", "video": "queryd/abc.mp4", "duration": 20.0, "src": [..], "tgt": [5.2, 11.7],
"conversations": [{"from": "human", "value": "<image>\\nFind .."}, {"from": "gpt", "value": "<vid> - <vid>"}]}]``;
MeCo's own files write ``A man walks.<ent>`` for an answer, and may give ``windows``.
"""

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from random import Random

from datamodules.schema import Event, Query, Turn
from datamodules.skips import OnError
from preparation.annotations.files import Records, number, repaired_times
from preparation.annotations.meco_prompts import KEPT, Prompts, meco_training_question
from preparation.annotations.time_marks import TimeMarks

LAYOUT = "a list of {task, video, duration, conversations} with src and tgt (et_instruct_164k_txt.json or .._vid.json)"
PAIRS = ("tvg", "tal", "evs", "gvq", "slc", "dvc", "epm")
TASKS = {**dict.fromkeys(("tvg", "tal", "evs", "gvq", "epm", "vhd"), "grounding"), "rvc": "segment_captioning",
         **dict.fromkeys(("slc", "dvc", "tvc"), "dense_captioning")}  # fmt: skip
HIGHLIGHT_S = 2.0
QUOTED = re.compile(r"(?<!\w)'(.+?)'(?!\w)")
"""What a question is about: the first words in quotes."""
SPAN = re.compile(r"<s\d+>(?:[^<]{1,5}<e\d+>)?(?:\s*seconds?\b)?[\s,:;.]*")


def read(
    path: Path, on_error: OnError = "fail", prompts: Prompts = "published", repair: bool = False
) -> tuple[list[Query], Counter[str]]:
    """Read the whole file.

    Args:
        path: one of the two published files, or one in MeCo's layout.
        on_error: ``fail``, or ``skip`` to leave out samples that are wrong and count them.
        prompts: ``published``, or ``meco`` for questions as MeCo asks them, in one of the wordings of the templates.
        repair: mend windows that are reversed, overrun the video or have no length, and count them.

    Returns:
        One ``dialogue`` a sample, with the id ``VIDEO#PLACE``; its last turn holds the sample's windows as events.
        Answers keep their words, with markers for times; an answer with ``<ent>`` becomes None and its captions the
        events' ``detail``, so that every localizer can write it. And how many samples were left out for each reason,
        and how many questions could not be made MeCo's.

    Raises:
        ValueError: the file has another layout, or (``fail``) naming file, sample and what is wrong.

    Source: MeCo, ``meco/train/train.py`` (windows of each task).
    """
    records = Records(path, on_error, LAYOUT, repair)
    for place, (where, row) in enumerate(records.rows(("task", "video", "duration", "conversations"))):
        with records.entry(where):
            if row["task"] not in TASKS:
                raise ValueError(f"unknown task: {row['task']!r}; known: {', '.join(TASKS)}")
            duration_s, video = number(row["duration"], "duration"), str(Path(row["video"]).with_suffix(""))
            events = tuple(records.event(span, duration_s) for span in windows(row, duration_s))
            name, source = f"{video}#{place}", row.get("source", "")
            turns = _turns(row, events)
            if repair:  # what is wrong was counted with the events
                turns = tuple(replace(turn, times=repaired_times(turn.times, duration_s)[0]) for turn in turns)
            if prompts == "meco" and not _made_by_meco(row):
                turns = (_asked_by_meco(turns[0], row, name, records.notes), *turns[1:])
            records.add(Query(name, video, "dialogue", turns=turns, duration_s=duration_s, source=source))
    return records.finish()


def windows(row: dict, duration_s: float) -> list[tuple[float, float]]:
    """The event windows of a sample in seconds, before any clamping to frames. Raises ValueError for odd times."""
    if "windows" in row:
        return row["windows"]
    task, times_s = row["task"], row.get("src" if row["task"] == "rvc" else "tgt") or []
    times_s = [number(time_s, "time") for time_s in times_s]
    if not times_s:
        raise ValueError(f"no times: task {task}")
    if task == "vhd":
        return [(time_s, min(time_s + HIGHLIGHT_S, duration_s)) for time_s in times_s]
    if task == "tvc":
        return list(zip(times_s, [*times_s[1:], max(duration_s - 1, times_s[-1] + 1)], strict=True))
    if len(times_s) % 2:
        raise ValueError(f"odd number of times: {times_s} for task {task}")
    return list(zip(times_s[::2], times_s[1::2], strict=True))


def _turns(row: dict, events: tuple[Event, ...]) -> tuple[Turn, ...]:
    texts = [turn["value"].strip() for turn in row["conversations"]]
    if [turn["from"] for turn in row["conversations"]] != ["human", "gpt"] * (len(texts) // 2) or not all(texts):
        raise ValueError(f"questions and answers do not alternate: {texts}")
    if len(texts) < 2:
        raise ValueError("no question with an answer")
    texts[0] = texts[0].replace("<image>", "", 1).strip()
    found = QUOTED.search(texts[0]) if row["task"] == "tvg" else None
    topic = found[1].removesuffix(".") if found else ""
    asked = TimeMarks(row.get("src") or [], row["task"] == "rvc" or not len(row.get("src") or []) % 2)
    questions = [asked.replace(text) for text in texts[::2]]
    said = TimeMarks(row.get("tgt") or [], row["task"] in PAIRS, asked.finish())
    if any("<ent>" in text for text in texts[1::2]):
        if len(texts) > 2:
            raise ValueError(f"several turns with <ent>: {texts}")
        (question, times), task = questions[0], TASKS[row["task"]]
        return (Turn(question, None, task, _detailed(events, texts[1]), topic, times),)
    answers = [said.replace(text) for text in texts[1::2]]
    said.finish()
    turns = [Turn(q, a, TASKS[row["task"]], times={**times, **more})
             for (q, times), (a, more) in zip(questions, answers, strict=True)]  # fmt: skip
    last = turns[-1]
    captions = [last.answer] if last.task == "segment_captioning" else SPAN.split(last.answer)[1:]
    if last.task != "grounding" and len(captions) == len(events) and all(text.strip() for text in captions):
        pairs = zip(events, captions, strict=True)
        events = tuple(Event(*event.span, text.strip().removesuffix(".")) for event, text in pairs)
    return (*turns[:-1], replace(last, events=events, topic=topic))


def _made_by_meco(row: dict) -> bool:
    """Whether a sample is in MeCo's own layout, in which the question is MeCo's already."""
    return any("<ent>" in turn["value"] for turn in row["conversations"][1::2])


def _asked_by_meco(turn: Turn, row: dict, name: str, notes: Counter[str]) -> Turn:
    """A turn with MeCo's question, or as it is where that cannot be made, which is noted."""
    question = meco_training_question(turn, row, Random(name))
    if question is None:
        notes[f"{KEPT}: {row['task']}, does not say in quotes what it is about, or holds times"] += 1
        return turn
    return replace(turn, question=question)


def _detailed(events: tuple[Event, ...], answer: str) -> tuple[Event, ...]:
    """Events with the captions of a MeCo answer; what follows the last ``<ent>`` belongs to the last event.

    Transitions are left out: the localizer writes them anew.
    """
    *captions, rest = (text.strip() for text in answer.replace("<tst>", "").split("<ent>"))
    if len(captions) != len(events):
        raise ValueError(f"captions and windows differ: {len(captions)} and {len(events)}")
    if not all(captions):
        raise ValueError(f"an <ent> without a text before it: {answer!r}")
    captions[-1] = f"{captions[-1]} {rest}".strip()
    return tuple(Event(*event.span, detail=text) for event, text in zip(events, captions, strict=True))
