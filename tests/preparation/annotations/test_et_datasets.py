"""E.T. Instruct and E.T. Bench -> queries: windows of each task, and times as text or as tokens."""

import json
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules.clip import Clip
from datamodules.query_files import query_from_dict, query_to_dict
from datamodules.schema import Event, Query, Turn
from localizers import StructuralTokens
from preparation.annotations import reader
from preparation.annotations.conversion import convert
from preparation.annotations.et_instruct import windows
from preparation.annotations.time_marks import TimeMarks

ET = {"task": "tvg", "source": "queryd", "video": "queryd/abc.mp4", "duration": 20.0, "tgt": [5.2, 11.7],
      "conversations": [{"from": "human", "value": "<image>\nFind it."},
                        {"from": "gpt", "value": "<vid> - <vid> seconds"}]}  # fmt: skip
BENCH = {"version": 1.0, "idx": 0, "task": "tvg", "source": "qvhighlights", "video": "qvhighlights/a.mp4",
         "duration": 35.0, "tgt": [15.0, 31.0], "q": "Find the event."}  # fmt: skip
times = st.floats(0, 500, allow_nan=False).map(lambda value: round(value, 2))
spans = st.tuples(times, st.floats(0.5, 90).map(lambda value: round(value, 2))).map(lambda t: (t[0], t[0] + t[1]))


def save(folder: Path, name: str, content) -> Path:
    (folder / name).write_text(json.dumps(content))
    return folder / name


def one(name: str, path: Path, **options) -> Query:
    (query,), dropped = reader(name)(path, **options)
    assert not dropped
    assert query_from_dict(json.loads(json.dumps(query_to_dict(query)))) == query
    return query


def et(task: str, said: str, asked: str = "<image>\nDo it.", **times) -> dict:
    return ET | {"task": task, "tgt": [], **times, "conversations": [
        {"from": "human", "value": asked}, {"from": "gpt", "value": said}]}  # fmt: skip


@pytest.mark.parametrize(
    ("row", "spans"),
    [
        (et("tvg", "", tgt=[5.2, 11.7]), [(5.2, 11.7)]),
        (et("tal", "", tgt=[1, 2, 5, 6]), [(1, 2), (5, 6)]),
        (et("evs", "", tgt=[1, 2, 5, 6]), [(1, 2), (5, 6)]),
        (et("epm", "", tgt=[1, 2]), [(1, 2)]),
        (et("gvq", "", tgt=[1, 2]), [(1, 2)]),
        (et("dvc", "", tgt=[1, 2]), [(1, 2)]),
        (et("slc", "", tgt=[1, 2]), [(1, 2)]),
        (et("rvc", "", src=[3, 4], tgt=[]), [(3, 4)]),
        (et("vhd", "", tgt=[3.5, 19]), [(3.5, 5.5), (19, 20)]),
        (et("tvc", "", tgt=[0, 4, 9]), [(0, 4), (4, 9), (9, 19)]),
        (et("tvc", "", tgt=[0, 18.5]), [(0, 18.5), (18.5, 19.5)]),
        (et("dvc", "", tgt=[1, 2], windows=[[3, 4]]), [[3, 4]]),
    ],
)
def test_et_instruct_windows(row, spans):
    assert windows(row, 20.0) == spans


