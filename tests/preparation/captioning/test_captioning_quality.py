"""Which descriptions are taken: answers of every kind that models give instead, and good ones that look like them."""

import json
from pathlib import Path

import pytest
import yaml

from preparation.captioning.jobs import read_description, read_detail
from preparation.captioning.language import content_words, is_foreign
from preparation.captioning.quality import Malformed, check_reply

ANSWERS = yaml.safe_load(Path(__file__).with_name("answers.yaml").read_text(encoding="utf-8"))
QUERY = "a man opens the door"


def refused_for(answer: str, known: str = QUERY) -> str:
    try:
        read_detail(answer, known)
    except Malformed as error:
        return error.reason
    return ""


@pytest.mark.parametrize("reason", list(ANSWERS["refused"]))
def test_what_is_no_description_is_refused(reason):
    found = {answer: refused_for(answer) for answer in ANSWERS["refused"][reason]}
    assert not {answer: other for answer, other in found.items() if other != reason}


def test_descriptions_are_taken_as_they_are():
    assert not {answer: reason for answer in ANSWERS["taken"] if (reason := refused_for(answer))}
    assert [read_detail(answer, QUERY) for answer in ANSWERS["taken"]] == ANSWERS["taken"]


def test_few_of_the_captions_that_people_wrote_are_refused(real):
    """They were not told what a model is told, and say "we see" and "the video ends" now and then."""
    content = json.loads(real("annotations/activitynet_captions_val_2.json").read_text())
    captions = [caption for video in content.values() for caption in video["sentences"]]
    assert sum(bool(refused_for(caption, "")) for caption in captions) < 0.04 * len(captions)


def test_what_the_data_says_may_be_said():
    assert refused_for("He holds the plank for 30 seconds beside a blue mat.") == "a time is written out"
    assert not refused_for("He holds the plank for 30 seconds beside a blue mat.", "a plank for 30 seconds")
    assert not refused_for("Un hombre abre la puerta con una llave dorada.", "un hombre abre la puerta de la casa")
    assert not refused_for("一个男人打开了门 然后 走进 厨房", "一个男人打开了门")


@pytest.mark.parametrize(
    ("answer", "known", "copy"),
    [
        ("A box moves.", "a red box", False),
        ("The box, a red one.", "a red box", True),
        ("The men are running to their cars.", "man runs to car", False),  # men, man
        ("He runs to the cars.", "man runs to his car", True),
        ("What the man holds is what he holds in the hands.", "what does the man hold in his hand?", True),
        ("A red kettle stands in his left hand as steam rises.", "what does the man hold in his hand?", False),
        ("Anything goes when nothing is known of it.", "", False),
    ],
)
def test_copies_are_told_by_the_words_that_carry_meaning(answer, known, copy):
    assert (refused_for(answer, known) == "a copy of the query") == copy


def test_a_description_of_a_clip_may_say_more():
    """It is read by another model: speaking of the clip does no harm there."""
    long = (
        "The video shows a man at a desk. In the first frame he types; at 0:05 he looks up. There is no additional "
        "information on the screen, and it is difficult to tell what he reads."
    )
    assert read_description(long) == long
    for answer in ("I'm sorry, I cannot see. The man is there.", "N/A", "No description available.", "一个男人"):
        with pytest.raises(Malformed):
            read_description(answer)


@pytest.mark.parametrize(
    "reply", ["I'm sorry, I cannot tell.", "**From** the start.", "Von Anfang an sieht man die Tür und das Haus."]
)
def test_replies_in_dialogues(reply):
    check_reply("It can be seen from to. You see a man, and I think he is glad.")
    with pytest.raises(Malformed):
        check_reply(reply)


def test_stems():
    assert content_words("The man's dogs are running, and he opened the opening door") == [
        "man", "dog", "run", "open", "open", "door",
    ]  # fmt: skip


def test_one_foreign_sentence_is_enough():
    assert is_foreign("A man opens the door. Luego entra en la cocina de la casa.")
    assert not is_foreign("A man opens the door of the El Paso cantina.")
    assert not is_foreign("She eats a crème brûlée in a café by the sea.")
