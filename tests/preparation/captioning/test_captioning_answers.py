"""Which answers of models are taken, what a request is, and a cache that survives a kill."""

import hashlib
import json
import os
import shutil
from contextlib import closing
from pathlib import Path

import pytest

from datamodules.schema import Event, Turn
from preparation.captioning.asking import Asker, NotAsked
from preparation.captioning.cache import Answer, AnswerCache
from preparation.captioning.endpoint import Endpoint
from preparation.captioning.jobs import read_detail, read_dialogue, read_text
from preparation.captioning.quality import Malformed
from preparation.captioning.requests import Clip, Request
from preparation.world.rendering import render_clip

EVENTS = [Event(0, 5, "a red box"), Event(5.5, 9, "a 10 seconds dance")]


def as_json(*turns) -> str:
    return json.dumps({"turns": [{"question": question, "answer": answer} for question, answer in turns]})


def test_text_becomes_one_line():
    assert read_text("  A box,\n\n white < 3 > 2. ") == "A box, white < 3 > 2."
    longest = " ".join(f"A {number}th box moves to the left." for number in range(15, 29)) + " Then it"
    assert read_detail(longest) == longest
    assert read_detail('"A white box moves to the left."') == "A white box moves to the left."


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
        ("A \x00 box", "half a character"),
        ("A \ufffd box", "half a character"),
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
        (as_json(("When is it red?", "I'm sorry, I cannot tell."), ("And?", "At <s0>.")), "a refusal"),
        (as_json(("When is it red?", "**Red**: from <s0> on.")), "markup"),
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


def test_a_key_stands_for_everything_that_the_answer_depends_on(video, tmp_path, monkeypatch):
    """Without reading the file: its name, size and time of change stand for its content, its folder for nothing."""
    monkeypatch.setattr("preparation.captioning.requests.digest", None)
    moved, other, changed = (tmp_path / folder / video.name for folder in ("moved", "other", "changed"))
    for path, content in ((moved, video.read_bytes()), (other, b"\0" * 3), (changed, video.read_bytes())):
        path.parent.mkdir()
        path.write_bytes(content)
        shutil.copystat(video, path)
    os.utime(changed, (1e9, 1e9))
    renamed = shutil.copy2(video, tmp_path / "other.mp4")

    def key(client=None, prompt="hello", path=video, span=(1.0, 4.0), frames=4, size=64):
        return Request("caption", client or Asked(), prompt, Clip(Path(path), *span, frames, size)).key

    assert key() == key(client=Asked(url="http://elsewhere/v1")) == key(path=moved)
    others = [key(Asked("big")), key(Asked(seed=1)), key(prompt="bye"), key(span=(1.0, 4.5)), key(frames=5)]
    others += [key(path=path) for path in (other, changed, renamed)]
    others += [key(size=65), Request("condense", Asked(), "hello").key]
    assert len({key(), *others}) == 11


def test_answers_of_an_old_cache_are_found(video, tmp_path):
    """Its keys hold the digest of the video's content."""
    request = Request("caption", Asked(), "hello", Clip(video, 1.0, 4.0, 4, 64))
    clip = {"sha256": hashlib.sha256(video.read_bytes()).hexdigest()}
    clip |= {"start_s": 1.0, "end_s": 4.0, "frames": 4, "size": 64}
    about = {"model": "tiny", "options": {}, "prompt": "hello", "clip": clip}
    key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
    answer = {"text": "A white box moves.", "finish_reason": "stop"}
    line = {"key": key, "step": "caption", **about, "file": video.name, "answer": answer}
    (tmp_path / "old.jsonl").write_text(json.dumps(line) + "\n")
    with closing(AnswerCache(tmp_path / "old.jsonl")) as cache:
        assert Asker(cache).recall(request, read_text) == "A white box moves."
        cache.add(request.key, request.about(), Answer("It moves on."))
        assert Asker(cache).recall(request, refuse_first) == "It moves on."
    with closing(AnswerCache(tmp_path / "new.jsonl")) as cache, pytest.raises(NotAsked):
        Asker(cache).recall(request, read_text)


def refuse_first(text: str) -> str:
    if text.startswith("A white"):
        raise Malformed("says nothing")
    return text


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
