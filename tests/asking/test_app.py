"""The app as people use it: a video goes up, a question is typed, the answer plays. And what it refuses."""

import socket
import time
from dataclasses import replace

import pytest

import ask
from asking.app import HOST, build, check_port, framed
from asking.model import Model
from lightning_modules.answering import Generation
from lightning_modules.trained import TrainedModel


@pytest.fixture
def model(watcher, tmp_path, monkeypatch) -> Model:
    """The tiny model, made to find from second 9 on."""
    plain = TrainedModel.answer
    spans = ((9.0, 11.5, 1.0),)
    monkeypatch.setattr(
        TrainedModel, "answer", lambda self, prompts: [replace(one, spans=spans) for one in plain(self, prompts)]
    )
    return Model(watcher, generation=Generation(max_new_tokens=4), cache=tmp_path / "cache")


@pytest.fixture
def address(model, tmp_path):
    """Where the app runs."""
    pytest.importorskip("gradio", reason="gradio is not installed (extra app)")
    (tmp_path / "work").mkdir()
    app = build(model, tmp_path / "work")
    settings = {"quiet": True, "prevent_thread_lock": True, "allowed_paths": [str(tmp_path / "work")]}
    _, url, _ = app.launch(server_name=HOST, server_port=free_port(), **settings)
    yield url
    app.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]


def wait(condition, seconds: float = 90.0):
    """What the condition gives, as soon as that is true."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.1)
    return found


def test_a_video_is_uploaded_asked_and_plays(address, browser, clip):
    browser.get(address)
    find = lambda selector: browser.find_elements("css selector", selector)  # noqa: E731
    wait(lambda: find("#video input[type=file]"))[0].send_keys(str(clip))
    wait(lambda: "clip" in find("#video")[0].text)  # gradio folds the middle of a name
    find("#text textarea, #text input")[0].send_keys("a <b>blue</b> box")
    find("#ask")[0].click()
    browser.switch_to.frame(wait(lambda: find("#answer iframe"))[0])
    wait(lambda: find(".predicted .span"))[0].click()
    clock = "return document.querySelector('video').currentTime"
    wait(lambda: 9.0 <= browser.execute_script(clock) < 12.0)
    assert "a <b>blue</b> box" in find(".entry")[0].text
    browser.switch_to.default_content()


def test_a_page_inside_a_page_is_escaped(model, clip, tmp_path):
    frame = framed(model, clip, "a moment", "</iframe><script>alert(1)</script>", "", tmp_path)
    assert frame.count("<iframe") == 1 and "<script>" not in frame
    with pytest.raises(ValueError, match="a query is empty"):
        framed(model, clip, "a moment", " ", "", tmp_path)
    (tmp_path / "bad.mp4").write_bytes(b"<html>")
    with pytest.raises(ValueError, match=r"bad.mp4: Invalid data"):
        framed(model, tmp_path / "bad.mp4", "a moment", "x", "", tmp_path)


@pytest.mark.parametrize("port", [-1, 70_000])
def test_a_port_that_cannot_be_is_refused(port):
    with pytest.raises(ValueError, match="choose another with --port"):
        check_port(port)


def test_a_port_that_is_taken_is_said_before_the_model_is_loaded(watcher, monkeypatch, capsys):
    monkeypatch.setattr("asking.model.TrainedModel.from_run", lambda *args, **more: pytest.fail("loaded"))
    with socket.socket() as other:
        other.bind((HOST, 0))
        other.listen()
        assert ask.main([f"--checkpoint={watcher}", "--serve", f"--port={other.getsockname()[1]}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("ask.py: error: port ") and "is taken" in line
