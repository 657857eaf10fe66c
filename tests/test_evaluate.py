"""evaluate.py on a trained run: numbers with their protocol, answers, pictures."""

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch.distributed as dist

import evaluate
from datamodules.clip import Clip
from datamodules.prediction import Prediction
from datamodules.query_files import read_queries, write_queries
from datamodules.schema import Event, Query
from datamodules.shards import ShardReader
from datamodules.sources import Source
from evaluation.protocol import protocol, setting
from evaluation.reporting import timeline_rows
from lightning_modules.trained import TrainedModel
from localizers.answer import Answer
from metrics import score
from preparation.features.shard_writer import ShardWriter

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def queries(world, tmp_path_factory) -> Path:
    """Grounding and dense captioning in one file."""
    path = tmp_path_factory.mktemp("queries") / "test.jsonl"
    tasks = ("grounding", "dense_captioning")
    write_queries(path, [query for task in tasks for query in read_queries(world / "test" / f"{task}.jsonl")])
    return path


@pytest.fixture(scope="module")
def benchmark(runs, world, queries):
    """Run the command; gives its output folder."""

    def run(output: Path, *more: str, run: Path = runs[3]) -> Path:
        args = [f"--checkpoint={run}", f"--shards={world / 'videos'}", f"--queries={queries}", f"--output={output}"]
        args += ["--generation.max_new_tokens=12", "--num_workers=0", *more]
        evaluate.main(["benchmark", *args])
        return output

    return run


@pytest.fixture(scope="module")
def finished(benchmark, tmp_path_factory) -> Path:
    return benchmark(tmp_path_factory.mktemp("finished"))


def report(folder: Path) -> dict:
    return json.loads((folder / "metrics.json").read_text())


def predictions(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]


def test_a_number_comes_with_its_protocol(finished, runs, llm, queries, world):
    metrics, protocol = report(finished)["metrics"], report(finished)["protocol"]
    asked = list(read_queries(queries))
    counts = [sum(query.task == task for query in asked) for task in ("grounding", "dense_captioning")]
    assert [metrics["grounding/n"], metrics["dense_captioning/n"]] == counts
    assert {f"grounding/{name}" for name in ("R1@0.3", "R1@0.5", "R1@0.7", "mIoU", "unparsed")} <= metrics.keys()
    assert protocol["missing"] == 0
    assert "exact IoU" in protocol["policy"]
    assert protocol["queries"] == {"file": str(queries), "sha256": hashlib.sha256(queries.read_bytes()).hexdigest()}
    assert protocol["features"]["shards"] == str(world / "videos")
    assert protocol["features"]["sampling"] == "uniform 16"
    decoding = {"max_new_tokens": 12, "temperature": 0.0}
    assert protocol["generation"] == {**decoding, "merge_spatial": False, "one_prompt": False}
    assert protocol["checkpoint"] == {"folder": str(runs[3]), "stage": "InstructionTuning"}
    assert protocol["base"]["name"] == llm
    assert protocol["localizer"]["init_args"]["ticks"] == 100
    first = next(query for query in asked if query.task == "grounding")
    assert first.text.lower() in protocol["prompts"]["grounding"]
    assert protocol["dtype"] == "float32"
    assert {"python", "torch", "transformers", "peft"} <= protocol["versions"].keys()
    assert protocol["seed"] == 0


def test_there_is_one_prediction_a_query(finished, queries):
    found = predictions(finished)
    assert [line["query_id"] for line in found] == sorted(query.id for query in read_queries(queries))
    assert all({"answer", "spans", "task", "video", "rule"} <= line.keys() for line in found)


def test_timelines_are_drawn(finished):
    content = (finished / "timelines.png").read_bytes()
    assert content.startswith(b"\x89PNG")
    assert len(content) > 5000


def test_chance_stands_beside_every_number(benchmark, finished, tmp_path, capsys):
    """Constant and random windows, how far the answers repeat themselves, and where they lie, as a picture."""
    found = report(finished)
    assert found["baselines"].keys() == {"constant window", "random window"}
    measures = {f"grounding/{name}" for name in ("R1@0.3", "R1@0.5", "R1@0.7", "mIoU")}
    assert all(row.keys() == measures for row in found["baselines"].values())
    assert (
        found["baselines"]["constant window"]["grounding/mIoU"] > found["baselines"]["random window"]["grounding/mIoU"]
    )
    assert 0 < found["metrics"]["collapse/true"] <= 100
    assert 0 <= found["metrics"]["collapse/predicted"] <= 100
    assert (finished / "spans.png").read_bytes().startswith(b"\x89PNG")
    benchmark(tmp_path)
    shown = capsys.readouterr().out
    assert "constant window" in shown and "random window" in shown


