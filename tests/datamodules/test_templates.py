"""The wording of questions is there for every style, and has places for what it asks about."""

import re

import pytest
import yaml

from datamodules.templates import FOLDER, questions
from preparation.annotations.meco_prompts import TEMPLATES

TASKS = sorted(path.stem for path in FOLDER.glob("*.yaml"))
STYLES = {"vtimellm", "videoexpert", "meco", "etchat", "sentence"}
CONVERTED = {style for _, style in TEMPLATES.values()} - STYLES
"""Wordings that converters alone use; nothing is asked in them for an evaluation."""
PLACES = {"{caption}", "{sentence}", "{text}", "{question}", "{options}", "{options in one line}"}


@pytest.mark.parametrize("task", TASKS)
def test_questions_are_texts_with_places_that_are_filled(task):
    styles = yaml.safe_load((FOLDER / f"{task}.yaml").read_text())
    assert {*STYLES, *(f"{style}_eval" for style in STYLES)} <= set(styles)
    for style in styles:
        for question in questions(task, style):
            assert isinstance(question, str)
            assert set(re.findall(r"\{[a-z ]*\}", question)) <= PLACES
        assert style in CONVERTED or f"{style.removesuffix('_eval')}_eval" in styles


@pytest.mark.parametrize("style", ["meco", "etchat"])
@pytest.mark.parametrize("task", TASKS)
def test_five_wordings_a_task_are_learned(task, style):
    assert len(questions(task, style)) >= 5
