"""Dialogues: every question is asked, words are compared, and a judge grades in five dimensions, once."""

import json
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random

import pytest

import evaluate
import prepare
from datamodules.batch import collate_prompts
from datamodules.prediction import Prediction
from datamodules.query_files import read_queries, write_queries
from datamodules.schema import Query, Turn
from datamodules.shards import ShardReader
from evaluation.judge import DIMENSIONS, exchanges, read_score
from lightning_modules.answering import Generation
from lightning_modules.trained import TrainedModel
from metrics.dialogue import dialogue_scores, words

TALK = Query(
    "t", "test00000", "dialogue",
    turns=(
        Turn("What is this?", "A red robot."),
        Turn("And when?", "From <s0> to <e0>.", times={"<s0>": 1, "<e0>": 2}),
    ),
)  # fmt: skip
PAIR = [
    replace(TALK, id=f"c#0.{k}", turns=(Turn(question, "A dog."),), source="video_chatgpt/consistency")
    for k, question in ((1, "What is it?"), (2, "Which animal is it?"))
]


class Judge(ThreadingHTTPServer):
    """Gives every exchange the same grade, and keeps what it was asked."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.prompts, self.lock, self.reply = [], threading.Lock(), '```json\n{"score": 4}\n```'
        self.url = f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with self.server.lock:
            self.server.prompts.append(body["messages"][0]["content"])
        message = {"role": "assistant", "content": self.server.reply}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        answer = {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
        content = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@pytest.fixture
def judge():
    pytest.importorskip("openai")
    server = Judge()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


@pytest.fixture
def files(tmp_path) -> tuple[Path, Path]:
    """Answers, one of them missing, and what was asked."""
    answers = [Prediction("t", "v", "dialogue", "a robot\nfrom 12 to 34", answers=("a robot", "from 12 to 34"))]
    answers += [Prediction("c#0.1", "v", "dialogue", "A dog"), Prediction("c#0.2", "v", "dialogue", "a cat")]
    (tmp_path / "predictions.jsonl").write_text("".join(answer.to_json() + "\n" for answer in answers))
    write_queries(tmp_path / "queries.jsonl", [TALK, *PAIR, replace(TALK, id="missing")])
    return tmp_path / "predictions.jsonl", tmp_path / "queries.jsonl"


def score(files: tuple[Path, Path], output: Path, *more: str) -> dict:
    predictions, queries = files
    evaluate.main(["dialogue", f"--predictions={predictions}", f"--queries={queries}", f"--output={output}", *more])
    return json.loads((output / "metrics.json").read_text())


def test_every_question_of_a_dialogue_is_asked_behind_the_answers_before(runs, world):
    """As the whole conversation would stand there, and whatever else is in the batch."""
    module = TrainedModel.from_run(runs[3], generation=Generation(max_new_tokens=5))
    module.configure_model()
    three = replace(TALK, turns=(*TALK.turns, Turn("What else?", "Nothing.")))
    single = replace(TALK, id="s", turns=TALK.turns[:1])
    video = ShardReader(world / "videos").read(TALK.video)
    asked = [module.dialogue.prompt(query, video) for query in (three, single, TALK)]
    assert [len(prompt.next_ids) for prompt in asked] == [2, 0, 1]
    predictions = module.answer(collate_prompts(asked, module.dialogue.pad_id))
    assert [len(prediction.answers) for prediction in predictions] == [3, 0, 2]
    assert predictions[0].answers[:2] == predictions[2].answers
    assert predictions[0].answers[0] == predictions[1].answer
    # the third answer is what the model says to the third question of a conversation with its own answers in it
    said = predictions[0].answers
    known = [Turn(turn.question, text, times=turn.times) for turn, text in zip(three.turns, said[:2], strict=False)]
    clip = asked[0].clip
    rendered = [module.localizer.render(turn, clip, Random(0)) for turn in (*known, three.turns[2])]
    whole, _ = module.dialogue.encoder.encode(
        [*((r.question, r.answer) for r in rendered[:2]), (rendered[2].question, None)]
    )
    tail = list(asked[0].next_ids[1])
    assert whole[-len(tail) :] == tail


def test_words_are_compared_without_times():
    assert words("From <s0> to <e0>, he DOESN'T run 3.5s.") == "from to he doesn't run s"
    perfect = dialogue_scores([["A red robot", "it sings"]], [["a red robot.", "It sings!"]])
    assert {name: round(perfect[name], 6) for name in ("ROUGE-L", "BLEU-1", "n", "turns", "missing")} == {
        "ROUGE-L": 100, "BLEU-1": 100, "n": 1, "turns": 2, "missing": 0,
    }  # fmt: skip
    half = dialogue_scores([["A red robot"]], [["a red robot.", "It sings!"]])
    assert (half["ROUGE-L"], half["missing"]) == (pytest.approx(50), 1)
    assert dialogue_scores([["12"]], [["34."]])["turns"] == 0
    assert dialogue_scores([["no dog"]], [["a cat"]])["ROUGE-L"] == 0


def test_without_a_judge_words_are_compared(files, tmp_path, capsys):
    report = score(files, tmp_path / "out")
    assert report["metrics"] == {**report["metrics"], "n": 4, "turns": 6, "missing": 2}
    assert 0 < report["metrics"]["ROUGE-L"] < 100
    assert "judge" not in report["protocol"]
    assert "no judge" in " ".join(capsys.readouterr().out.split())


def test_the_benchmark_scores_dialogues_by_words(runs, world, tmp_path):
    write_queries(tmp_path / "q.jsonl", [TALK])
    where = [f"--checkpoint={runs[3]}", f"--shards={world / 'videos'}", f"--queries={tmp_path / 'q.jsonl'}"]
    evaluate.main(["benchmark", *where, f"--output={tmp_path}", "--generation.max_new_tokens=4", "--num_workers=0"])
    metrics = json.loads((tmp_path / "metrics.json").read_text())["metrics"]
    assert (metrics["dialogue/n"], metrics["dialogue/turns"], metrics["dialogue/missing"]) == (1, 2, 0)
    (line,) = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    assert len(line["answers"]) == 2
    report = score((tmp_path / "predictions.jsonl", tmp_path / "q.jsonl"), tmp_path / "again")
    assert report["metrics"]["ROUGE-L"] == metrics["dialogue/ROUGE-L"]


def test_a_judge_grades_once_and_goes_on(files, judge, tmp_path):
    asks = ["--judge.model=strict", f"--judge.url={judge.url}"]
    report = score(files, tmp_path / "out", *asks)
    metrics, about = report["metrics"], report["protocol"]["judge"]
    assert about["model"] == "strict" and len(about["prompts_sha256"]) == 64
    # four dimensions of two questions and one of the dialogue; the pair; and as much that nobody answered
    assert len(judge.prompts) == 2 * 4 + 1 + 1
    assert {name: metrics[f"n of {name}"] for name in DIMENSIONS} == dict.fromkeys(DIMENSIONS[:4], 4) | {
        "consistency": 3
    }
    assert metrics["correctness"] == 2.0, "a question without an answer scores 0"
    assert metrics["consistency"] == pytest.approx(8 / 3)
    assert metrics["mean"] == pytest.approx((4 * 2 + 8 / 3) / 5)
    assert about["missing"] == 9 and about["failed"] == 0
    (pair,) = [prompt for prompt in judge.prompts if "Which animal" in prompt]
    assert "Question 1: What is it?" in pair and "Model's answer 2: a cat" in pair
    (when,) = [prompt for prompt in judge.prompts if "order of events" in prompt and "And when?" in prompt]
    assert "Reference answer: From 1.0 s to 2.0 s." in when
    assert len((tmp_path / "out" / "judged.jsonl").read_text().splitlines()) == 19
    asked = len(judge.prompts)
    assert score(files, tmp_path / "out", *asks)["metrics"] == metrics
    assert len(judge.prompts) == asked, "what was graded is not graded again"


def test_a_judge_that_gives_no_number_is_refused_or_counted(files, judge, tmp_path):
    judge.reply = "Well done!"
    asks = ["--judge.model=mild", f"--judge.url={judge.url}", "--concurrency=1"]
    with pytest.raises(ValueError, match="malformed judge, 3 answers"):
        score(files, tmp_path / "out", *asks)
    report = score(files, tmp_path / "out", *asks, "--on_error=skip")
    assert report["protocol"]["judge"]["failed"] == 10
    assert report["metrics"]["mean"] == 0 and report["metrics"]["n of detail"] == 2


@pytest.mark.parametrize("reply", ['{"score": 3}', 'It is good: {"score": 3.0}.', '{"a": 1} {"score": 3, "why": "x"}'])
def test_a_grade_is_read(reply):
    assert read_score(reply) == 3


@pytest.mark.parametrize(
    "reply", ["", "3", "[3]", '{"score": "3"}', '{"score": 6}', '{"score": -1}', '{"score": true}']
)
def test_what_is_no_grade_is_refused(reply):
    with pytest.raises(ValueError, match="score"):
        read_score(reply)


def test_files_that_hold_no_dialogue_are_refused(files, tmp_path):
    predictions, queries = files
    write_queries(tmp_path / "g.jsonl", [Query("g", "v", "grounding", "x")])
    with pytest.raises(ValueError, match="no dialogue with reference answers in it"):
        score((predictions, tmp_path / "g.jsonl"), tmp_path / "out")
    with pytest.raises(ValueError, match=r"queries\.jsonl, line 1: no prediction of this project"):
        score((queries, queries), tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "rows", "dimensions"),
    [
        ("generic_qa.json", [{"Q": "What?", "A": "A dog.", "video_name": "v_x"}], ("correctness", "detail", "context")),
        ("temporal_qa.json", [{"Q": "What?", "A": "A dog.", "video_name": "v_x"}], ("temporal",)),
        ("consistency_qa.json", [{"Q1": "What?", "Q2": "Who?", "A": "A dog.", "video_name": "v_x"}], ("consistency",)),
    ],
)
def test_the_published_benchmark_is_read(tmp_path, name, rows, dimensions):
    (tmp_path / name).write_text(json.dumps(rows))
    args = ["annotations", "video_chatgpt", f"--input={tmp_path / name}", f"--output={tmp_path / 'q.jsonl'}"]
    assert prepare.main(args) == 0
    queries = list(read_queries(tmp_path / "q.jsonl"))
    assert len(queries) == (2 if name.startswith("c") else 1)
    found = exchanges([(query, Prediction(query.id, "v_x", "dialogue", "A cat")) for query in queries])
    assert tuple(exchange.dimension for exchange in found) == dimensions
    (tmp_path / "other.json").write_text(json.dumps(rows))
    args[2] = f"--input={tmp_path / 'other.json'}"
    assert prepare.main(args) == 2
    assert prepare.main([*args, f"--subset={name.split('_')[0]}"]) == 0