@pytest.mark.parametrize("frames", ["shuffled", "none", "other_video"])
def test_a_model_is_asked_about_other_frames(benchmark, finished, tmp_path, frames, capsys):
    """The same questions and videos; the protocol says what was seen."""
    benchmark(tmp_path, f"--frames={frames}")
    assert report(tmp_path)["protocol"]["frames"] == frames != report(finished)["protocol"]["frames"] == "given"
    assert report(tmp_path)["baselines"] == report(finished)["baselines"]
    assert [line["query_id"] for line in predictions(tmp_path)] == [line["query_id"] for line in predictions(finished)]
    assert f"frames: {frames}" in " ".join(capsys.readouterr().out.split())


def test_numbers_need_no_exchange_between_processes(benchmark, finished, tmp_path, monkeypatch):
    """Each of them has all answers by then, and those of a GPU group cannot exchange what lies on the CPU."""
    monkeypatch.setattr("evaluation.benchmark.leave_group", lambda: None)
    dist.init_process_group("cuda:gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        assert report(benchmark(tmp_path))["metrics"] == report(finished)["metrics"]
    finally:
        dist.destroy_process_group()


def test_a_query_without_a_length_has_a_timeline_too(world):
    reader, answer = ShardReader(world / "videos"), Prediction("q", "", "grounding", "")
    asked = Query("q", reader.ids[0], "grounding", "x", (Event(0, 1),))
    about = [(asked, answer), (replace(asked, duration_s=3.0), answer), (asked, None)]
    lengths = [length for *_, length in timeline_rows(about, reader)]
    assert lengths == [reader.duration_s(asked.video), 3.0]


@pytest.mark.parametrize("size", [1, 100])
def test_batches_change_nothing(benchmark, finished, tmp_path, size):
    benchmark(tmp_path, f"--batch_size={size}", "--num_workers=1")
    assert predictions(tmp_path) == predictions(finished)
    assert report(tmp_path) == report(finished)


KILLED = """
import os, signal, sys
sys.path.insert(0, {root!r})
import evaluate
from callbacks.predictions import PredictionWriter

write = PredictionWriter._write

def write_and_die(self, predictions):
    write(self, predictions)
    if self.predictions:
        self._part.write(b'{{"query_id": "half a li')
        self._part.flush()
        os.kill(os.getpid(), signal.SIGKILL)

PredictionWriter._write = write_and_die
evaluate.main()
"""
"""The command, with processes that are killed while they write the answers of their second batch."""


def test_killed_processes_go_on_and_change_nothing(python, runs, world, queries, finished, tmp_path):
    (tmp_path / "killed.py").write_text(KILLED.format(root=str(ROOT)))
    out = tmp_path / "out"
    args = [f"--checkpoint={runs[3]}", f"--shards={world / 'videos'}", f"--queries={queries}", f"--output={out}"]
    args += ["--generation.max_new_tokens=12", "--num_workers=0", "--devices=2", "--batch_size=3"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}

    def launch(script: Path) -> subprocess.CompletedProcess:
        command = [python, str(script), "benchmark", *args]
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)

    assert launch(tmp_path / "killed.py").returncode == -9
    assert not (out / "metrics.json").exists()
    kept = [line for part in sorted(out.glob("predictions.rank*.jsonl")) for line in part.read_bytes().split(b"\n")]
    kept = {json.loads(line)["query_id"] for line in kept if line.endswith(b"}")}
    assert 3 <= len(kept) <= 6
    so_far = score("queries", out, queries, partial=True)
    assert so_far["protocol"]["n"] == len(kept) and "grounding/mIoU" in so_far["metrics"]

    done = launch(ROOT / "evaluate.py")
    assert done.returncode == 0, done.stderr
    assert "All distributed processes registered. Starting with 2 processes" in done.stderr
    assert f"{len(kept)} of " in done.stdout and "asking the others" in done.stdout
    assert predictions(out) == predictions(finished)
    assert report(out)["protocol"].pop("resumed") == len(kept)
    assert without_resumed(report(out)) == without_resumed(report(finished))
    assert sorted(path.name for path in out.iterdir()) == sorted(path.name for path in finished.iterdir())


def without_resumed(content: dict) -> dict:
    return content | {"protocol": {key: value for key, value in content["protocol"].items() if key != "resumed"}}


