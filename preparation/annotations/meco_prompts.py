"""MeCo's questions for E.T. Bench and E.T. Instruct. The published ones ask for times in a format; it writes none.

For E.T. Bench they are those of the released evaluation; for E.T. Instruct, which the paper asks in five wordings a
domain that are not released, those of this project's templates.

Source: MeCo, ``meco/eval/infer_etbench.py``.
"""

import re
from collections.abc import Mapping
from random import Random
from typing import Literal

from datamodules.markup import MARKER, fill
from datamodules.schema import Turn
from datamodules.templates import questions

Prompts = Literal["published", "meco"]
"""Whose questions: the file's own, or MeCo's in their place."""
KEPT = "question kept as published"
"""Begins what is counted where MeCo's question could not be made."""
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


TEMPLATES = {
    **{task: ("grounding", f"meco_{task}") for task in ("epm", "tal", "evs")},
    "tvg": ("grounding", "meco"),
    "vhd": ("highlights", "meco"),
    "dvc": ("dense_captioning", "meco"),
    "tvc": ("dense_captioning", "meco"),
    "slc": ("dense_captioning", "meco_slc"),
    "rvc": ("segment_captioning", "meco"),
    "gvq": ("grounded_qa", "meco"),
}
"""Task of E.T. Instruct -> templates and prompt style, of which one is drawn a sample: the paper has five a domain."""
ABOUT_FORMAT = re.compile(
    r"\b(?:the format of )?(?:your|the) (?:response|answer|output)s?\b.{0,20}\b(?:should|must|shall|format)|"
    r"\bfor example\b|\byou must\b|\bin the format\b",
    re.IGNORECASE,
)
"""Where a question begins to say how it wants to be answered; the examples there are in quotes, too."""
QUOTED = re.compile(r"""(?<!\w)(?:'(.+?)'|"([^"]+)"|‘(.+?)’|“([^”]+)”)(?!\w)""", re.DOTALL)
"""What a question is about."""
EXAMPLE = re.compile(r"<|\d\s*[-–]\s*\d|\bseconds\b|\b(?:start|end) time", re.IGNORECASE)
"""What is quoted is an example of an answer."""
OPTION = re.compile(r"\(([A-Z])\)\s*(.+?)\s*(?=\([A-Z]\)|\n|$|\.\s+[A-Z])", re.DOTALL)
ASKED = re.compile(r"[^.?!:'\"\n]+\?")


def meco_question(row: Mapping, question: str) -> str | None:
    """The question of MeCo's released evaluation for a sample of E.T. Bench.

    Args:
        row: the sample, with ``task``, ``source`` and, for gvq, its options ``o``.
        question: the published one; of a task that MeCo does not ask it stays.

    Returns:
        None: the published question lacks the words at which MeCo's code cuts it.
    """
    task = row["task"]
    if task == "gvq":
        if not row.get("o") or QUESTION not in question:
            return None
        asked = question.split(QUESTION)[1].split(OPTIONS)[0]
        options = " ".join(f"({letter}) {option}" for letter, option in zip("ABCDE", row["o"], strict=False))
        return str(fill(GROUNDED, {"question": asked, "options": options}))
    if task not in INSTRUCTIONS:
        return question
    end, instruction = INSTRUCTIONS[task]
    if end not in question:
        return None
    kept = question.split(end)[0]
    if end == FORMAT:
        kept = kept.replace("visual event", "clip")
    return f"{kept}{instruction}{DENSE_STYLE.get(row.get('source'), '') if task == 'dvc' else ''}"


def meco_training_question(turn: Turn, row: Mapping, random: Random) -> str | None:
    """The question of a sample of E.T. Instruct in the words of a template, without a format for times.

    Args:
        turn: with the published question. What it is about is taken from it: its first words in quotes; of gvq the
            sentence before the options, and these.
        row: the sample, with its ``task``.
        random: draws the template.

    Returns:
        None: what the published question is about was not found, or it holds times that the template has no place for.
    """
    template = random.choice(questions(*TEMPLATES[row["task"]]))
    if set(MARKER.findall(turn.question)) != set(MARKER.findall(template)):
        return None
    if "{question}" in template:
        options, asked = OPTION.findall(turn.question), ASKED.findall(turn.question.partition("(A)")[0])
        if not (options and asked):
            return None
        one_line = " ".join(f"({letter}) {text}" for letter, text in options)
        return str(fill(template, {"question": asked[-1].strip(), "options in one line": one_line}))
    if "{sentence}" in template or "{caption}" in template:
        topic = _topic(turn.question)
        return str(fill(template, {"sentence": topic, "caption": topic})) if topic else None
    return template


def _topic(question: str) -> str:
    """What a question is about, without its full stop; empty where that is not in quotes."""
    found = QUOTED.search(ABOUT_FORMAT.split(question)[0])
    topic = found[found.lastindex].strip().removesuffix(".") if found else ""
    return "" if EXAMPLE.search(topic) else topic
