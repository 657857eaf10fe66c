"""evaluate.py served: what is asked, what is read, and a run that goes on."""

import base64
import io
import json
import re
from pathlib import Path

import pytest
from chat_server import save_tiny_vlm, serving
from PIL import Image

import evaluate
from command_line import tables
from datamodules.query_files import write_queries
from datamodules.schema import Event, Query, Turn
from preparation.captioning import endpoint
from preparation.world.rendering import render_clip

OWN = Turn("<video>\nWhat begins after <s0>?", times={"<s0>": 3})
QUERIES = [
    Query("moment", "clip", "grounding", "a green box", (Event(4.0, 8.0),)),
    Query("absent", "clip", "grounding", "a dog", absent=True),
    Query("story", "clip", "dense_captioning", events=(Event(0, 4, "a red box"), Event(4, 8, "a green box"))),
    Query("choice", "clip", "qa", "Which colour is first?", options=("red", "blue"), answer=0),
    Query("shown", "clip", "grounded_qa", "When is it blue?", (Event(8, 12),), options=("never", "late"), answer=1),
    Query(
        "own", "clip", "grounding", "x", (Event(1, 2),), (Turn("<video>\nWhat begins after <s0>?", times={"<s0>": 3}),)
    ),
]
SAID = {
    "a green box": "<think>frame 2, at 4.0 s</think>From 4.0s to 6.0s.",
    "a dog": "It does not happen.",
    "Describe the events": "0.0 - 4.0 seconds, a red box\n4.0 - 8.0 seconds, a green box",
    "first?": "A",
    "blue?": "B. From 8 to 12 seconds.",
    "after 3.0 s": "I cannot tell.",
}


@pytest.fixture(scope="module")
def film(tmp_path_factory) -> Path:
    pytest.importorskip("av", reason="PyAV renders the clip (extra dev)")
    path = tmp_path_factory.mktemp("film") / "clip.mp4"
    render_clip(path)
    return path


@pytest.fixture
def run(film, tmp_path, capsys, monkeypatch):
    """Run the command; gives what it printed."""
    monkeypatch.setattr(tables.console, "width", 300)
    monkeypatch.setattr(endpoint, "RETRIES", 0)
    write_queries(tmp_path / "queries.jsonl", QUERIES)

    def run_command(url: str, *more) -> str:
        arguments = [f"--queries={tmp_path / 'queries.jsonl'}", f"--videos={film}", f"--url={url}"]
        evaluate.main(["served", *arguments, f"--output={tmp_path / 'out'}", "--sampling=uniform 4", *map(str, more)])
        return " ".join(capsys.readouterr().out.split())

    return run_command


@pytest.fixture
def knowing(server):
    """The server answers what the frames show."""
    server.reply = lambda prompt: next(said for key, said in SAID.items() if key in prompt)
    return server


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_frames_stand_behind_their_times_and_answers_are_scored(run, knowing, tmp_path):
    out = run(knowing.url, "--size=32")
    content = knowing.requests[0]["messages"][0]["content"]
    times = [float(part["text"].removesuffix(" s: ")) for part in content[:-1:2]]
    assert times == sorted(set(times)) and times[0] < 0.5 and 11 < times[-1] <= 12
    picture = Image.open(io.BytesIO(base64.b64decode(content[1]["image_url"]["url"].partition(",")[2])))
    assert max(picture.size) == 32
    assert "12.0 seconds long" in content[-1]["text"]
    assert knowing.requests[0]["model"] == "the-model"  # the only one of the server

    found = {line["query_id"]: line for line in lines(tmp_path / "out" / "predictions.jsonl")}
    assert found["moment"]["spans"] == [[4.0, 6.0, 1.0]] and found["moment"]["rule"] == "range"
    assert found["absent"]["spans"] == [] and found["absent"]["rule"] == "none"
    assert found["story"]["captions"] == ["a red box", "a green box"]
    assert found["choice"]["option"] == 0
    assert found["shown"]["option"] == 1 and found["shown"]["spans"] == [[8.0, 12.0, 1.0]]
    assert found["own"]["rule"] is None
    report = json.loads((tmp_path / "out" / "metrics.json").read_text())
    metrics, protocol = report["metrics"], report["protocol"]
    assert metrics["grounding/mIoU"] == pytest.approx(25) and metrics["qa/Acc"] == 100
    assert metrics["sets/RefusalAcc"] == 100 and metrics["grounded_qa/Acc@GQA"] == 100
    assert protocol["model"] == "the-model" and protocol["frames"]["sampling"] == "uniform 4"
    assert protocol["options"]["temperature"] == 0 and protocol["endings"] == {"stop": 6}
    assert protocol["parsing"]["rules"]["refusal"] == 1 and "a green box" in protocol["prompts"]["grounding"]
    assert "sk-secret" not in (tmp_path / "out" / "metrics.json").read_text()
    assert "grounding/mIoU" in out