@pytest.fixture
def stopped(benchmark, tmp_path, monkeypatch) -> Path:
    """The folder of a run that broke off after one batch of three answers."""
    answer, asked = TrainedModel.answer, []

    def answer_once(self, batch):
        if asked:
            raise RuntimeError("power cut")
        asked.append(batch)
        return answer(self, batch)

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="power cut"):
        patch.setattr(TrainedModel, "answer", answer_once)
        benchmark(tmp_path / "stopped", "--batch_size=3")
    return tmp_path / "stopped"


def test_a_run_that_was_stopped_asks_what_is_missing(benchmark, finished, stopped, monkeypatch):
    asked, answer = [], TrainedModel.answer
    monkeypatch.setattr(TrainedModel, "answer", lambda self, batch: asked.extend(batch.queries) or answer(self, batch))
    benchmark(stopped)
    assert len(asked) == len(predictions(finished)) - 3
    assert predictions(stopped) == predictions(finished)
    assert report(stopped)["protocol"]["resumed"] == 3 and report(finished)["protocol"]["resumed"] == 0
    assert report(stopped)["metrics"] == report(finished)["metrics"]
    benchmark(stopped)  # a run that has all answers begins anew
    assert report(stopped)["protocol"]["resumed"] == 0


def test_a_run_that_was_stopped_goes_on_as_it_began(benchmark, runs, stopped):
    before = {path.name: path.read_bytes() for path in stopped.iterdir()}
    for change, words in (
        ("--generation.max_new_tokens=13", "generation: "),
        ("--seed=1", "seed: 0 there, 1 now"),
        (f"--checkpoint={runs[2]}", "localizer|weights|checkpoint"),
    ):
        with pytest.raises(ValueError, match=rf"asked for otherwise \(({words})"):
            benchmark(stopped, change)
    assert {path.name: path.read_bytes() for path in stopped.iterdir()} == before


def test_all_answers_are_there_and_nothing_else(benchmark, finished, stopped, monkeypatch):
    """Killed between the last answer and the table."""
    (stopped / "predictions.rank0.jsonl").write_bytes((finished / "predictions.jsonl").read_bytes())
    monkeypatch.setattr(TrainedModel, "answer", None)
    benchmark(stopped)
    assert predictions(stopped) == predictions(finished)
    assert report(stopped)["metrics"] == report(finished)["metrics"]


def test_a_line_that_is_no_answer_is_named(benchmark, stopped):
    part = stopped / "predictions.rank0.jsonl"
    part.write_bytes(b"{}\n" + part.read_bytes())
    with pytest.raises(ValueError, match=r"predictions.rank0.jsonl, line 1: not a prediction"):
        benchmark(stopped)


def test_a_finished_run_that_lacks_answers_is_completed(benchmark, world, finished, queries, tmp_path, monkeypatch):
    whole, shards = tmp_path / "whole", without(world, {"test00002"}, tmp_path / "shards")
    benchmark(tmp_path / "out", f"--shards={shards}", "--on_error=skip")
    some = predictions(tmp_path / "out")
    shards.rename(tmp_path / "old")
    without(world, set(), whole).rename(shards)  # the video was found
    asked, answer = [], TrainedModel.answer
    monkeypatch.setattr(TrainedModel, "answer", lambda self, batch: asked.extend(batch.queries) or answer(self, batch))
    benchmark(tmp_path / "out", f"--shards={shards}", "--on_error=skip")
    assert {query.video for query in asked} == {"test00002"}
    assert report(tmp_path / "out")["protocol"]["resumed"] == len(some)
    assert predictions(tmp_path / "out") == predictions(finished)


@pytest.mark.parametrize("stage", [1, 2])
def test_every_stage_can_be_asked(benchmark, runs, tmp_path, stage):
    benchmark(tmp_path, run=runs[stage])
    assert report(tmp_path)["metrics"]["grounding/n"] > 0


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_other_number_types_know_the_same_base(benchmark, tmp_path, dtype):
    benchmark(tmp_path, f"--dtype={dtype}")
    assert report(tmp_path)["protocol"]["dtype"] == dtype


def test_sampling_depends_on_the_seed(benchmark, finished, tmp_path):
    warm = [f"--generation.temperature={value}" for value in (5, 5, 5)]
    folders = [benchmark(tmp_path / str(i), warm[i], f"--seed={seed}") for i, seed in enumerate((1, 1, 2))]
    answers = [[line["answer"] for line in predictions(folder)] for folder in folders]
    assert answers[0] == answers[1] != answers[2]


def without(world: Path, names: set[str], folder: Path) -> Path:
    reader = ShardReader(world / "videos")
    with ShardWriter(folder, reader.header) as writer:
        for name in reader.ids:
            if name not in names:
                writer.add(reader.read(name))
    return folder


