"""Windows that are reversed, overrun their video or have no length: refused, or mended and counted."""

import json
from pathlib import Path

import pytest

import prepare
from datamodules.query_files import query_to_dict, read_queries
from datamodules.schema import Event, Query
from preparation.annotations import reader
from preparation.annotations.files import repaired

VIDEO = {"duration": 100.0, "sentences": ["a", "b", "c", "d"]}
WINDOWS = {
    "end before start, swapped": ([9, 4], (4, 9)),
    "event outside the video, cut at its ends": ([98, 103], (98, 100)),
    "event without length, made 1 s long": ([49, 49], (48.5, 49.5)),
}


def save(folder: Path, content) -> Path:
    (folder / "a.json").write_text(json.dumps(content))
    return folder / "a.json"


@pytest.mark.parametrize(
    ("window", "duration_s", "mended"),
    [
        ((4, 9), 20, (4, 9)),
        ((19, 21.5), 20, (19, 21.5)),  # within the tolerance of published files
        ((9, 4), 20, (4, 9)),
        ((-3, 5), 20, (0, 5)),
        ((0, 0), 20, (0, 1)),
        ((20, 20), 20, (20, 20)),  # begins behind the video: refused later
        ((25, 30), 20, (25, 30)),
        ((10, 900), 20, (10, 900)),  # frame numbers
        ((9, 9), None, (8.5, 9.5)),
        ((0.2, 0.2), 0.6, (0, 0.6)),
        ((-5, -1), 20, (-5, -1)),
    ],
)
def test_windows(window, duration_s, mended):
    start_s, end_s, faults = repaired(*window, duration_s)
    assert (start_s, end_s) == mended
    assert bool(faults) == (window != mended)


@pytest.mark.parametrize("name", ["activitynet", "et_instruct", "vtimellm", "plain"])
@pytest.mark.parametrize("fault", WINDOWS)
def test_readers_refuse_or_mend_and_count(tmp_path, name, fault):
    window, mended = WINDOWS[fault]
    event = {"start_s": window[0], "end_s": window[1], "caption": "a"}
    talk = [{"from": "human", "value": "<video>\nWhen?"}, {"from": "gpt", "value": "From <s0> to <e0>."}]
    row = {"task": "tvg", "source": "x", "video": "v.mp4", "duration": 100.0, "tgt": window,
           "conversations": [{"from": "human", "value": "?"}, {"from": "gpt", "value": "<vid> - <vid>"}]}  # fmt: skip
    token = {"<s0>": window[0], "<e0>": window[1]}
    content = {
        "activitynet": {"v": {"duration": 100.0, "timestamps": [window], "sentences": ["a"]}},
        "et_instruct": [row],
        "vtimellm": [{"id": "v", "conversations": talk, "meta": {"duration": 100.0, "token": token}}],
        "plain": None,
    }[name]
    path = save(tmp_path, content)
    if name == "plain":
        path = tmp_path / "a.jsonl"
        path.write_text(json.dumps({"id": "q", "video": "v", "task": "dense_captioning", "events": [event],
                                    "duration_s": 100.0}) + "\n")  # fmt: skip
    if name != "vtimellm" or "length" not in fault:  # the released dialogues have moments without length
        with pytest.raises(ValueError, match="end|outside"):
            reader(name)(path)
    queries, notes = reader(name)(path, repair=True)
    assert notes == {f"repaired: {fault}": 1} if name != "activitynet" else notes[f"repaired: {fault}"] >= 1
    events = [event for query in queries for event in (*query.events, *(e for t in query.turns for e in t.events))]
    spans = [event.span for event in events]
    if name == "vtimellm":
        times = queries[0].turns[0].times
        spans = [(times["<s0>"], times["<e0>"])]
    assert set(spans) == {mended}


def test_the_command_says_what_it_mended(tmp_path, capsys):
    path = save(tmp_path, {"v": {**VIDEO, "timestamps": [[1, 5], *(window for window, _ in WINDOWS.values())]}})
    args = ["annotations", "activitynet", f"--input={path}", f"--output={tmp_path / 'q.jsonl'}", "--tasks=[events]"]
    assert prepare.main(args) == 2
    assert "--repair true mends such windows" in capsys.readouterr().err
    assert prepare.main([*args, "--repair=true"]) == 0
    told = capsys.readouterr().out
    assert told.count("repaired: ") == 3
    assert "dropped" not in told
    ((query),) = read_queries(tmp_path / "q.jsonl")
    assert [event.span for event in query.events] == [(1, 5), *(mended for _, mended in WINDOWS.values())]


def test_what_cannot_be_mended_is_still_refused(tmp_path):
    path = save(tmp_path, {"v": {**VIDEO, "timestamps": [[1, 5]] * 3 + [[120, 130]]}})
    with pytest.raises(ValueError, match=r"event outside the video.*120.0..130.0 s of 100.0 s"):
        reader("activitynet")(path, repair=True)
    frames = save(tmp_path, {"v": {**VIDEO, "timestamps": [[100, 500], [300, 900], [600, 1200], [900, 2400]]}})
    with pytest.raises(ValueError, match="these are frame numbers|frame numbers"):
        reader("activitynet")(frames, "skip", repair=True)


def test_a_repaired_record_is_a_record(tmp_path):
    query = Query("q", "v", "grounding", "a", (Event(1, 2),), duration_s=100.0)
    (tmp_path / "a.jsonl").write_text(json.dumps(query_to_dict(query)) + "\n")
    assert reader("plain")(tmp_path / "a.jsonl", repair=True) == ([query], {})
