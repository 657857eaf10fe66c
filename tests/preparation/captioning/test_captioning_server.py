"""The command against a server that others wrote: ``transformers serve``, with a tiny model that sees pictures."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoTokenizer,
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    GenerationConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)

from datamodules.query_files import read_queries, write_queries
from datamodules.schema import Event, Query
from preparation.captioning import endpoint, jobs
from preparation.captioning.cache import AnswerCache
from preparation.world.rendering import render_clip

for package in ("fastapi", "uvicorn"):
    pytest.importorskip(package, reason=f"`transformers serve` needs {package}: pip install transformers[serving]")

TINY_LM = Path(__file__).parents[3] / "configs/quickstart/tiny-lm"
TEMPLATE = """\
{% for message in messages %}{% for part in message['content'] %}
{%- if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endfor %}"""
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
    tokenizer = AutoTokenizer.from_pretrained(TINY_LM)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    image = tokenizer.convert_tokens_to_ids("<image>")
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(image_size=32, patch_size=8, **sizes),
        text_config=LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=2048, **sizes),
        image_token_index=image,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlavaForConditionalGeneration(config)
    special = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "suppress_tokens": [0, 1, image]}
    ends = {"min_new_tokens": 4, "exponential_decay_length_penalty": (8, 1.5)}  # random weights find no end themselves
    model.generation_config = GenerationConfig(**special, **ends)
    model.save_pretrained(folder)
    pictures = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    layout = {"patch_size": 8, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
    LlavaProcessor(pictures, tokenizer, chat_template=TEMPLATE, **layout).save_pretrained(folder)
    return folder


@contextmanager
def serving(log: Path) -> Iterator[tuple[subprocess.Popen, str]]:
    """A server process and its address; it loads whatever model a request names, and asks no hub."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", "--host", "127.0.0.1"]
    with open(log, "w") as file:
        process = subprocess.Popen(
            [*command, "--port", str(port), "--device", "cpu"],
            env=os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    try:
        deadline = time.monotonic() + 60
        while socket.socket().connect_ex(("127.0.0.1", port)):
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()[-3000:]
            time.sleep(0.1)
        yield process, f"http://127.0.0.1:{port}/v1"
    finally:
        process.kill()
        process.wait()


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