def test_a_run_that_broke_off_asks_what_is_missing(run, knowing, tmp_path):
    refused = (400, {}, '{"error": {"message": "too many pictures"}}')
    knowing.failures = [None, None, refused]
    with pytest.raises(ValueError, match="query 'story': the model refused the request .*too many pictures"):
        run(knowing.url)
    assert len(lines(tmp_path / "out" / "predictions.rank0.jsonl")) == 2  # can be scored meanwhile
    before = len(knowing.requests)
    assert "2 of 6 queries were answered before" in run(knowing.url)
    assert len(knowing.requests) == before + 4
    assert len(lines(tmp_path / "out" / "predictions.jsonl")) == 6
    assert not (tmp_path / "out" / "predictions.rank0.jsonl").exists()
    report = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert report["protocol"]["resumed"] == 2
    run(knowing.url)
    assert len(knowing.requests) == before + 4
    run(knowing.url, "--size=16")  # other pictures are another question
    assert len(knowing.requests) == before + 10


def test_queries_without_an_answer_count_as_missing(run, knowing, tmp_path):
    more = [Query("lost", "another", "grounding", "a box", (Event(0, 1),))]
    more += [Query("rated", "clip", "highlights", "", saliency=((1.0,),), clip_s=2.0)]
    write_queries(tmp_path / "queries.jsonl", [*QUERIES, *more])
    with pytest.raises(ValueError, match="query 'lost': no video file"):
        run(knowing.url)
    out = run(knowing.url, "--on_error=skip")
    protocol = json.loads((tmp_path / "out" / "metrics.json").read_text())["protocol"]
    assert protocol["missing"] == 2 and "missing 2" in out
    assert protocol["unanswered"] == {"no video file": 1, "task that is not asked": 1}


def test_a_broken_video_is_named(run, knowing, tmp_path, film):
    folder = tmp_path / "videos"
    folder.mkdir()
    (folder / "clip.mp4").write_bytes(film.read_bytes()[:3000])
    with pytest.raises(ValueError, match=r"query 'moment': video cannot be decoded \(.*clip.mp4: "):
        run(knowing.url, f"--videos={folder}")
    assert not knowing.requests


def test_one_s_own_wording(run, knowing, tmp_path):
    wording = tmp_path / "mine.yaml"
    wording.write_text('grounding: "{duration} s. Find {text}!"')
    run(knowing.url, f"--prompts={wording}")
    assert "12.0 s. Find a green box!" in knowing.prompts
    assert any("Describe the events" in prompt for prompt in knowing.prompts)
    for content in ("grounded: x", "- a", "grounding: ''", "a: ["):
        wording.write_text(content)
        with pytest.raises(ValueError, match="mine.yaml"):
            run(knowing.url, f"--prompts={wording}")


def test_several_models_have_to_be_told_apart(run, server):
    server.models = ["a", "b"]
    with pytest.raises(ValueError, match=r"give --model: the server lists 2 models \(a, b\)"):
        run(server.url)
    with pytest.raises(ValueError, match="the list of models: .*Connection refused"):
        run("http://127.0.0.1:9/v1")


def test_a_model_of_transformers_serve(run, direct, tmp_path):
    for package in ("fastapi", "uvicorn"):
        pytest.importorskip(package, reason=f"`transformers serve` needs {package}: pip install transformers[serving]")
    save_tiny_vlm(tmp_path / "vlm")
    with serving(tmp_path / "log") as (_, url):
        out = run(url, f"--model={tmp_path / 'vlm'}", "--size=32")
    asked = lines(tmp_path / "out" / "requests.jsonl")
    assert len(asked) == 6 and all(line["answer"]["text"] for line in asked)
    counted = re.search(r"answers read by rule: (.*?) (?:\w+ ){0,1}", out)
    assert counted and "unreadable" in out
    report = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert report["metrics"]["grounding/mIoU"] == 0 and report["protocol"]["missing"] == 0