@pytest.mark.parametrize(
    ("row", "turn"),
    [
        (
            et("tvg", "<vid> - <vid> seconds", tgt=[5.2, 11.7]),
            Turn("Do it.", "<s0> - <e0> seconds", "grounding", (Event(5.2, 11.7),), times={"<s0>": 5.2, "<e0>": 11.7}),
        ),
        (
            et("tvg", "5.2 - 11.7 seconds", "<image>\nFind 5.2 men.", tgt=[5.2, 11.7]),
            Turn("Find 5.2 men.", "<s0> - <e0> seconds", "grounding", (Event(5.2, 11.7),),
                 times={"<s0>": 5.2, "<e0>": 11.7}),
        ),
        (
            et("dvc", "1.0 - 2.0 seconds, 2 men cut. 2.0 - 4.2 seconds, they eat.", tgt=[1, 2, 2, 4.23]),
            Turn("Do it.", "<s0> - <e0> seconds, 2 men cut. <s1> - <e1> seconds, they eat.", "dense_captioning",
                 (Event(1, 2, "2 men cut"), Event(2, 4.23, "they eat")),
                 times={"<s0>": 1, "<e0>": 2, "<s1>": 2, "<e1>": 4.23}),
        ),
        (
            et("rvc", "He eats.", "<image>\nWhat happens in <vid> - <vid>?", src=[3, 4]),
            Turn("What happens in <s0> - <e0>?", "He eats.", "segment_captioning", (Event(3, 4, "He eats"),),
                 times={"<s0>": 3, "<e0>": 4}),
        ),
        (
            et("vhd", "<vid>", tgt=[3]),
            Turn("Do it.", "<s0>", "grounding", (Event(3, 5),), times={"<s0>": 3}),
        ),
        (
            et("gvq", "The man walks.<ent>Therefore, it is (B).", tgt=[5.2, 11.7]),
            Turn("Do it.", None, "grounding", (Event(5.2, 11.7, detail="The man walks. Therefore, it is (B)."),)),
        ),
    ],
)  # fmt: skip
def test_et_instruct_turns(tmp_path, row, turn):
    query = one("et_instruct", save(tmp_path, "a.json", [row]))
    assert query.turns == (turn,)
    assert (query.id, query.video, query.source, query.duration_s) == ("queryd/abc#0", "queryd/abc", "queryd", 20)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (et("abc", "x", tgt=[1, 2]), "unknown task"),
        (et("tvg", "<vid>", tgt=[1, 2, 3]), "odd number of times"),
        (et("tvg", "<vid> - <vid>", tgt=[1, 25]), "event outside the video"),
        (et("tvg", "<vid> - <vid>", tgt=[5, 1]), "end is not after the start"),
        (et("tvg", "<vid> - <vid>, <vid>", tgt=[1, 2]), "more <vid> than times"),
        (et("tvg", "1.0 - 7.0", tgt=[1, 2]), "time that is not in the text"),
        (et("tvg", "<s0>: <vid> - <vid>", tgt=[1, 2]), "text that reads like a time marker"),
        (et("tvg", "x", tgt=[]), "no times"),
        (et("tal", "one.<ent>", tgt=[1, 2, 3, 4]), "captions and windows differ"),
        (et("tal", "one.<ent> <ent>", tgt=[1, 2, 3, 4]), "an <ent> without a text before it"),
        (et("tvg", "", tgt=[1, 2]), "questions and answers do not alternate"),
        (ET | {"duration": "long"}, "duration is not a number"),
    ],
)
def test_et_instruct_refuses(tmp_path, row, reason):
    path = save(tmp_path, "a.json", [ET, row])
    with pytest.raises(ValueError, match=f"a.json, record 1: {reason}"):
        reader("et_instruct")(path)
    queries, dropped = reader("et_instruct")(path, "skip")
    assert (len(queries), dropped.total()) == (1, 1)


@pytest.mark.parametrize(
    ("row", "answer"),
    [
        (et("tvg", "It happens in <vid> - <vid>.", "Find 'a man's dog.'. Say '<a>'.", tgt=[5, 9]),
         "<tst>\nA man's dog.<ent>\n<tst>"),
        (et("epm", "<vid> - <vid> seconds", tgt=[5, 9]), "<tst>\n<ent>\n<tst>"),
        (et("tal", "In <vid> - <vid> and <vid> - <vid>.", tgt=[1, 3, 6.5, 9]), "<tst>\n<ent>\n<tst>\n<ent>\n<tst>"),
        (et("evs", "In 1.0 - 3.0, and 6.5 - 9.0 seconds.", tgt=[1, 3, 6.5, 9]),
         "<tst>\n<ent>\n<tst>\n<ent>\n<tst>"),
        (et("vhd", "<vid>", tgt=[7]), "<tst>\n<ent>\n<tst>"),
        (et("gvq", "<vid> - <vid>. The option is (A).", tgt=[5, 9]), "<tst>\nThe option is (A).<ent>\n<tst>"),
        (et("dvc", "<vid> - <vid>, he cuts. <vid> - <vid>, he eats.", tgt=[0, 6, 6, 19]),
         "He cuts.<ent>\nHe eats.<ent>"),
        (et("slc", "1.0 - 6.0 seconds, cut. 9.0 - 19.0 seconds, eat.", tgt=[1, 6, 9, 19]),
         "<tst>\nCut.<ent>\n<tst>\nEat.<ent>"),
        (et("tvc", "<vid> seconds, he cuts. <vid> seconds, he eats.", tgt=[1, 9]),
         "<tst>\nHe cuts.<ent>\nHe eats.<ent>"),
        (et("rvc", "He eats.", "<image>\nWhat in <vid> - <vid>?", src=[3, 4]), "<tst>\nHe eats.<ent>\n<tst>"),
        (et("gvq", "<tst>\nHe eats.<ent>Therefore, the answer is (B).\n<tst>", tgt=[5, 9]),
         "<tst>\nHe eats. Therefore, the answer is (B).<ent>\n<tst>"),
    ],
)  # fmt: skip
def test_meco_writes_every_task_of_the_published_files(tmp_path, row, answer):
    """With what they say of an event; times become tokens."""
    query = one("et_instruct", save(tmp_path, "a.json", [row]))
    assert StructuralTokens().render(query.turns[0], Clip(20.0, 20, 1.0), Random(0)).answer == answer


