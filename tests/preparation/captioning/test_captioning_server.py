"""The command against a server that others wrote: ``transformers serve``, with a tiny model that sees pictures."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from chat_server import save_tiny_vlm, serving
from transformers import (
    AutoTokenizer,
)

from datamodules.query_files import read_queries, write_queries
from datamodules.schema import Event, Query
from preparation.captioning import endpoint, jobs
from preparation.captioning.cache import AnswerCache
from preparation.world.rendering import render_clip

for package in ("fastapi", "uvicorn"):
    pytest.importorskip(package, reason=f"`transformers serve` needs {package}: pip install transformers[serving]")

TOKENS_OF_A_PICTURE = 16
EVENTS = tuple(Event(4 * k, 4 * k + 4, f"scene {k}") for k in range(3))
QUERIES = [
    Query("a", "clip", "grounding", "a red box", events=(Event(0, 4), Event(6, 8))),
    Query("b", "clip", "dense_captioning", events=EVENTS, duration_s=12.0),
]
"""Five events of four clips: nine requests."""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """A LLaVA with random weights, which writes about a dozen words of nonsense."""
    folder = tmp_path_factory.mktemp("tiny-vlm")
    save_tiny_vlm(folder)
    return folder


@pytest.fixture(scope="module")
def served(tmp_path_factory) -> Iterator[str]:
    """Address of a server that goes on."""
    with serving(tmp_path_factory.mktemp("server") / "log") as (_, url):
        yield url


@pytest.fixture
def run(checkpoint, direct, prepared, tmp_path, monkeypatch):
    """Run the command; returns what ``prepared`` does."""
    monkeypatch.setattr(endpoint, "RETRIES", 1)
    for check in ("check_plain", "check_description", "check_detail"):  # its nonsense is no description
        monkeypatch.setattr(jobs, check, lambda *_: None)
    write_queries(tmp_path / "queries.jsonl", QUERIES)

    def run_command(kind: str, url: str, *more) -> tuple[int, str]:
        line = ["captions", kind, "--input", tmp_path / "queries.jsonl", "--output", tmp_path / f"{kind}.jsonl"]
        return prepared([*line, "--text.model", checkpoint, "--text.url", url, *more])

    return run_command


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_details_from_a_server_that_dies_and_comes_back(run, served, checkpoint, tmp_path, monkeypatch):
    pytest.importorskip("av", reason="PyAV renders the clip (extra dev)")
    render_clip(tmp_path / "clip.mp4")
    cache, add = tmp_path / "details.requests.jsonl", AnswerCache.add
    more = ["--videos", tmp_path / "clip.mp4", "--vision.model", checkpoint, "--frames", 3]
    with serving(tmp_path / "log") as (process, url), monkeypatch.context() as patch:

        def add_and_kill(*arguments) -> None:
            add(*arguments)
            if len(lines(cache)) == 3:
                process.kill()
                process.wait()

        patch.setattr(AnswerCache, "add", add_and_kill)
        status, out = run("details", url, *more, "--vision.url", url, "--concurrency", 1)
    assert status == 2
    assert "Connection refused; run again when it works: what was answered is kept" in out
    kept = cache.read_bytes()
    assert kept.count(b"\n") == 3

    status, out = run("details", served, *more, "--vision.url", served)
    assert status == 0, out
    assert cache.read_bytes().startswith(kept)
    asked = lines(cache)
    assert sorted(line["step"] for line in asked) == ["caption"] * 4 + ["condense"] * 5
    tokens = AutoTokenizer.from_pretrained(checkpoint)
    for line in asked:
        pictures = 3 if line["step"] == "caption" else 0
        text = len(tokens(line["prompt"]).input_ids)
        assert line["answer"]["tokens_in"] == text + pictures * TOKENS_OF_A_PICTURE
        assert line["answer"]["finish_reason"] == "stop"
    assert f"tokens read │ {sum(line['answer']['tokens_in'] for line in asked[3:])} │" in out
    said = {line["answer"]["text"] for line in asked if line["step"] == "condense"}
    written = list(read_queries(tmp_path / "details.jsonl"))
    assert {event.detail for query in written for event in query.events} == said


def test_nonsense_is_no_dialogue(run, served, tmp_path):
    status, out = run("dialogues", served, "--concurrency", 1)
    assert status == 2
    assert "malformed dialogue, 3 answers (not" in out
    status, out = run("dialogues", served, "--on_error", "skip")
    assert status == 2
    assert "nothing came out of it ({'malformed dialogue, 3 answers': 2})" in out
    assert len(lines(tmp_path / "dialogues.requests.jsonl")) == 6  # the three answers to each are not asked for again


def test_a_server_says_why_it_refuses(run, served, tmp_path):
    status, out = run("dialogues", served, "--text.options", '{"top_k": 3}')
    assert status == 2
    assert "the model refused the request" in out
    assert "422" in out and "Unexpected fields in the request: {'top_k'}" in out
