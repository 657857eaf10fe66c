"""Every dataset's raw layout -> queries in seconds; wrong input is refused with its place, or counted."""

import csv
import json
from collections import Counter
from pathlib import Path

import pytest

from datamodules.query_files import query_from_dict, query_to_dict, read_queries, write_queries
from datamodules.schema import Event, Query, Turn
from preparation.annotations import READERS, reader
from preparation.annotations.conversion import convert
from preparation.annotations.durations import read_durations

MOMENTS = "nextgqa_val_grounding.json"


def save(folder: Path, name: str, content) -> Path:
    if name.endswith(".jsonl") and not isinstance(content, str):
        content = "".join(json.dumps(row) + "\n" for row in content)
    (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return folder / name


def table(folder: Path, name: str, rows: list[dict]) -> Path:
    with open(folder / name, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return folder / name


QVH = {
    "qid": 7,
    "query": " A girl cooks. ",
    "duration": 8,
    "vid": "NUsG9BgSes0_210.0_218.0",
    "relevant_windows": [[2, 4], [6, 8]],
    "relevant_clip_ids": [1, 3],
    "saliency_scores": [[1, 1, 2], [4, 0, 3]],
}
DIDEMO = {"video": "a@N04_1_2c.m4v", "description": "he waves.", "annotation_id": 3, "num_segments": 6,
          "times": [[0, 0], [4, 5], [4, 5]]}  # fmt: skip
INTERNVID = {"YoutubeID": "HdYoyzCSWyw", "Start_timestamp": "00:01:10.500", "End_timestamp": "00:01:13.250",
             "Caption": "a woman types.", "UMT_Score": 0.4}  # fmt: skip
NEXTQA = {"video": "123", "frame_count": "99", "width": "4", "height": "3", "question": "why?", "answer": "2",
          "qid": "6", "type": "CW", "a0": "a", "a1": "b", "a2": "c", "a3": "d", "a4": "e"}  # fmt: skip
LLAVA = {"id": "0045", "image": "00/0045.jpg", "conversations": [
    {"from": "human", "value": "Say it.\n<image>"}, {"from": "gpt", "value": "a bed"}]}  # fmt: skip
INSTRUCT = {"video_id": "v_abcdefghijk", "q": "What is it?", "a": "A dog."}
TVSUM = {
    "vid": "sTEELN-vY30",
    "domain": "VU",
    "query": "car tire",
    "duration": 5,
    "label": [[1] * 20, [5] * 20, [2] * 20],
}
YOUTUBE = {"vid": "fXx44D1sqUw", "domain": "dog", "label": [[0], [1]]}
ET = {"task": "tvg", "source": "queryd", "video": "queryd/abc.mp4", "duration": 20.0, "tgt": [5.2, 11.7],
      "conversations": [{"from": "human", "value": "<image>\nFind it."},
                        {"from": "gpt", "value": "<vid> - <vid> seconds"}]}  # fmt: skip
BENCH = {"version": 1.0, "idx": 0, "task": "tvg", "source": "qvhighlights", "video": "qvhighlights/a.mp4",
         "duration": 35.0, "tgt": [15.0, 31.0], "q": "Find the event."}  # fmt: skip
STORY = {"duration": 20.0, "timestamps": [[1, 2.5], [3, 9]], "sentences": ["He runs.", " She waits. "]}
YOUCOOK = {"duration": 20.0, "subset": "training", "recipe_type": "1", "video_url": "u",
           "annotations": [{"segment": [1, 2], "id": 0, "sentence": "cut it"}]}  # fmt: skip
CHARADES = {"subset": "Test", "duration": 30.96, "annotations": [
    {"label": "person turn a light on.", "segment": [24.3, 30.4], "segment(frames)": [583, 729]}]}  # fmt: skip
PLAIN = {"id": "a", "video": "v", "task": "qa", "text": "what?", "options": ["x", "y"], "answer": 1}
FIXTURES = {
    "activitynet": ("a.json", {"v_x": STORY}),
    "charades_sta": ("a.json", {"database": {"3MSZA": CHARADES}}),
    "didemo": ("a.json", [DIDEMO]),
    "et_instruct": ("a.json", [ET]),
    "etbench": ("a.json", [BENCH]),
    "internvid": ("a.jsonl", [INTERNVID]),
    "llava": ("a.json", [INSTRUCT]),
    "nextqa": ("a.csv", "video,question,answer,qid,a0,a1,a2,a3,a4\n1,why?,2,6,a,b,c,d,e\n"),
    "plain": ("a.jsonl", [PLAIN]),
    "qvhighlights": ("a.jsonl", [QVH]),
    "tvsum": ("a.jsonl", [TVSUM]),
    "video_chatgpt": ("generic_a.json", [{"Q": "What?", "A": "A dog.", "video_name": "v_x"}]),
    "vtimellm": ("a.json", [LLAVA]),
    "youcook2": ("a.json", {"database": {"x": YOUCOOK}}),
    "youtube_highlights": ("a.jsonl", [YOUTUBE]),
}


def one(name: str, path: Path, **options) -> Query:
    (query,), dropped = reader(name)(path, **options)
    assert not dropped
    assert query_from_dict(json.loads(json.dumps(query_to_dict(query)))) == query
    return query


@pytest.mark.parametrize(
    ("name", "file", "options", "queries", "videos"),
    [
        ("charades_sta", "charades_sta_test.json", {}, {"grounding": 3720}, 1334),
        ("activitynet", "activitynet_captions_val_2.json", {}, {"grounding": 17031, "dense_captioning": 4885}, 4885),
        ("youcook2", "youcook2_val.json", {}, {"grounding": 3492, "dense_captioning": 457}, 457),
        ("qvhighlights", "qvhighlights_val.jsonl", {}, {"grounding": 1550}, 1519),
        ("nextqa", "nextgqa_val_questions.csv", {}, {"qa": 3358}, 567),
        (
            "nextgqa",
            "nextgqa_val_questions.csv",
            {"grounding": "nextgqa_val_grounding.json"},
            {"grounded_qa": 3358},
            567,
        ),
    ],
)
def test_published_files_hold_the_published_counts(tmp_path, real, name, file, options, queries, videos):
    more = {key: real(f"annotations/{path}") for key, path in options.items()}
    found, dropped = reader(name)(real(f"annotations/{file}"), **more)
    assert not dropped
    assert Counter(query.task for query in found) == queries
    assert len({query.video for query in found}) == videos
    write_queries(tmp_path / "queries.jsonl", found)
    assert list(read_queries(tmp_path / "queries.jsonl")) == found


def test_queries_of_published_files_have_the_ids_that_the_evaluator_gives(real):
    annotations = pytest.importorskip("metrics.benchmarks.formats.moments")
    for name, file in (("charades_sta", "charades_sta_test.json"), ("activitynet", "activitynet_captions_val_2.json")):
        path = real(f"annotations/{file}")
        queries = {query.id: query for query in reader(name)(path)[0] if query.task == "grounding"}
        moments = annotations.moments(path)
        assert queries.keys() == {moment.id for moment in moments}
        for moment in moments:
            assert tuple(event.span for event in queries[moment.id].events) == moment.windows


def test_qvhighlights(tmp_path):
    query = one("qvhighlights", save(tmp_path, "a.jsonl", [QVH]))
    assert (query.id, query.video, query.task, query.text) == ("7", QVH["vid"], "grounding", "A girl cooks.")
    assert [event.span for event in query.events] == [(2, 4), (6, 8)]
    assert query.saliency == ((0, 0, 0), (1, 1, 2), (0, 0, 0), (4, 0, 3))
    assert (query.clip_s, query.duration_s) == (2, 8)
    test = {key: QVH[key] for key in ("qid", "query", "duration", "vid")}
    query = one("qvhighlights", save(tmp_path, "a.jsonl", [test]))
    assert (query.events, query.saliency, query.clip_s) == ((), (), 2)


CHARADES_LAYOUTS = [
    ("a.txt", "3MSZA 24.3 30.4##person turn a light on.\n\n"),
    ("a.json", {"database": {"3MSZA": CHARADES}}),
    ("a.json", {"3MSZA": {"duration": 30.96, "timestamps": [[24.3, 30.4]], "sentences": ["person turn a light on."]}}),
    ("a.json", [["3MSZA", 30.96, [24.3, 30.4], "person turn a light on."]]),
    ("a.json", [{"vid": "3MSZA", "query": "person turn a light on.", "gt": [24.3, 30.4], "duration": 30.96}]),
    ("a.jsonl", [{"qid": 5, "vid": "3MSZA", "query": "person turn a light on.", "duration": 30.96,
                  "relevant_windows": [[24.3, 30.4]]}]),
    ("a.json", {"annotations": [{"image_id": "3MSZA.mp4", "caption": "person turn a light on.", "id": 9,
                                 "timestamp": [24.3, 30.4], "duration": 30.96}]}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content"), CHARADES_LAYOUTS)
def test_charades_layouts(tmp_path, name, content):
    table(tmp_path, "Charades_v1_test.csv", [{"id": "3MSZA", "subject": "x", "length": "30.96"}])
    query = one("charades_sta", save(tmp_path, name, content), durations=tmp_path / "Charades_v1_test.csv")
    assert (query.video, query.text, query.duration_s) == ("3MSZA", "person turn a light on.", 30.96)
    assert query.events == (Event(24.3, 30.4),)
    assert query.id == {"vid": "1", "qid": "5", "image_id": "9"}.get(
        next(iter((content if isinstance(content, list) else content.get("annotations", [[]]))[0]), "")
        if not isinstance(content, str)
        else "",
        "3MSZA/grounding/0",
    )


def test_charades_text_without_durations_and_with_bad_lines(tmp_path):
    path = save(tmp_path, "a.txt", "3MSZA 24.3 30.4##a\n3MSZA 30.4 24.3##b\n3MSZA 1 2 c\n3MSZA 1 2##d\n")
    with pytest.raises(ValueError, match="a.txt, line 3: not 'VIDEO start end##sentence'"):
        reader("charades_sta")(path)
    queries, dropped = reader("charades_sta")(path, "skip")
    assert [(query.id, query.duration_s) for query in queries] == [
        ("3MSZA/grounding/0", None), ("3MSZA/grounding/2", None)]  # fmt: skip
    assert dropped == {"not 'VIDEO start end##sentence'": 1, "end is not after the start": 1}
    table(tmp_path, "d.csv", [{"id": "OTHER", "length": "3"}])
    with pytest.raises(ValueError, match="line 1: video without a duration .'3MSZA' is not in"):
        reader("charades_sta")(save(tmp_path, "a.txt", "3MSZA 24.3 30.4##a\n"), durations=tmp_path / "d.csv")


def test_youcook2(tmp_path):
    path = save(tmp_path, "a.json", {"database": {"x": YOUCOOK, "y": YOUCOOK | {"subset": "validation"}}})
    queries, _ = reader("youcook2")(path, subset="validation", tasks=["grounding", "events"])
    assert [(query.id, query.text) for query in queries] == [("y/grounding/0", "cut it"), ("y/events", "")]
    assert queries[1].events == (Event(1, 2, "cut it"),)
    with pytest.raises(ValueError, match="no subset 'test' in it, only training, validation"):
        reader("youcook2")(path, subset="test")


def test_nextqa_and_nextgqa(tmp_path):
    query = one("nextqa", table(tmp_path, "a.csv", [NEXTQA]))
    assert query == Query("123_6", "123", "qa", "why?", options=("a", "b", "c", "d", "e"), answer=2)
    named = {"video_id": "123", **NEXTQA, "answer": "c"}
    del named["video"]
    moments = save(
        tmp_path, "m.json", {"123": {"duration": 34, "location": {"6": [[1.2, 5.8], [9, 34]]}, "fps": 29.97}}
    )
    query = one("nextgqa", table(tmp_path, "a.csv", [named]), grounding=moments)
    assert (query.task, query.answer, query.duration_s) == ("grounded_qa", 2, 34)
    assert [event.span for event in query.events] == [(1.2, 5.8), (9, 34)]
    with pytest.raises(ValueError, match="needs the moments: --grounding"):
        reader("nextgqa")(tmp_path / "a.csv")
    rows = [named, named | {"qid": "7"}, named | {"qid": "8", "answer": "z"}, named]
    queries, dropped = reader("nextgqa")(table(tmp_path, "a.csv", rows), "skip", grounding=moments)
    assert len(queries) == 1
    assert dropped == {"question without a moment": 1, "answer is no option": 1, "query id used before": 1}
    with pytest.raises(ValueError, match="m.json: unknown layout: an object with the keys '123'"):
        reader("nextgqa")(tmp_path / "a.csv", grounding=save(tmp_path, "m.json", {"123": {"fps": 3}}))


def test_didemo(tmp_path):
    path = save(tmp_path, "a.json", [DIDEMO])
    query = one("didemo", path)
    assert query == Query("a@N04_1_2c/grounding/3", "a@N04_1_2c", "grounding", "he waves.", (Event(20, 30),))
    lengths = save(tmp_path, "d.json", {"a@N04_1_2c.m4v": 28.4})
    queries, _ = reader("didemo")(path, durations=lengths, tasks=["grounding", "events"])
    assert [query.events for query in queries] == [(Event(20, 28.4),), (Event(20, 28.4, "he waves"),)]
    assert {query.duration_s for query in queries} == {28.4}
    bad = [
        DIDEMO | {"times": times, "annotation_id": k} for k, times in enumerate([[[5, 4]], [[0, 6]], [], [[0.5, 1]]])
    ]
    queries, dropped = reader("didemo")(save(tmp_path, "a.json", [DIDEMO, *bad]), "skip")
    assert len(queries) == 1
    assert dropped == {"not a pair of segments": 3, "no annotator chose a moment": 1}


def test_internvid(tmp_path):
    later = INTERNVID | {"Start_timestamp": "00:00:01", "End_timestamp": "01:00:00", "Caption": "x"}
    query = one("internvid", save(tmp_path, "a.jsonl", [INTERNVID, later]))
    assert query.events == (Event(1, 3600, "x"), Event(70.5, 73.25, "a woman types"))
    assert (query.id, query.video, query.task) == ("HdYoyzCSWyw/events", "HdYoyzCSWyw", "events")
    path = save(tmp_path, "a.jsonl", [INTERNVID, INTERNVID | {"Start_timestamp": "1:10"}])
    with pytest.raises(ValueError, match="a.jsonl, line 2: not a time such as 00:03:10.567"):
        reader("internvid")(path)


def test_llava(tmp_path):
    query = one("llava", save(tmp_path, "a.json", [LLAVA]))
    assert (query.id, query.video, query.turns) == ("0045#0", "0045", (Turn("Say it.\n<video>", "a bed"),))
    query = one("llava", save(tmp_path, "a.json", [INSTRUCT]))
    assert (query.id, query.turns) == ("v_abcdefghijk#0", (Turn("What is it?", "A dog."),))


def test_highlights(tmp_path):
    query = one("tvsum", save(tmp_path, "a.jsonl", [TVSUM]))
    assert (query.id, query.task, query.text, query.clip_s) == ("sTEELN-vY30", "highlights", "car tire", 2)
    assert query.saliency == ((1,) * 20, (5,) * 20, (2,) * 20)
    assert one("tvsum", save(tmp_path, "a.jsonl", [TVSUM | {"duration": 12}])).clip_s == 4
    query = one("youtube_highlights", save(tmp_path, "a.jsonl", [YOUTUBE]))
    assert (query.text, query.saliency, query.duration_s) == ("dog", ((0,), (1,)), None)
    with pytest.raises(ValueError, match="a.jsonl, line 1: not 20 scores .clip 0 has 1"):
        reader("tvsum")(save(tmp_path, "a.jsonl", [YOUTUBE]))


def test_plain_lines(tmp_path):
    assert one("plain", save(tmp_path, "a.jsonl", [PLAIN])).answer == 1
    bad = [PLAIN, PLAIN | {"id": "b", "answer": 2}, PLAIN, PLAIN | {"id": "c", "tex": ""}, {"id": "d"}]
    path = save(tmp_path, "a.jsonl", "".join(json.dumps(row) + "\n" for row in bad) + "{'id': 1}\n[]\n")
    with pytest.raises(ValueError, match="a.jsonl, line 6: not JSON"):
        reader("plain")(path)
    queries, dropped = reader("plain")(path, "skip")
    assert len(queries) == 1
    assert dropped.total() == 6
    assert dropped["query id used before"] == dropped["not JSON"] == 1


def test_a_time_in_a_dialogue_is_inside_its_video(tmp_path):
    turn = {"question": "When?", "answer": "At <s0>.", "times": {"<s0>": 11.5}}
    row = {"id": "t", "video": "v", "task": "dialogue", "turns": [turn]}
    assert one("plain", save(tmp_path, "a.jsonl", [row | {"duration_s": 10}])).turns
    with pytest.raises(ValueError, match="line 1.*time <s0> = 11.5 s is outside the video of 9"):
        reader("plain")(save(tmp_path, "b.jsonl", [row | {"duration_s": 9}]))


@pytest.mark.parametrize("name", sorted(FIXTURES))
def test_every_reader_refuses_anything_else(tmp_path, name):
    file, content = FIXTURES[name]
    assert convert(name, save(tmp_path, file, content)).queries
    for other in ({}, [], [{"foo": 1}], {"a": 3}, {"a": {"foo": 1}}, "{", "[3]"):
        for policy in ("fail", "skip"):
            with pytest.raises(ValueError, match="a.json"):
                convert(name, save(tmp_path, "a.json", other), policy)
    with pytest.raises(FileNotFoundError):
        convert(name, tmp_path / "none.json")
    with pytest.raises(ValueError, match="'fail' or 'skip'"):
        convert(name, save(tmp_path, file, content), "ignore")


def test_an_unknown_layout_names_what_was_found_and_what_is_understood(tmp_path):
    with pytest.raises(ValueError) as error:
        reader("didemo")(save(tmp_path, "a.json", {"v": STORY}))
    assert "an object with the keys 'v' (the first: an object with the keys 'duration'" in str(error.value)
    assert "Understood: a list of {video, description" in str(error.value)
    with pytest.raises(ValueError, match="unknown layout: a list of 1, the first an object with the keys 'foo'. Under"):
        reader("charades_sta")(save(tmp_path, "a.json", [{"foo": 1}]))
    with pytest.raises(ValueError, match=r"not JSON \(line 2, column 6"):
        reader("didemo")(save(tmp_path, "a.json", '[\n{"a" 1}]'))


@pytest.mark.parametrize("policy", ["fail", "skip"])
@pytest.mark.parametrize("name", ["activitynet", "vtimellm", "youcook2"])
def test_the_file_of_another_dataset_is_no_list_of_bad_records(tmp_path, name, policy):
    """Charades-STA looks like YouCook2's database, but has labels for sentences; a jsonl or csv is no broken json."""
    with pytest.raises(ValueError, match=r"a\.json: unknown layout: an object with the keys 'database'.*Understood: "):
        reader(name)(save(tmp_path, "a.json", {"database": {"3MSZA": CHARADES}}), policy)
    for ending in (".jsonl", ".csv"):
        with pytest.raises(ValueError, match=rf"unknown layout: a \{ending} file\. Understood: "):
            reader(name)(save(tmp_path, f"a{ending}", "{}\n{}\n"), policy)


def test_there_is_a_fixture_for_every_reader():
    assert set(FIXTURES) | {"nextgqa"} == set(READERS)
    with pytest.raises(ValueError, match="unknown dataset 'charades'; known: activitynet, charades_sta"):
        reader("charades")


@pytest.mark.parametrize("policy", ["fail", "skip"])
def test_frame_numbers_are_refused_under_any_policy(tmp_path, policy):
    frames = [item | {"segment": item["segment(frames)"]} for item in CHARADES["annotations"]]
    good = {"label": "x", "segment": [1, 2]}
    path = save(tmp_path, "a.json", {"database": {"3MSZA": CHARADES | {"annotations": [*frames, *frames, good]}}})
    with pytest.raises(ValueError, match=r"frame numbers") as error:
        reader("charades_sta")(path, policy)
    assert "frame rate" in str(error.value)
    story = {"duration": 30.0, "timestamps": [[583, 729], [100, 300]], "sentences": ["a", "b"]}
    with pytest.raises(ValueError, match="frame numbers"):
        reader("activitynet")(save(tmp_path, "a.json", {"v": story}), policy)


def test_one_far_event_among_good_ones_is_not_taken_for_frames(tmp_path):
    story = {"duration": 30.0, "timestamps": [[1, 300], [1, 2], [3, 4]], "sentences": ["a", "b", "c"]}
    queries, dropped = reader("activitynet")(save(tmp_path, "a.json", {"v": story}), "skip", tasks=["grounding"])
    assert (len(queries), dropped) == (2, {"event outside the video": 1})


def test_files_with_odd_bytes(tmp_path):
    """A byte order mark is no harm, nor is a line separator inside a sentence; other encodings are named."""
    query = PLAIN | {"text": "what\u2028is\x85it?"}
    (tmp_path / "a.jsonl").write_bytes("\ufeff".encode() + json.dumps(query, ensure_ascii=False).encode())
    assert one("plain", tmp_path / "a.jsonl").text == "what\u2028is\x85it?"
    for name in ("a.jsonl", "a.json", "a.csv", "a.txt"):
        (tmp_path / name).write_bytes(b'{"\xff": 1}')
        with pytest.raises(ValueError, match=f"{name}: not UTF-8 text"):
            reader("charades_sta")(tmp_path / name) if name != "a.csv" else reader("nextqa")(tmp_path / name)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("d.csv", "id,subject\nx,3\n", "the columns are id, subject; needs one of"),
        ("d.csv", "id,length\nx,\n", "line 2: the duration of 'x' is 'empty'"),
        ("d.csv", "id,length\nx,3\nx,4\n", "line 3: 'x' lasts 4.0 s here and 3.0 s before"),
        ("d.json", {"x": -1}, "the duration of 'x' is -1"),
    ],
)
def test_bad_durations(tmp_path, file, content, message):
    with pytest.raises(ValueError, match=message):
        read_durations(save(tmp_path, file, content))


def test_a_wrong_option_twice_is_kept_and_counted(tmp_path):
    """A real question of NExT-GQA has one; what is right is clear all the same."""
    row = {"id": "a", "video": "v", "task": "qa", "text": "who?", "options": ["a man", "a dog", "a dog "], "answer": 0}
    converted = convert("plain", save(tmp_path, "a.jsonl", [row, row | {"id": "b", "options": ["a", "b"]}]))
    assert [query.id for query in converted.queries] == ["a", "b"]
    assert ("question kept with a wrong option twice", 1) in converted.rows()
    with pytest.raises(ValueError, match="options must differ, and 'a dog' is there twice"):
        convert("plain", save(tmp_path, "b.jsonl", [row | {"answer": 1}]))