@pytest.mark.parametrize(
    ("row", "question"),
    [
        ({"q": "Find the visual event: 'x'. The format of your response should be: 'a - b'."},
         "Find the clip: 'x'. Provide a detailed description of the clip."),
        ({"task": "evs", "tgt": [[1, 2]], "q": "A video about x. Watch the video carefully and list a - b."},
         "A video about x. Summarize the video into a brief synopsis by focusing on the clips that contain the most "
         "important visual cues related to the topic."),
        ({"task": "dvc", "source": "hirest", "tgt": [[1, 2]], "g": ["x"], "q": "Cooking. Watch the video carefully .."},
         "Cooking. Densely summarize the video by localizing clips that depict a series of major activity events and "
         "briefly describing each event. The event descriptions should start with action verbs."),
        ({"task": "gvq", "o": ["a", "b"], "p": 0,
          "q": "Look. Now I give you the question: who sings?. The options are: (A) a (B) b. Answer."},
         "Watch the video carefully with the question who sings? in mind and find the clip that contains the answer. "
         "Provide your analysis of the clip that supports your answer and finally provide the answer by choosing from "
         "the given options and end your response with 'Therefore, the answer is ...'. Here are the options:\n"
         "(A) a (B) b"),
        ({"task": "rar", "tgt": [], "o": ["a", "b"], "p": 0, "q": "Which?"}, "Which?"),
    ],
)  # fmt: skip
def test_the_questions_of_the_released_meco_evaluation(tmp_path, row, question):
    query = one("etbench", save(tmp_path, "a.json", [BENCH | row]), prompts="meco")
    assert query.turns[0].question == question
    (kept,), _ = reader("etbench")(tmp_path / "a.json")
    assert kept.turns[0].question == (BENCH | row)["q"]


FORMAT = " The format of your response should be: 'The event happens in <start time> - <end time>'."
ASKED = {
    "tvg": "Watch the video carefully and find a visual event described by the sentence: 'a man's dog runs.'." + FORMAT,
    "epm": "Find the event that can answer the question: 'a man's dog runs?'." + FORMAT,
    "tal": 'Find all the visual events of the action "a man\'s dog runs".' + FORMAT,
    "evs": "You are given a video about 'a man's dog runs'. Watch the video carefully and summarize it." + FORMAT,
    "vhd": "Find a highlight of ‘a man's dog runs’." + FORMAT,
    "dvc": "Watch the video carefully and densely describe all the steps." + FORMAT,
    "slc": "Watch the video carefully and identify all the steps." + FORMAT,
    "tvc": "Watch the video and say when each event begins, as in '12.0 seconds, he eats.'",
    "rvc": "What happens from <vid> to <vid> in the video? Answer in 'one sentence'.",
    "gvq": "Answer it. Now I give you the question: who runs?. The options are: (A) a cat (B) a dog. Choose one.",
}
"""In the style of the published benchmark; the wording of E.T. Instruct differs a sample."""


def rows_of(task: str, asked: str, count: int = 60) -> list[dict]:
    said = {"rvc": "He eats.", "vhd": "<vid>", "tvc": "<vid> seconds, he eats."}.get(task, "<vid> - <vid>")
    times = {"src": [3, 4]} if task == "rvc" else {"tgt": [3] if task in ("vhd", "tvc") else [3, 4]}
    return [et(task, said, f"<image>\n{asked}", **times) for _ in range(count)]


@pytest.mark.parametrize("task", ASKED)
def test_et_instruct_is_asked_in_five_wordings_a_task(tmp_path, task):
    queries, notes = reader("et_instruct")(save(tmp_path, "a.json", rows_of(task, ASKED[task])), prompts="meco")
    assert not notes
    asked = {query.turns[0].question for query in queries}
    assert len(asked) >= 5
    for question in asked:
        assert "format" not in question and "start time" not in question
        assert ("a man's dog runs" in question) == (task in ("tvg", "epm", "tal", "evs", "vhd"))
        assert ("<s0>" in question and "<e0>" in question) == (task == "rvc")
        assert ("who runs?" in question and question.endswith(("(A) a cat (B) a dog",))) == (task == "gvq")
        assert "{" not in question
    published, _ = reader("et_instruct")(tmp_path / "a.json")
    for mine, theirs in zip(queries, published, strict=True):  # nothing but the question is another
        assert replace(mine, turns=theirs.turns) == theirs
        assert replace(mine.turns[0], question=theirs.turns[0].question) == theirs.turns[0]
    again, _ = reader("et_instruct")(tmp_path / "a.json", prompts="meco")
    assert again == queries


