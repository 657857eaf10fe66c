"""E.T. Bench: options and spans that were read from answers of this project, and options at the end of a text."""

import json
from pathlib import Path

import pytest

from metrics.benchmarks.benchmarks import score
from metrics.benchmarks.formats.files import FileError
from metrics.benchmarks.official_events import etbench_events
from metrics.benchmarks.official_windows import etbench_windows
from metrics.benchmarks.options import leading_letter, stated_letter

OPTIONS = {"p": 3, "o": ["a dog barks", "a cat", "a man who sings", "a woman"]}
ANSWER = "a woman and a man who sings walk on.<ent> Therefore, the answer is ({})."
"""As MeCo writes it; by its words it is most like option C."""


def write(path: Path, rows: list) -> Path:
    """One record a line."""
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def own(number: int, spans: list, **more) -> dict:
    """A line of this project's predictions.jsonl."""
    row = {"query_id": str(number), "video": "v", "task": "grounded_qa", "answer": "", "spans": spans, "captions": []}
    return row | {"saliency": [], "rule": "argmax" if spans else None} | more


def sample(task: str, number: int = 7, **more) -> dict:
    window = {"tgt": [2, 6]} if task == "gvq" else {}
    return {"idx": number, "task": task, "source": "s", "video": "v", **OPTIONS, **window, **more}


@pytest.mark.parametrize("policy", ["sound", "official"])
@pytest.mark.parametrize("task", ["gvq", "rar"])
def test_the_option_of_our_predictions_is_taken(tmp_path, task, policy):
    truth = write(tmp_path / "t.jsonl", [sample(task)])
    for option, wanted in ((3, 1.0), (2, 0.0)):
        row = own(7, [[2, 6, 0.9]], answer=ANSWER.format("ABCD"[option]), option=option)
        result = score("etbench", write(tmp_path / "p.jsonl", [row]), truth, policy)
        assert result["metrics"][task.upper()] == wanted
        details = result["protocol"]["per_task_source"][task]["s"]
        assert (details["Acc"], details["Failed"]) == (wanted, 0)


@pytest.mark.parametrize("option", [4, -1, True, "D"])
def test_an_option_that_the_sample_does_not_have_is_refused(tmp_path, option):
    truth = write(tmp_path / "t.jsonl", [sample("rar")])
    answers = write(tmp_path / "p.jsonl", [own(7, [], option=option)])
    with pytest.raises(FileError, match="record 1: 'option' must be the index of one of the 4 options"):
        score("etbench", answers, truth)


@pytest.mark.parametrize(
    ("answer", "option"),
    [
        (ANSWER.format("D"), 3),
        ("The answer is: C", 2),
        ("So the answer is (A). No, the answer is (B).", 1),
        ("the answer is A dog", None),
        ("the answer is (d)", None),
        ("the answer isn't (C)", None),
    ],
)
def test_the_option_behind_answer_is(answer, option):
    assert stated_letter(answer) == option


def test_the_option_at_the_end_of_anyones_text(tmp_path):
    truth = write(tmp_path / "t.jsonl", [sample("gvq", 0), sample("rvq", 1)])
    said = [{"idx": i, "a": f"2 - 6 seconds. Therefore, the answer is {o}."} for i, o in enumerate(("(D)", "D"))]
    metrics = score("etbench", write(tmp_path / "a.jsonl", said), truth)["metrics"]
    assert (metrics["GVQ"], metrics["RVQ"]) == (1.0, 1.0)


@pytest.mark.golden
@pytest.mark.parametrize("task", ["gvq", "dvc"])
def test_metrics_etbench_of_our_predictions(golden, close, tmp_path, java, encoder, task):
    """The golden answers, read beforehand as our predictions are, have the golden scores."""
    data = golden("etbench_all_tasks")
    rows = [row for row in data["inputs"]["samples"] if row["task"] == task]
    parser = etbench_windows if task == "gvq" else etbench_events
    answers = []
    for row in rows:
        read = parser(row["a"])
        option = leading_letter(row["a"]) if task == "gvq" else None
        if option is not None and option >= len(row["o"]):
            option = None
        said = row["a"] if task == "gvq" and option is None else "somewhere. Therefore, the answer is (A)."
        answers.append(own(row["idx"], [[*w, 1.0] for w in read.windows], captions=list(read.captions), answer=said,
                           option=option))  # fmt: skip
    truth = write(tmp_path / "t.jsonl", [{key: row[key] for key in row if key != "a"} for row in rows])
    metrics = score("etbench", write(tmp_path / "p.jsonl", answers), truth, "official")["metrics"]
    name = {"gvq": "GVQ", "dvc": "DVC_F1"}[task]
    close(metrics[name], data["expected"]["unrounded"]["task_means"][name], 1e-6)
