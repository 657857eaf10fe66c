"""MeCo's questions for E.T. Bench and E.T. Instruct. The published ones ask for times in a format; it writes none.

Source: MeCo, ``meco/eval/infer_etbench.py``.
"""

from collections.abc import Mapping
from typing import Literal

from datamodules.markup import fill

Prompts = Literal["published", "meco"]
"""Whose questions: the file's own, or MeCo's in their place."""
FORMAT, WATCH = "The format of your response should", "Watch the video carefully"
"""Words with which the part of a published question begins that MeCo replaces."""
DENSE = (
    "Densely summarize the video by localizing clips that depict a series of major activity events and briefly "
    "describing each event."
)
INSTRUCTIONS = {
    "tvg": (FORMAT, "Provide a detailed description of the clip."),
    "epm": (FORMAT, "Provide a detailed description of the clip and give the answer."),
    "tal": (
        FORMAT,
        "Provide a concise description for each clip with action-centric temporal and spatial details.",
    ),
    "vhd": (
        FORMAT,
        "Provide a detailed summary rich in important visual activities for the user to better understand the moment.",
    ),
    "tem": (FORMAT, "Provide a detailed description of the moment."),
    "evs": (
        WATCH,
        "Summarize the video into a brief synopsis by focusing on the clips that contain the most important visual "
        "cues related to the topic.",
    ),
    "slc": (
        WATCH,
        "Localize a series of clips that contain the major steps in the video and briefly describe each clip.",
    ),
    "dvc": (WATCH, DENSE),
}
"""Task -> where the published question is cut, and what stands there instead."""
DENSE_STYLE = {
    "hirest": " The event descriptions should start with action verbs.",
    "youcook2": " The event descriptions should be in an imperative form.",
}
QUESTION, OPTIONS = "Now I give you the question: ", ". The options are"
"""What stands around the question itself in a published gvq question."""
GROUNDED = (
    "Watch the video carefully with the question {question} in mind and find the clip that contains the answer. "
    "Provide your analysis of the clip that supports your answer and finally provide the answer by choosing from the "
    "given options and end your response with 'Therefore, the answer is ...'. Here are the options:\n{options}"
)


def meco_question(row: Mapping, question: str) -> str:
    """MeCo's question for a sample; the published one of a task that MeCo does not ask.

    Args:
        row: the sample, with ``task``, ``source`` and, for gvq, its options ``o``.
        question: the published one.
    """
    task = row["task"]
    if task == "gvq" and row.get("o") and QUESTION in question:
        asked = question.split(QUESTION)[1].split(OPTIONS)[0]
        options = " ".join(f"({letter}) {option}" for letter, option in zip("ABCDE", row["o"], strict=False))
        return str(fill(GROUNDED, {"question": asked, "options": options}))
    if task not in INSTRUCTIONS:
        return question
    end, instruction = INSTRUCTIONS[task]
    kept = question.split(end)[0]
    if end == FORMAT:
        kept = kept.replace("visual event", "clip")
    return f"{kept}{instruction}{DENSE_STYLE.get(row.get('source'), '') if task == 'dvc' else ''}"