def test_a_missing_video_counts_as_wrong(benchmark, world, finished, queries, tmp_path):
    shards = without(world, {"test00002"}, tmp_path / "shards")
    with pytest.raises(ValueError, match=r"query 'test00002\.\w+' is about video 'test00002', which is not in"):
        benchmark(tmp_path / "out", f"--shards={shards}")
    benchmark(tmp_path / "out", f"--shards={shards}", "--on_error=skip")
    lost = {query.id for query in read_queries(queries) if query.video == "test00002"}
    assert report(tmp_path / "out")["protocol"]["missing"] == len(lost)
    assert predictions(tmp_path / "out") == [line for line in predictions(finished) if line["query_id"] not in lost]
    found, whole = report(tmp_path / "out")["metrics"], report(finished)["metrics"]
    for name in ("grounding/n", "dense_captioning/n"):
        assert found[name] == whole[name]


def test_a_damaged_video_counts_as_wrong(benchmark, world, finished, queries, tmp_path):
    shards = without(world, set(), tmp_path / "shards")
    (tar,) = shards.glob("*.tar")
    records = {record["id"]: record for record in json.loads(tar.with_suffix(".index.json").read_text())["records"]}
    with open(tar, "r+b") as file:
        file.seek(records["test00002"]["members"]["features.npy"][0])
        file.write(b"damage")
    benchmark(tmp_path / "out", f"--shards={shards}", "--on_error=skip", "--batch_size=1")
    lost = {query.id for query in read_queries(queries) if query.video == "test00002"}
    assert report(tmp_path / "out")["protocol"]["missing"] == len(lost)
    assert report(tmp_path / "out")["metrics"]["grounding/n"] == report(finished)["metrics"]["grounding/n"]


def test_a_perfect_answer_scores_100(benchmark, world, tmp_path, monkeypatch):
    """And with one video of six away, its queries score 0 in the same denominator."""

    def know(self, batch):
        answers = [self.localizer.decode(q, Answer("From 00 to 00."), Clip(1.0, 1, 1.0)) for q in batch.queries]
        spans = [tuple((*event.span, 1.0) for event in query.events) for query in batch.queries]
        return [replace(answer, spans=span, rule="x") for answer, span in zip(answers, spans, strict=True)]

    monkeypatch.setattr("lightning_modules.trained.TrainedModel.answer", know)
    asked = f"--queries={world / 'test' / 'grounding.jsonl'}"
    benchmark(tmp_path / "all", asked)
    assert report(tmp_path / "all")["metrics"]["grounding/mIoU"] == pytest.approx(100)
    shards = without(world, {"test00002"}, tmp_path / "shards")
    benchmark(tmp_path / "some", asked, f"--shards={shards}", "--on_error=skip")
    videos = [query.video for query in read_queries(world / "test" / "grounding.jsonl")]
    share = 100 * (1 - videos.count("test00002") / len(videos))
    metrics = report(tmp_path / "some")["metrics"]
    assert metrics["grounding/mIoU"] == pytest.approx(share)
    assert metrics["grounding/R1@0.7"] == pytest.approx(share)


def test_features_of_another_encoder_are_refused(benchmark, runs, world, tmp_path):
    reader = ShardReader(world / "videos")
    with ShardWriter(tmp_path / "shards", replace(reader.header, encoder="another CLIP")) as writer:
        for name in reader.ids:
            writer.add(reader.read(name))
    with pytest.raises(
        ValueError, match=r"training data of .*stage3.*made differently: encoder: 'World.*'another CLIP'"
    ):
        benchmark(tmp_path / "out", f"--shards={tmp_path / 'shards'}")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("--checkpoint=nowhere", "nowhere holds no trained weights"),
        ("--shards=nowhere", "nowhere.*is missing"),
        ("--queries=nowhere.jsonl", "nowhere.jsonl"),
        ("--llm=/no/where", "llm '/no/where' is neither a folder"),
    ],
)
def test_what_is_not_there_is_named(benchmark, tmp_path, argument, words):
    with pytest.raises((ValueError, OSError), match=words):
        benchmark(tmp_path, argument)


def test_training_material_cannot_be_asked(benchmark, world, tmp_path):
    with pytest.raises(ValueError, match=r"query train00000\.events: an 'events' record is training material"):
        benchmark(tmp_path, f"--queries={world / 'stage2.jsonl'}")


