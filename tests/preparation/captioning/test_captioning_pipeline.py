"""The whole command against a real server: what is sent, kept, counted and written."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

import prepare
from datamodules.query_files import read_queries, write_queries
from datamodules.schema import Event, Query, Turn
from preparation.captioning import endpoint
from preparation.world.rendering import render_clip

ROOT = Path(__file__).parents[3]
EVENTS = tuple(Event(4 * k, 4 * k + 4, f"scene {k}") for k in range(3))
QUERIES = [
    Query("a", "clip", "grounding", "a red box", events=(Event(0, 4),)),
    Query("b", "clip", "grounding", "a green box", events=(Event(0, 4), Event(6, 8))),
    Query("c", "clip", "dense_captioning", events=EVENTS, duration_s=12.0),
]
"""Six events of five clips."""


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    pytest.importorskip("av", reason="PyAV renders the clip (extra dev)")
    folder = tmp_path_factory.mktemp("videos")
    render_clip(folder / "clip.mp4")
    (folder / "clip.jsonl").unlink()
    return folder


@pytest.fixture
def arguments(server, videos, tmp_path):
    """Gives the command line of ``captions details`` or ``captions dialogues``."""
    write_queries(tmp_path / "queries.jsonl", QUERIES)

    def command_line(kind: str, *more) -> list[str]:
        line = ["captions", kind, "--input", tmp_path / "queries.jsonl", "--output", tmp_path / f"{kind}.jsonl"]
        line += ["--text.model", "writer", "--text.url", server.url]
        if kind == "details":
            line += ["--videos", videos, "--vision.model", "viewer", "--vision.url", server.url, "--frames", "3"]
        return [str(argument) for argument in [*line, *more]]

    return command_line


@pytest.fixture
def run(arguments, prepared):
    """Run the command; returns what ``prepared`` does."""
    return lambda kind, *more: prepared(arguments(kind, *more))


def test_details(server, run, tmp_path):
    status, out = run("details", "--vision.price_in", "2")
    assert status == 0, out
    assert Counter(request["model"] for request in server.requests) == {"viewer": 4, "writer": 6}
    condense = [prompt for prompt in server.prompts if "at most 40 words" in prompt]
    assert all("A white box moves to the right" in prompt for prompt in condense)
    assert [sum(f"\na {name} box\n" in prompt for prompt in condense) for name in ("red", "green")] == [1, 2]
    content = next(request["messages"][0]["content"] for request in server.requests if request["model"] == "viewer")
    assert [part["type"] for part in content] == ["image_url"] * 3 + ["text"]
    assert content[0]["image_url"]["url"].startswith("data:image/jpeg;base64,/9j/")

    written = list(read_queries(tmp_path / "details.jsonl"))
    assert [query.id for query in written] == ["a", "b", "c"]
    for query, original in zip(written, QUERIES, strict=True):
        assert [event.detail for event in query.events] == ["A box moves."] * len(original.events)
        assert [event.span for event in query.events] == [event.span for event in original.events]
    assert "6 results wanted, 0 of them from earlier answers; 12 pictures" in out
    assert "│ caption │ 4 │ 400 │ 40 │ 0.00 │" in out
    assert "│ condense │ 6 │ 600 │ 60 │ price not given │" in out
    lines = [json.loads(line) for line in (tmp_path / "details.requests.jsonl").read_text().splitlines()]
    assert sorted(line["prompt"] for line in lines) == sorted(server.prompts)
    assert {line["model"] for line in lines} == {"viewer", "writer"}
    everything = out + "".join(path.read_text() for path in tmp_path.glob("*.jsonl"))
    assert "sk-secret" not in everything
    assert "base64" not in everything


def test_events_of_dialogues_have_details_too(server, arguments, tmp_path):
    """E.T. Instruct is made of dialogues; a question about given times asks for nothing."""
    times = {"<s0>": 0.0, "<e0>": 4.0}
    said = Turn("When? <s0>", "From <s0> to <e0>.", "grounding", (Event(0, 4),), "a red box", times)
    asked = Turn("What is it?", "It is <ent>.", "segment_captioning", (Event(4, 8),))
    talk = Query("t", "clip", "dialogue", turns=(asked, said), duration_s=12.0)
    plain = Query("p", "clip", "dialogue", turns=(Turn("Is it?", "Yes."),))
    write_queries(tmp_path / "queries.jsonl", [talk, plain])
    assert prepare.main(arguments("details")) == 0
    assert Counter(request["model"] for request in server.requests) == {"viewer": 1, "writer": 1}
    assert any("\na red box\n" in prompt for prompt in server.prompts)
    first, second = read_queries(tmp_path / "details.jsonl")
    assert [[event.detail for event in turn.events] for turn in first.turns] == [[""], ["A box moves."]]
    assert second == plain


def test_nothing_is_asked_twice(server, run, tmp_path):
    assert run("details")[0] == 0
    first, sent = (tmp_path / "details.jsonl").read_bytes(), len(server.requests)
    (tmp_path / "details.jsonl").unlink()
    status, out = run("details")
    assert (status, len(server.requests)) == (0, sent)
    assert "6 results wanted, 6 of them from earlier answers" in out
    assert (tmp_path / "details.jsonl").read_bytes() == first


def test_only_estimate(server, run, tmp_path, monkeypatch):
    monkeypatch.setattr("preparation.captioning.running.MEASURED", 2)
    status, out = run("details", "--only_estimate", "true", "--concurrency", "1")
    assert (status, len(server.requests)) == (0, 3)  # one clip, asked for by two queries
    assert "2 of 6 results took" in out
    assert "│ caption │ 4 │ 400 │" in out
    assert not (tmp_path / "details.jsonl").exists()
    assert run("details")[0] == 0
    assert len(server.requests) == 10


def test_dialogues(server, run, tmp_path):
    status, out = run("dialogues")
    assert status == 0, out
    assert len(server.requests) == 2
    assert all("<s2> to <e2>: scene 2" in prompt for prompt in server.prompts)
    written = list(read_queries(tmp_path / "dialogues.jsonl"))
    assert [(query.id, query.video, query.duration_s) for query in written] == [
        ("c.talk0", "clip", 12.0),
        ("c.talk1", "clip", 12.0),
    ]
    assert written[0].turns[0].times == {"<s0>": 0, "<e0>": 4}


def test_a_malformed_answer_is_asked_again_but_not_for_ever(server, run, tmp_path):
    replies = iter(["no JSON", '{"turns": []}', {"message": {"content": ""}, "finish_reason": "length"}])
    server.reply = lambda prompt: next(replies, server.plain_reply(prompt))
    status, out = run("dialogues", "--concurrency", "1")
    assert status == 2
    assert "query 'c', dialogue 0: malformed dialogue, 3 answers (the model stopped early: length" in out
    status, out = run("dialogues", "--on_error", "skip")
    assert (status, len(server.requests)) == (0, 4)  # the three bad answers are paid for, and not asked for again
    assert "│ malformed dialogue, 3 answers │ 1 │" in out
    assert [query.id for query in read_queries(tmp_path / "dialogues.jsonl")] == ["c.talk1"]
    assert "malformed" in (tmp_path / "dialogues.skipped.jsonl").read_text()


def test_skip_leaves_out_the_query_and_keeps_its_answers(server, run, tmp_path, monkeypatch):
    queries = [*QUERIES, Query("d", "elsewhere", "grounding", "a box", events=(Event(0, 1),))]
    queries += [Query("e", "elsewhere", "grounding", "a box", events=(Event(0, 1, detail="There."),))]
    queries += [Query("f", "clip", "grounding", "late", events=(Event(20, 21),))]
    write_queries(tmp_path / "queries.jsonl", queries)
    status, out = run("details")
    assert status == 2
    assert "query 'd': no video file (elsewhere in" in out
    server.reply = lambda prompt: "" if "\nscene 1\n" in prompt else server.plain_reply(prompt)
    status, out = run("details", "--on_error", "skip")
    assert status == 0, out
    written = {query.id: [event.detail for event in query.events] for query in read_queries(tmp_path / "details.jsonl")}
    one, both = ["A box moves."], ["A box moves."] * 2
    assert written == {"a": one, "b": both, "c": ["A box moves.", "", "A box moves."], "e": ["There."]}
    for row in ("clip cannot be decoded │ 1", "no video file │ 1", "malformed condense, 3 answers │ 1"):
        assert row in out
    assert "malformed answers (condense) │ 3" in out
    assert "malformed answers (condense): empty │ 3" in out


def test_refusals_and_copies_are_asked_again_and_counted(server, run, tmp_path):
    bad = ["I'm sorry, I can't assist with that.", "A red box.", "From 0:12 to 0:20 a box moves."]
    sent = iter(bad)
    server.reply = lambda prompt: (
        next(sent, "A box moves.") if "\na red box\n" in prompt else server.plain_reply(prompt)
    )
    status, out = run("details", "--on_error", "skip", "--concurrency", "1")
    assert status == 0
    assert "malformed condense, 3 answers │ 1" in out
    for reason in ("a refusal", "a copy of the query", "a time is written out"):
        assert f"malformed answers (condense): {reason} │ 1" in out
    assert [query.id for query in read_queries(tmp_path / "details.jsonl")] == ["b", "c"]


def test_tasks(server, run, tmp_path):
    """Of queries and of the turns of dialogues; the others are written as they were."""
    turns = (
        Turn("Where?", None, "grounding", (Event(0, 4),), "a red box"),
        Turn("What happens?", None, "dense_captioning", (Event(4, 8, "scene 1"),)),
    )
    talk = Query("t", "clip", "dialogue", turns=turns, duration_s=12.0)
    write_queries(tmp_path / "queries.jsonl", [*QUERIES, talk])
    status, out = run("details", "--tasks", '["grounding"]')
    assert status == 0, out
    assert "4 results wanted" in out
    a, b, c, said = read_queries(tmp_path / "details.jsonl")
    assert all(event.detail for query in (a, b) for event in query.events)
    assert c == QUERIES[2]
    assert [[event.detail for event in turn.events] for turn in said.turns] == [["A box moves."], [""]]
    status, out = run("dialogues", "--tasks", '["grounding"]')
    assert (status, "--tasks is for details" in out) == (2, True)


def test_a_dense_caption_stays_beside_its_detail(server, run, tmp_path):
    assert run("details", "--tasks", '["dense_captioning"]')[0] == 0
    *_, dense = read_queries(tmp_path / "details.jsonl")
    assert [(event.caption, event.detail) for event in dense.events] == [
        (f"scene {k}", "A box moves.") for k in range(3)
    ]


def test_a_grounded_question_is_what_is_looked_for(server, run, tmp_path):
    options = {"options": ("red", "green"), "answer": 0}
    asked = Query("g", "clip", "grounded_qa", "which of them is red?", events=(Event(0, 4),), **options)
    silent = Turn("<s0>", None, "grounding", (Event(0, 4),), times={"<s0>": 0.0})
    write_queries(tmp_path / "queries.jsonl", [asked, Query("s", "clip", "dialogue", turns=(silent,))])
    status, out = run("details", "--on_error", "skip")
    assert status == 0, out
    assert any("\nwhich of them is red?\n" in prompt for prompt in server.prompts)
    assert "neither text nor caption: nothing is looked for │ 1" in out
    assert [query.id for query in read_queries(tmp_path / "details.jsonl")] == ["g"]


def test_no_video_is_read_before_its_clip_is_asked_for(server, run, tmp_path, monkeypatch):
    monkeypatch.setattr("preparation.captioning.requests.digest", None)
    assert run("details")[0] == 0
    assert run("details")[0] == 0  # a resumed run, neither


def test_failures_end_the_run_and_lose_nothing(server, run, tmp_path, monkeypatch):
    monkeypatch.setattr(endpoint, "RETRIES", 0)
    server.failures = [0.0, 0.0, 0.0, 500]
    status, out = run("details", "--concurrency", "1")
    assert status == 2
    assert "the model did not answer" in out
    assert not (tmp_path / "details.jsonl").exists()
    kept = (tmp_path / "details.requests.jsonl").read_text().splitlines()
    assert len(kept) == len(server.requests) - 1 >= 3
    assert run("details")[0] == 0
    assert len(server.requests) == 11  # the failed one is the only one sent twice


@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGINT])
def test_kill_and_resume(server, arguments, tmp_path, kind):
    """A killed run is repeated: what was recorded is not asked again, and the file is that of an undisturbed run."""
    server.delay_s = 0.6
    command = [sys.executable, "prepare.py", *arguments("details", "--concurrency", "2")]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # where the tests run in the background
    )  # fmt: skip
    cache = tmp_path / "details.requests.jsonl"
    deadline = time.monotonic() + 60
    while not cache.exists() or cache.read_bytes().count(b"\n") < 3:
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[0]
        time.sleep(0.01)
    server.delay_s = 2.0  # so that the run cannot end before the signal arrives
    process.send_signal(kind)
    out, _ = process.communicate(timeout=60)
    assert not (tmp_path / "details.jsonl").exists()
    lines, sent = cache.read_bytes().splitlines(), len(server.requests)
    if kind == signal.SIGINT:
        assert process.returncode == 2
        assert "run again to go on" in " ".join(out.split())
        assert len(lines) == sent  # the answers on their way were waited for
    else:
        assert len(lines) <= sent <= len(lines) + 2  # at most one a thread was on its way
        with open(cache, "ab") as file:
            file.write(b'{"key": "half')

    server.delay_s = 0.0
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, env=os.environ)
    assert again.returncode == 0, again.stderr
    assert cache.read_bytes().splitlines()[: len(lines)] == lines
    assert len(server.requests) - sent == 10 - len(lines)
    assert all(event.detail for query in read_queries(tmp_path / "details.jsonl") for event in query.events)


@pytest.mark.parametrize(
    ("kind", "more", "message"),
    [
        ("details", ["--output", "{}/queries.jsonl"], "is the input"),
        ("dialogues", ["--videos", "{}"], "dialogues use neither"),
        ("dialogues", ["--input", "{}/absent.jsonl"], "absent.jsonl"),
    ],
)
def test_bad_usage(run, tmp_path, kind, more, message):
    status, out = run(kind, *(argument.replace("{}", str(tmp_path)) for argument in more))
    assert status == 2
    assert message in out
