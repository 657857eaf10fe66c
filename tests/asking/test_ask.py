"""ask.py on a real (tiny) run: files in, answers, page and clips out, one line for what is wrong."""

import csv
import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import pytest

import ask
import evaluate
import whenlm
from asking.conversation import Conversation, talk
from asking.model import Model
from asking.windows import Windows
from datamodules.prediction_files import read_predictions
from datamodules.query_files import write_queries
from datamodules.records import FeatureHeader
from datamodules.schema import Event, Query
from lightning_modules.answering import Generation
from lightning_modules.trained import TrainedModel
from preparation.world.tiny import tiny_clip
from reports.media import probe

SHORT = "--generation.max_new_tokens=8"


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    """Features of all tests here."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def asked(watcher, clip, cache):
    """Run ask.py; gives exit status and output folder."""

    def run(output: Path, *words: str, video: Path | None = clip) -> int:
        fixed = [f"--checkpoint={watcher}", f"--output={output}", f"--cache={cache}", SHORT]
        return ask.main([*fixed, *([str(video)] if video else []), *words])

    return run


@pytest.fixture
def knows(monkeypatch):
    """The model says when each colour is there, in seconds of the clip, and what it was asked."""
    seconds = {"red": (0.0, 5.0), "green": (5.0, 9.0), "blue": (9.0, 12.0)}
    plain = TrainedModel.answer

    def answer(self, prompts):
        found = []
        for query, prediction in zip(prompts.queries, plain(self, prompts), strict=True):
            spans = tuple((*span, 0.9) for name, span in seconds.items() if name in query.text)
            captions = ()
            if query.task == "dense_captioning":
                spans, captions = tuple((*span, 1.0) for span in seconds.values()), tuple(f"a {c} box" for c in seconds)
            found.append(replace(prediction, spans=spans, captions=captions, rule="x" if spans else None))
        return found

    monkeypatch.setattr(TrainedModel, "answer", answer)


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "answers.jsonl").read_text(encoding="utf-8").splitlines()]


def page_data(page: Path) -> dict:
    content = page.read_text(encoding="utf-8").split('<script type="application/json" id="data">')[1]
    return json.loads(content.split("</script>")[0])


def test_one_video_many_questions(asked, knows, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "140")
    more = ["--describe", "--question=Why?", "--question", "Which?", "--choices=", "--choices", "a cat|a dog"]
    status = asked(tmp_path / "out", "a blue box", *more, "a red box", f"--cut={tmp_path / 'clips'}", "--subtitles=srt")
    assert status == 0
    found = lines(tmp_path / "out")
    assert [line["task"] for line in found] == ["grounding"] * 2 + ["dialogue", "grounded_qa", "dense_captioning"]
    assert found[0]["spans"] == [[9.0, 12.0, 0.9]] and found[0]["asked"] == "a blue box"
    assert found[4]["captions"] == ["a red box", "a green box", "a blue box"]
    assert list(read_predictions(tmp_path / "out" / "answers.jsonl"))[0].video == "clip"
    table = list(csv.DictReader((tmp_path / "out" / "answers.csv").open(newline="")))
    assert [row["start_s"] for row in table if row["task"] == "dense_captioning"] == ["0.0", "5.0", "9.0"]
    made = {path.name: probe(path).duration_s for path in (tmp_path / "clips").iterdir()}
    assert made["clip_0009.0-0012.0_a-blue-box.mp4"] == pytest.approx(3.0, abs=0.1)
    assert len(made) == 3  # a moment that was both asked and described is there once
    assert "00:00:05,000 --> 00:00:09,000\na green box" in (tmp_path / "out" / "clip.srt").read_text()
    rows = page_data(tmp_path / "out" / "page.html")["videos"][0]["rows"]
    assert [row["text"] for row in rows][:2] == ["a blue box", "a red box"]
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith(f"Written: {tmp_path / 'out' / 'page.html'}, ") and last.endswith(str(tmp_path / "clips"))


def test_the_answer_is_that_of_the_benchmark(asked, watcher, clip, tmp_path):
    assert asked(tmp_path / "asked", "a green box") == 0
    write_queries(tmp_path / "q.jsonl", [Query("q", "clip", "grounding", "a green box", (Event(5.0, 9.0),))])
    known = [f"--checkpoint={watcher}", f"--shards={watcher.parent / 'shards'}", SHORT, "--num_workers=0"]
    evaluate.main(["benchmark", *known, f"--queries={tmp_path / 'q.jsonl'}", f"--output={tmp_path / 'benchmark'}"])
    (line,) = (tmp_path / "benchmark" / "predictions.jsonl").read_text().splitlines()
    (mine,) = lines(tmp_path / "asked")
    assert mine["answer"] == json.loads(line)["answer"]
    assert mine["spans"] == pytest.approx(json.loads(line)["spans"])


def test_a_folder_of_videos_and_a_file_of_queries(asked, clip, tmp_path, capsys):
    folder = tmp_path / "videos"
    folder.mkdir()
    for name in ("a.mp4", "b [x] <i>'.mp4"):
        shutil.copy(clip, folder / name)
    (folder / "broken.mp4").write_bytes(b"no video")
    records = [Query("q", "a", "grounding", "a red box", (Event(0, 5),))]
    write_queries(tmp_path / "q.jsonl", records)
    words = ["a blue box", f"--videos={folder}", f"--queries={tmp_path / 'q.jsonl'}"]
    assert asked(tmp_path / "out", *words, video=None) == 1  # something was left out
    (problem,) = capsys.readouterr().err.splitlines()
    assert problem.startswith("ask.py: left out: ") and "broken.mp4: Invalid data" in problem
    assert [(line["video"], line["asked"]) for line in lines(tmp_path / "out")] == [
        ("a", "a blue box"),
        ("a", "a red box"),
        ("b [x] <i>'", "a blue box"),
    ]
    videos = page_data(tmp_path / "out" / "page.html")["videos"]
    assert videos[0]["rows"][1]["truth"] == [[0, 5, ""]] and videos[0]["rows"][1]["iou"] is not None
    assert videos[1]["source"] == "../videos/b%20%5Bx%5D%20%3Ci%3E%27.mp4"


def test_features_are_made_once_and_the_encoder_is_loaded_for_new_videos_alone(asked, tmp_path, monkeypatch):
    assert asked(tmp_path / "one", "a blue box") == 0
    monkeypatch.setattr("asking.model.load_encoder", lambda *args, **more: pytest.fail("loaded"))
    assert asked(tmp_path / "two", "a blue box") == 0
    assert lines(tmp_path / "one") == lines(tmp_path / "two")


def test_a_long_video_is_seen_in_windows_and_its_cost_is_said(asked, tmp_path, capsys):
    words = ["a blue box", "--describe", "--windows.length_s=4", "--windows.overlap=0.5"]
    assert asked(tmp_path, *words) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert (
        "clip is 12 s long: seen in 5 windows of 4 s, 60 pictures to encode and 5 answers to write for each of" in said
    )
    answer = lines(tmp_path)[0]["answer"].splitlines()
    assert [line.split("]")[0] for line in answer if line.startswith("[")] == [
        "[0-4 s", "[2-6 s", "[4-8 s", "[6-10 s", "[8-12 s"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "nothing is asked"),
        (["  "], "a query is empty"),
        (["--question="], "a question is empty"),
        (["x", "--choices=a|b"], "1 --choices for 0 --question"),
        (["--question=x", "--choices=a"], "two options or more"),
        (["x", "--html", "--output=o", "--top=0"], "--top must be at least 1"),
        (["x", "--html=page.mp4"], "--html page.mp4: the name of a page ends in .html"),
        (["--queries=nowhere.jsonl"], "nowhere.jsonl"),
        (["x", "--windows.overlap=1"], "overlap of 0 to 0.95"),
        (["x", "--checkpoint=nowhere"], "nowhere holds no trained weights"),
        (["x", "--llm=/no/where"], "llm '/no/where' is neither a folder"),
        (["x", "--nonsense"], "nonsense"),
        (["x", "--top=many"], "many"),
    ],
)
def test_what_is_wrong_is_said_in_a_line_and_nothing_is_written(asked, words, message, tmp_path, capsys):
    try:
        status = asked(tmp_path / "out", *words)
    except SystemExit as left:
        status = left.code
    error = capsys.readouterr().err
    assert status == 2 and message in error
    assert error.startswith("ask.py: error: ") and len(error.splitlines()) <= 3
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]


@pytest.mark.parametrize(("content", "message"), [(b"<html>", "Invalid data"), (None, "No such file")])
def test_a_video_that_cannot_be_read_is_named_before_anything_is_loaded(
    asked, content, message, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("asking.model.TrainedModel.from_run", lambda *args, **more: pytest.fail("loaded"))
    if content:
        (tmp_path / "bad.mp4").write_bytes(content)
    assert asked(tmp_path / "out", "x", video=tmp_path / "bad.mp4") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "bad.mp4" in line and ("no such" in line or message in line)


def test_a_base_or_an_encoder_of_another_run_is_refused(asked, llm, tmp_path, capsys):
    tiny_clip(tmp_path / "clip", width=8, seed=1)
    assert asked(tmp_path / "out", "x", f"--encoder={tmp_path / 'clip'}", f"--cache={tmp_path / 'cache'}") == 2
    assert "made differently: encoder_sha256" in capsys.readouterr().err
    assert not (tmp_path / "out" / "answers.jsonl").exists()


def test_quiet_says_what_was_written_and_nothing_else(asked, tmp_path, capsys):
    assert asked(tmp_path, "a blue box", "--quiet") == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("Written: ")


def test_options_and_questions_may_stand_in_any_order(asked, tmp_path):
    page = tmp_path / "elsewhere" / "p.html"
    assert asked(tmp_path / "out", "--embed", "--html", str(page), "a blue box", "--top", "1", "a red box") == 0
    data = page_data(page)["videos"][0]
    assert [row["text"] for row in data["rows"]] == ["a blue box", "a red box"]
    assert data["source"].startswith("data:video/mp4;base64,")
    assert not (tmp_path / "out" / "page.html").exists()


def test_a_conversation_remembers_and_is_saved(watcher, clip, cache, tmp_path, capsys):
    model = Model(watcher, generation=Generation(max_new_tokens=8), cache=cache)
    one = model.open(clip)
    other = replace(one, id="other")
    said = iter(["", "What is there?", "And then?", "/find a red box", "/describe", "/videos", "/video 2", "Hello?"])
    late = iter(
        ["/video 3", "/what", "/new", f"/save {tmp_path / 't.html'}", f"/save {tmp_path / 't.jsonl'}", "/save t.doc"]
    )
    spoken = [*said, *late]

    def read(prompt: str) -> str:
        if not spoken:
            raise EOFError
        return spoken.pop(0)

    conversation = Conversation(model, [one, other])
    assert talk(conversation, read) == 0
    assert [result.query.title for result in conversation.results][:3] == ["What is there?", "And then?", "a red box"]
    assert [len(result.query.turns) for result in conversation.results] == [1, 1, 0, 0, 1]
    assert [video["name"] for video in page_data(tmp_path / "t.html")["videos"]] == ["clip.mp4", "other"]
    assert len((tmp_path / "t.jsonl").read_text().splitlines()) == 5
    shown = capsys.readouterr().out
    assert "/video takes a number from 1 to 2" in shown and "ends in .html or .jsonl" in shown and "/quit" in shown


def test_what_was_said_before_is_part_of_the_question(watcher, clip, cache):
    model = Model(watcher, generation=Generation(max_new_tokens=8), cache=cache)
    conversation = Conversation(model, [model.open(clip)])
    prompts = []
    plain = model.module.dialogue.prompt
    model.module.dialogue.prompt = lambda *args, **more: prompts.append(plain(*args, **more)) or prompts[-1]
    first = conversation.ask("what is there")
    conversation.ask("when is it")
    one, two = (model.module.dialogue.tokenizer.decode(prompt.suffix_ids) for prompt in prompts)
    assert "what is there" in one and "when is it" not in one
    assert two.startswith(one[:20]) and first.text[:5] in two and two.index("what is there") < two.index("when is it")


def test_python_finds_describes_asks_and_scores(watcher, clip, cache, tmp_path, knows, monkeypatch):
    monkeypatch.setattr("asking.model.CACHE", cache)
    model = whenlm.load(watcher)
    found = model.find(clip, "a blue box")
    assert [(one.start_s, one.end_s, one.score) for one in found] == [(9.0, 12.0, 0.9)]
    assert "9.0" in str(found) and "a blue box" in found._repr_html_()
    assert [one.caption for one in model.describe(str(clip))] == ["a red box", "a green box", "a blue box"]
    assert isinstance(model.ask(clip, "What is there?").text, str)
    moments = [{"id": i, "vid": "v", "query": f"he runs {i}", "gt": [0, 10]} for i in "ab"]
    (tmp_path / "truth.json").write_text(json.dumps(moments))
    (tmp_path / "answers.jsonl").write_text('{"id": "a", "pred": [0, 7]}\n{"id": "b", "pred": [0, 10]}\n')
    scores = whenlm.score(tmp_path / "answers.jsonl", tmp_path / "truth.json", "charades_sta")
    assert scores["mIoU"] == pytest.approx(85.0) and "85.0000" in str(scores)
    assert scores.protocol["n"] == 2 and "<td>85.0000</td>" in scores._repr_html_()
    with pytest.raises(ValueError, match="a query is empty"):
        model.find(clip, " ")


def test_windows_are_those_of_the_model(watcher, clip, cache):
    model = Model(watcher, generation=Generation(max_new_tokens=8), windows=Windows(4.0, 0.0), cache=cache)
    (result,) = model.results(model.open(clip), [replace(Query("q", "clip", "grounding", "x"))])
    assert len(result.prediction.answer.split("[")) == 4 and result.duration_s == pytest.approx(12.0)


def test_the_code_of_an_encoder_runs_only_where_it_is_named(watcher, clip, tmp_path, monkeypatch, capsys):
    """A run folder may come from anywhere: its manifest names no class that is imported."""
    (tmp_path / "own_tower.py").write_text(
        "from pathlib import Path\nPath(__file__).with_name('imported').touch()\n"
        "class Tower:\n    preprocessing = 'mean colours'\n"
        "    def __call__(self, pixels):\n        return pixels.float().mean((1, 2)).repeat(1, 3)[:, :8] / 255\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    shutil.copytree(watcher, tmp_path / "run")
    header = FeatureHeader("own_tower.Tower", "features", "mean colours", "uniform 12", 8)
    path = tmp_path / "run" / "model" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"features": asdict(header)}))
    args = [f"--checkpoint={tmp_path / 'run'}", str(clip), "x", f"--output={tmp_path / 'out'}", SHORT]
    assert ask.main(args) == 2
    said = capsys.readouterr().err
    assert "whose code would run" in said and "--encoder own_tower.Tower" in said
    assert not (tmp_path / "imported").exists()
    assert ask.main([*args, "--encoder=own_tower.Tower", f"--cache={tmp_path / 'cache'}"]) == 0
