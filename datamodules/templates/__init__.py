"""The wording of questions: one YAML file a task, one list of paraphrases a prompt style; and what one begins with."""

from functools import cache
from pathlib import Path

import yaml

from datamodules.markup import VIDEO, Text, any_of, literal

FOLDER = Path(__file__).parent
INTRODUCTIONS = {"vtimellm_paper": "This is a video with {frames} frames: <video>\n"}
"""Prompt style -> what stands in front of a first question (VTimeLLM, Box 2; the released code has the video alone)."""


@cache
def questions(task: str, style: str) -> tuple[str, ...]:
    """The paraphrases of a task in a prompt style; ``STYLE_eval`` holds the one of the published evaluation.

    Raises:
        ValueError: there is no such task or style; the message lists those there are.
    """
    path = FOLDER / f"{task}.yaml"
    if not path.is_file():
        raise ValueError(f"no templates for task {task!r}; there are {sorted(p.stem for p in FOLDER.glob('*.yaml'))}")
    styles = yaml.safe_load(path.read_text())
    if style not in styles:
        raise ValueError(f"{path.name} has no prompt style {style!r}; it has {sorted(styles)}")
    return tuple(styles[style])


def introduced(question: Text, style: str, frames: int) -> Text:
    """A first question behind what its style says of the video, unless the question itself has the video elsewhere."""
    if style not in INTRODUCTIONS:
        return question
    in_front = question.pieces[:1] == (VIDEO,) and VIDEO in question.tokens[:1] and question.startswith(f"{VIDEO}\n")
    asked = question.cut(len(VIDEO) + 1) if in_front else question
    if VIDEO in asked.tokens:
        return question
    return Text(literal(INTRODUCTIONS[style].replace("{frames}", str(frames)), any_of([VIDEO])), asked)
