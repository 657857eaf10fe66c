"""Records: what they refuse, and that they survive a file."""

import json

import pytest

from datamodules.query_files import read_queries, write_queries
from datamodules.schema import Event, Query, Turn

GOOD = {"id": "q", "video": "v", "task": "grounding", "text": "a man runs", "events": [{"start_s": 1, "end_s": 2}]}


@pytest.mark.parametrize(
    ("start", "end", "message"),
    [
        (3.0, 2.0, "end_s must be after start_s"),
        (-1.0, 2.0, "start_s must not be negative"),
        (float("nan"), 2.0, "start_s must be a finite number"),
        (0.0, float("inf"), "end_s must be a finite number"),
        ("0", 2.0, "start_s must be a finite number"),
        (True, 2.0, "start_s must be a finite number"),
    ],
)
def test_bad_events_are_refused(start, end, message):
    with pytest.raises(ValueError, match=message):
        Event(start, end)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": ""}, "id must be a non-empty string"),
        ({"video": 3}, "video must be text, got 3"),
        ({"task": "find"}, "unknown task 'find'"),
        ({"text": "  "}, "non-empty text"),
        ({"events": [{"start_s": 2, "end_s": 2}]}, "end_s must be after start_s, got 2 for both"),
        ({"task": "dense_captioning", "events": []}, "at least one event"),
        ({"task": "dense_captioning"}, "non-empty caption for every event"),
        ({"task": "dialogue"}, "at least one turn"),
        ({"duration_s": 0}, "duration_s must be positive"),
        ({"duration_s": 0.5}, "outside the video of 0.5 s"),
        ({"duration_s": 1}, "outside the video of 1 s"),
        ({"events": [{"start_s": 1, "end_s": 12.1}], "duration_s": 10}, "outside the video of 10 s"),
        ({"turns": [{"question": "a", "answer": "b"}] * 2}, "takes one turn at most, got 2"),
        ({"turns": [{"question": "a", "events": [{"start_s": 99, "end_s": 100}]}], "duration_s": 9}, "outside the vid"),
        ({"task": "qa"}, "qa needs two options or more"),
        ({"task": "qa", "options": ["a"]}, "qa needs two options or more"),
        ({"task": "qa", "options": ["a", " "]}, "options must be non-empty strings"),
        ({"task": "qa", "options": ["a", "b"], "answer": 2}, "place of one of 2 options, got 2"),
        ({"task": "qa", "options": ["a", "b"], "answer": True}, "answer must be a whole number, got True"),
        ({"task": "qa", "options": ["a", "b"], "text": ""}, "a qa query needs a non-empty text"),
        ({"options": ["a", "b"]}, "grounding has none"),
        ({"answer": 0}, "place of one of 0 options"),
        ({"task": "highlights"}, "needs saliency"),
        ({"saliency": [[1]]}, "saliency needs clip_s"),
        ({"saliency": [[1], [1, 2]], "clip_s": 2}, "same number of scores"),
        ({"saliency": [[]], "clip_s": 2}, "same number of scores"),
        ({"saliency": [[float("nan")]], "clip_s": 2}, "saliency.0.0 must be a finite number"),
        ({"saliency": [[1]], "clip_s": 0}, "clip_s must be positive"),
        ({"saliency": [[1]] * 9, "clip_s": 2, "duration_s": 10}, "9 clips of 2 s do not fit a video of 10 s"),
        ({"saliency": [[1]], "clip_s": 2, "task": "qa", "options": ["a", "b"]}, "task qa has no saliency"),
        ({"turns": [{"question": "x", "answer": "to <e0>", "times": {"<s0>": 1}}]}, r"a time: \['<e0>'\]"),
        ({"txt": "x"}, "unknown key 'txt'"),
        ({"events": [{"start": 1, "end_s": 2}]}, "events.0: unknown key 'start'"),
        ({"events": [{"end_s": 2}]}, "events.0: key 'start_s' is missing"),
    ],
)
def test_a_bad_line_names_file_line_and_key(tmp_path, change, message):
    path = tmp_path / "queries.jsonl"
    path.write_text(json.dumps(GOOD) + "\n\n" + json.dumps(GOOD | {"id": "r"} | change) + "\n")
    with pytest.raises(ValueError, match=message) as error:
        list(read_queries(path))
    assert f"{path}, line 3" in str(error.value)


def test_malformed_json_and_repeated_ids_name_their_lines(tmp_path):
    path = tmp_path / "queries.jsonl"
    path.write_text(json.dumps(GOOD) + "\n{'id': 1}\n")
    with pytest.raises(ValueError, match="line 2: not JSON"):
        list(read_queries(path))
    path.write_text(json.dumps(GOOD) + "\n" + json.dumps(GOOD) + "\n")
    with pytest.raises(ValueError, match="line 2: id 'q' was used in line 1 already"):
        list(read_queries(path))


def test_a_rounded_overrun_is_accepted_and_queries_survive_a_file(tmp_path):
    queries = [
        Query("a", "v", "grounding", "Ein Mann läuft.", (Event(0.0, 10.6),), duration_s=10.0),
        Query("b", "v", "events", events=(Event(0.0, 1.0, "x", "a longer x"), Event(1.0, 2.5, "y"))),
        Query("c", "v", "dialogue", turns=(Turn("from <s0>?", "to <e0>.", times={"<s0>": 0.0, "<e0>": 3.25}),)),
    ]
    write_queries(tmp_path / "new" / "queries.jsonl", queries)
    assert list(read_queries(tmp_path / "new" / "queries.jsonl")) == queries


def test_a_moment_that_does_not_happen_is_not_one_that_was_not_published(tmp_path):
    path = tmp_path / "queries.jsonl"
    known = {"id": "a", "video": "v", "task": "grounding", "text": "a dog", "events": []}
    unknown = {"id": "b", "video": "v", "task": "grounding", "text": "a dog"}
    path.write_text("\ufeff" + "".join(json.dumps(row) + "\n" for row in (known, unknown)), encoding="utf-8")
    queries = list(read_queries(path))
    assert [query.absent for query in queries] == [True, False]
    write_queries(path, queries)
    assert [json.loads(line) for line in path.read_text().splitlines()] == [known, unknown]
    with pytest.raises(ValueError, match="only a grounding query without events can be absent"):
        Query("a", "v", "grounding", "a dog", (Event(0, 1),), absent=True)
