"""Which answers of models are taken, what a request is, and a cache that survives a kill."""

import json
from pathlib import Path

import pytest

from datamodules.schema import Event, Turn
from preparation.captioning.cache import Answer, AnswerCache
from preparation.captioning.endpoint import Endpoint
from preparation.captioning.jobs import read_detail, read_dialogue, read_text
from preparation.captioning.requests import Clip, Request
from preparation.world.rendering import render_clip

EVENTS = [Event(0, 5, "a red box"), Event(5.5, 9, "a 10 seconds dance")]


def as_json(*turns) -> str:
    return json.dumps({"turns": [{"question": question, "answer": answer} for question, answer in turns]})


def test_text_becomes_one_line():
    assert read_text("  A box,\n\n white < 3 > 2. ") == "A box, white < 3 > 2."
    assert read_detail("word " * 100).count("word") == 100


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (" \n", "empty"),
        ("word " * 101, "101 words"),
        ("A box.</s>", "tag </s>"),
        ("A box. <|im_end|>", "tag"),
        ("From <s0> on.", "tag <s0>"),
        ("<think>hm</think> A box.", "tag <think>"),
        ("A \ud83d box", "half a character"),
    ],
)
def test_malformed_details(answer, problem):
    with pytest.raises(ValueError, match=problem):
        read_detail(answer)


@pytest.mark.parametrize("wrap", ["{}", "Sure!\n```json\n{}\n```", "```\n{}```"])
def test_dialogue(wrap):
    text = as_json(("When is it red?", "From <s0> to\n<e0>."), ("And between <s0> and <s1>?", "A 10 seconds dance."))
    turns = read_dialogue(wrap.replace("{}", text), EVENTS)
    assert turns == (
        Turn("When is it red?", "From <s0> to <e0>.", times={"<s0>": 0, "<e0>": 5}),
        Turn("And between <s0> and <s1>?", "A 10 seconds dance.", times={"<s0>": 0, "<s1>": 5.5}),
    )


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ("When? From <s0>.", "not JSON"),
        ("[1]", "not a list of turns"),
        ('{"turns": 3}', "not a list of turns"),
        ('{"turns": []}', "no turn has a time marker"),
        ('{"turns": [{"question": "When?"}]}', "not a list of turns"),
        (as_json(("What is it?", "A box.")), "no turn has a time marker"),
        (as_json(("When?", "")), "empty"),
        (as_json(("When?", "From <s2> on.")), "tag <s2>"),
        (as_json(("When?", "<video> <s0>")), "tag <video>"),
        (as_json(("When?", "At <s0>, for 12 seconds.")), "written out .12 seconds"),
        (as_json(("When?", "At <s0>, which is 0:35.")), "written out .0:35"),
        (as_json(("When, in frame 12?", "At <s0>.")), "written out .frame 1"),
    ],
)
def test_malformed_dialogues(answer, problem):
    with pytest.raises(ValueError, match=problem):
        read_dialogue(answer, EVENTS)


class Asked:
    """Stands for a client where nothing is sent."""

    def __init__(self, model: str = "tiny", url: str | None = None, **options):
        self.endpoint = Endpoint(model, url, options=options)


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> Path:
    pytest.importorskip("av", reason="PyAV renders the clip (extra dev)")
    path = tmp_path_factory.mktemp("videos") / "clip.mp4"
    render_clip(path)
    return path


def test_a_key_stands_for_everything_that_the_answer_depends_on(video, tmp_path):
    copy, other = tmp_path / "copy.mp4", tmp_path / "other.mp4"
    copy.write_bytes(video.read_bytes())
    other.write_bytes(video.read_bytes() + b"\0")

    def key(client=None, prompt="hello", path=video, span=(1.0, 4.0), frames=4, size=64):
        return Request("caption", client or Asked(), prompt, Clip(path, *span, frames, size)).key

    assert key() == key(client=Asked(url="http://elsewhere/v1")) == key(path=copy)
    others = [key(Asked("big")), key(Asked(seed=1)), key(prompt="bye"), key(path=other), key(span=(1.0, 4.5))]
    others += [key(frames=5), key(size=65), Request("condense", Asked(), "hello").key]
    assert len({key(), *others}) == 9


def test_pictures_of_a_clip(video):
    assert len(Clip(video, 1.0, 4.0, 4, 64).images()) == 4
    assert len(Clip(video, 1.0, 1.15, 8, 64).images()) == 2  # no frame twice
    with pytest.raises(ValueError, match="is empty"):
        Clip(video, 13.0, 14.0, 4, 64).images()


@pytest.mark.parametrize("half", [b'{"key": "c", "answ', b'{"key": "c", "answer": {"txt": "C"}}', b"\xff"])
def test_a_half_written_line_is_cut_off(tmp_path, half):
    path = tmp_path / "requests.jsonl"
    cache = AnswerCache(path)
    cache.add("a", {"prompt": "p\u00e9"}, Answer("A \ud83d"))
    cache.add("a", {}, Answer("B"))
    cache.close()
    whole = path.read_bytes()
    path.write_bytes(whole + half)
    cache = AnswerCache(path)
    assert cache.answers("a") == (Answer("A \ud83d"), Answer("B"))
    assert cache.answers("c") == ()
    cache.add("c", {}, Answer("C"))
    cache.close()
    lines = path.read_bytes().splitlines(keepends=True)
    assert b"".join(lines[:2]) == whole
    assert json.loads(lines[2])["answer"]["text"] == "C"


def test_a_whole_last_line_is_kept(tmp_path):
    path = tmp_path / "requests.jsonl"
    path.write_text('{"key": "a", "answer": {"text": "A"}}')
    for text in ("B", "C"):
        cache = AnswerCache(path)
        cache.add("a", {}, Answer(text))
        cache.close()
    cache = AnswerCache(path)
    assert [answer.text for answer in cache.answers("a")] == ["A", "B", "C"]
    cache.close()


def test_a_cache_is_refused(tmp_path):
    path = tmp_path / "requests.jsonl"
    cache = AnswerCache(path)
    with pytest.raises(ValueError, match="another run is writing here"):
        AnswerCache(path)
    cache.close()
    path.write_text('{"key": "a"}\n{}\n')
    with pytest.raises(ValueError, match="requests.jsonl, line 1: not a recorded answer"):
        AnswerCache(path)