@pytest.mark.parametrize(
    ("command", "argument", "words"),
    [
        ("benchmark", "--batchsize=3", "batchsize"),
        ("benchmark", "--batch=3", "batch"),  # abbreviations are off
        ("benchmark", "--batch_size=three", "three"),
        ("benchmark", "--on_error=ignore", "ignore"),
        ("benchmark", "--generation.temprature=1", "temprature"),
        ("benchmrk", "--query=x", "benchmrk"),
    ],
)
def test_bad_arguments_are_said_shortly(capsys, command, argument, words):
    known = {"benchmark": ["--checkpoint=a", "--shards=b", "--queries=c", "--output=d"]}
    with pytest.raises(SystemExit) as left:
        evaluate.main([command, *known.get(command, []), argument])
    assert left.value.code == 2
    message = capsys.readouterr().err
    assert words in message
    assert len(message.splitlines()) <= 4


def test_one_s_own_videos_are_asked_with_another_script(capsys):
    with pytest.raises(SystemExit) as left:
        evaluate.main(["video", "--checkpoint=a", "--video=b.mp4", "--query=c"])
    assert left.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "python ask.py --checkpoint RUN VIDEO QUERY" in line


def scored(folder: Path, answers: str, *options: str) -> list[str]:
    """Files and arguments of ``score``: two moments of one video."""
    moments = [{"id": i, "vid": "v", "query": f"he runs {i}", "gt": [0, 10]} for i in "ab"]
    (folder / "truth.json").write_text(json.dumps(moments))
    (folder / "answers.jsonl").write_text(answers)
    files = [f"--predictions={folder / 'answers.jsonl'}", f"--annotations={folder / 'truth.json'}"]
    return ["score", "--benchmark=charades_sta", *files, *options]


def test_anyone_s_predictions_are_scored(tmp_path, capsys):
    answers = '{"id": "a", "pred": [0, 7]}\n{"id": "b", "pred": null}\n'
    evaluate.main(scored(tmp_path, answers, f"--output={tmp_path / 'new'}"))
    report = json.loads((tmp_path / "new" / "metrics.json").read_text())
    assert report["metrics"] == {"R1@0.3": 50.0, "R1@0.5": 50.0, "R1@0.7": 50.0, "mIoU": 35.0}
    protocol = report["protocol"]
    counts = {name: protocol[name] for name in ("n", "missing", "unparsed", "invalid", "policy")}
    assert counts == {"n": 2, "missing": 0, "unparsed": 1, "invalid": 0, "policy": "sound"}
    assert set(protocol["files"]) == {"predictions", "annotations"} and protocol["versions"]["python"]
    shown = " ".join(capsys.readouterr().out.split())
    assert all(word in shown for word in ("mIoU", "35", "charades_sta, policy sound", "unparsed"))
    evaluate.main(scored(tmp_path, answers, "--policy=official"))
    assert "policy official" in " ".join(capsys.readouterr().out.split())


def test_files_that_do_not_fit_end_with_code_2_and_one_line(tmp_path):
    args = scored(tmp_path, '{"id": "a", "pred": [0, 7]}\n{"id": \n')
    script = Path(evaluate.__file__)
    done = subprocess.run([sys.executable, script, *args], capture_output=True, text=True, cwd=script.parent)
    assert done.returncode == 2 and not done.stdout
    (line,) = done.stderr.splitlines()
    assert "answers.jsonl, line 2: not JSON" in line


def test_a_result_says_whether_its_videos_were_trained_on(runs, world, tmp_path):
    trained_on, new = tmp_path / "seen.jsonl", tmp_path / "new.jsonl"
    (seen,) = [query for query in read_queries(world / "stage2.jsonl") if query.video == "train00000"]
    write_queries(trained_on, [Query("q", "train00000", "grounding", "x", events=seen.events[:1])])
    write_queries(new, [Query("q", "test00000", "grounding", "x")])
    settings = {file: setting(runs[2], list(read_queries(file))) for file in (trained_on, new)}
    assert settings[trained_on] == "in-domain: 1 of 1 evaluation videos (100.0%) are in the training data"
    assert settings[new].startswith("zero-shot: 0 of 1")
    assert setting(tmp_path, list(read_queries(new))).startswith("unknown")


def test_both_questions_of_a_conversation_are_in_the_protocol(runs, world, queries):
    module = TrainedModel.from_run(runs[3])
    module.configure_model()
    query = Query("g", "test00000", "grounded_qa", "why does it run?", (Event(1, 2),), options=("a", "b"), answer=0)
    answered = [(query, Prediction("g", "test00000", "grounded_qa", "A"))]
    videos = str(world / "videos")
    written = protocol(module, ShardReader(videos).header, Source(videos, queries), 0, answered)
    chosen, found = written["prompts"]["grounded_qa"].rsplit("\n", 1)
    assert "why does it run?" in chosen and "A. a\nB. b" in chosen
    assert "During which frames" in found