@pytest.mark.parametrize(
    ("task", "asked"),
    [
        ("tvg", "Find the man who opens the door."),
        ("tvg", "Find the man who opens the door." + FORMAT),
        ("tal", "Find all events like '1.0 - 2.0 seconds'."),
        ("gvq", "Who runs? Choose a dog or a cat."),
        ("gvq", "Choose. (A) a cat (B) a dog."),
        ("rvc", "What happens?"),
    ],
)
def test_questions_that_do_not_say_what_they_are_about_are_kept_and_counted(tmp_path, task, asked):
    rows = [row | ({"src": [], "windows": [[3, 4]]} if task == "rvc" else {}) for row in rows_of(task, asked, 3)]
    path = save(tmp_path, "a.json", rows)
    queries, notes = reader("et_instruct")(path, prompts="meco")
    assert [query.turns[0].question for query in queries] == [asked] * 3
    (reason,) = notes
    assert (reason.startswith(f"question kept as published: {task}"), notes[reason]) == (True, 3)
    converted = convert("et_instruct", path, prompts="meco")
    assert {("read", 3), ("kept", 3), (reason, 3)} <= set(converted.rows())


def test_meco_s_own_questions_are_kept(tmp_path):
    row = et(
        "tvg", "A man walks.<ent>", "<image>\nFind 'a man'. Provide a detailed description of the clip.", tgt=[3, 4]
    )
    (turn,) = one("et_instruct", save(tmp_path, "a.json", [row]), prompts="meco").turns
    assert turn.question == "Find 'a man'. Provide a detailed description of the clip."


@pytest.mark.parametrize(
    "row", [{"q": "Find 'x'."}, {"task": "evs", "tgt": [[1, 2]], "q": "Sum it up."},
            {"task": "gvq", "o": ["a", "b"], "p": 0, "q": "Who sings?"}],
)  # fmt: skip
def test_a_benchmark_s_question_that_cannot_be_cut_is_kept_and_counted(tmp_path, row):
    (query,), notes = reader("etbench")(save(tmp_path, "a.json", [BENCH | row]), prompts="meco")
    assert query.turns[0].question == row["q"]
    assert list(notes.values()) == [1]


def test_etbench(tmp_path):
    rows = [
        BENCH,
        BENCH | {"idx": 1, "task": "vhd", "tgt": [[[1, 2]], [[3, 4], [5, 6]]]},
        BENCH | {"idx": 2, "task": "dvc", "tgt": [[1, 2], [3, 4]], "g": ["he cuts.", "he eats"]},
        BENCH | {"idx": 3, "task": "rar", "src": [7.5], "tgt": [], "q": "What at <vid>?", "o": ["a", "b"], "p": 1},
        BENCH | {"idx": 4, "task": "gvq", "tgt": [[1, 2]], "o": ["a", "b", "c"], "p": 0},
    ]
    queries, dropped = reader("etbench")(save(tmp_path, "a.json", rows))
    assert not dropped
    assert [query.id for query in queries] == list("01234")
    assert [query.task for query in queries] == ["grounding", "grounding", "dense_captioning", "qa", "grounded_qa"]
    assert [len(query.events) for query in queries] == [1, 3, 2, 0, 1]
    assert queries[2].events[0] == Event(1, 2, "he cuts")
    assert queries[3].turns == (Turn("What at <s0>?", task="qa", times={"<s0>": 7.5}),)
    assert (queries[3].answer, queries[4].answer, queries[4].options) == (1, 0, ("a", "b", "c"))
    with pytest.raises(ValueError, match="captions and windows differ .1 and 2"):
        reader("etbench")(save(tmp_path, "a.json", [rows[2] | {"g": ["x"]}]))


@settings(max_examples=60, deadline=None)
@given(st.lists(spans, min_size=1, max_size=5), st.booleans())
def test_time_marks_find_every_time_in_order(moments, tokens):
    flat = [time_s for span in moments for time_s in span]
    written = ["<vid>" if tokens else f"{time_s:.1f}" for time_s in flat]
    text = "; ".join(f"{a} - {b} seconds, x" for a, b in zip(written[::2], written[1::2], strict=True))
    marks = TimeMarks(flat, paired=True)
    replaced, found = marks.replace(text)
    assert marks.finish() == len(moments)
    assert replaced == "; ".join(f"<s{k}> - <e{k}> seconds, x" for k in range(len(moments)))
    assert list(found.values()) == flat
