"""Published annotation files and features -> our records: nothing wrong gets in, nothing right gets lost."""

import json
from collections import Counter
from pathlib import Path
from random import Random

import numpy as np
import pytest

from datamodules.clip import Clip
from datamodules.query_files import read_queries, write_queries
from datamodules.schema import Event
from datamodules.shards import ShardReader
from localizers import TemporalExpert, TextTimestamps
from preparation.annotations import activitynet, vtimellm
from preparation.annotations.durations import read_durations, read_lengths
from preparation.features.decoding import Sampling
from preparation.features.verification import verify

KARATE = {
    "duration": 73.1,
    "timestamps": [[6.94, 69.08], [37.28, 43.49]],
    "sentences": ["Three men are standing on a mat.", " The man does karate. "],
}


def save(folder: Path, content) -> Path:
    (folder / "file.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return folder / "file.json"


def dialogue(*turns: str, **meta) -> dict:
    roles = ["human", "gpt"] * len(turns)
    sample = {"id": "v", "conversations": [{"from": r, "value": t} for r, t in zip(roles, turns, strict=False)]}
    return sample | ({"meta": meta} if meta else {})


TIMED = dialogue(
    "<video>\nWhat happens from <s0> to <e0>?",
    "A man waves.",
    "When does he leave?",
    "From <s1> to <e1>.",
    duration=54.2,
    split=[129.8, 184.0],
    token={"<s0>": 0, "<e0>": 9.4, "<s1>": 49.4, "<e1>": 53.2},
)


def with_times(**token) -> dict:
    return TIMED | {
        "meta": {"duration": 54.2, "token": TIMED["meta"]["token"] | {f"<{k}>": t for k, t in token.items()}}
    }


def test_activitynet_records(tmp_path):
    queries, skipped = activitynet.read(save(tmp_path, {"v_x": KARATE}), tasks=activitynet.TASKS)
    assert not skipped
    assert [(query.id, query.text) for query in queries] == [
        ("v_x/grounding/0", "Three men are standing on a mat."),
        ("v_x/grounding/1", "The man does karate."),
        ("v_x/dense_captioning", ""),
        ("v_x/events", ""),
    ]
    events = (Event(6.94, 69.08, "Three men are standing on a mat"), Event(37.28, 43.49, "The man does karate"))
    assert queries[0].events == (Event(6.94, 69.08),)
    assert queries[2].events == queries[3].events == events
    assert {query.duration_s for query in queries} == {73.1}
    assert {query.video for query in queries} == {"v_x"}
    write_queries(tmp_path / "queries.jsonl", queries)
    assert list(read_queries(tmp_path / "queries.jsonl")) == queries


@pytest.mark.parametrize(
    ("span", "sentence", "reason"),
    [
        ([5, 3], "a", "end is not after the start"),
        ([5, 5], "a", "end is not after the start"),
        ([-2, 5], "a", "event outside the video"),
        ([5, 75.2], "a", "event outside the video"),
        ([73.1, 74], "a", "event outside the video"),
        ([5, 9], " ", "empty text"),
        ([5, 9], ".", "empty text"),
        ([5, 9], None, "empty text"),
        ([5], "a", "timestamps are not a pair of numbers"),
        (["x", 9], "a", "timestamps are not a pair of numbers"),
        ([float("nan"), 9], "a", "timestamps are not a pair of numbers"),
    ],
)
def test_activitynet_bad_event(tmp_path, span, sentence, reason):
    entry = {"duration": 73.1, "timestamps": [span, [1, 2]], "sentences": [sentence, "good"]}
    path = save(tmp_path, {"v_x": entry})
    with pytest.raises(ValueError, match=f"file.json, video 'v_x', event 0: {reason}"):
        activitynet.read(path)
    queries, skipped = activitynet.read(path, "skip")
    assert [query.id for query in queries] == ["v_x/grounding/1", "v_x/dense_captioning"]
    assert skipped == {reason: 1}


@pytest.mark.parametrize(
    "entry",
    [
        {"duration": 73.1, "timestamps": [[1, 2]], "sentences": []},
        {"duration": 0, "timestamps": [[1, 2]], "sentences": ["a"]},
        {"duration": "long", "timestamps": [[1, 2]], "sentences": ["a"]},
        {"timestamps": [[1, 2]], "sentences": ["a"]},
        [],
    ],
)
def test_activitynet_bad_video(tmp_path, entry):
    path = save(tmp_path, {"v_x": entry, "v_y": KARATE})
    with pytest.raises(ValueError, match="file.json, video 'v_x': video without usable"):
        activitynet.read(path)
    queries, skipped = activitynet.read(path, "skip")
    assert {query.video for query in queries} == {"v_y"}
    assert skipped == {"video without usable duration, timestamps and sentences": 1}


def test_activitynet_small_overrun_is_kept(tmp_path):
    queries, _ = activitynet.read(
        save(tmp_path, {"v": {"duration": 10, "timestamps": [[0, 10.9]], "sentences": ["a"]}})
    )
    assert queries[0].events[0].span == (0, 10.9)


def test_activitynet_refuses(tmp_path):
    with pytest.raises(ValueError, match="'v_x' is there twice"):
        activitynet.read(save(tmp_path, '{"v_x": {}, "v_x": {}}'))
    with pytest.raises(ValueError, match="unknown layout: an empty list. Understood: {video: {duration"):
        activitynet.read(save(tmp_path, []))
    with pytest.raises(ValueError, match="file.json: not JSON"):
        activitynet.read(save(tmp_path, "{"))
    with pytest.raises(ValueError, match="unknown tasks .'ground'."):
        activitynet.read(save(tmp_path, {}), tasks=["ground"])
    with pytest.raises(ValueError, match="'fail' or 'skip'"):
        activitynet.read(save(tmp_path, {}), "ignore")
    with pytest.raises(FileNotFoundError):
        activitynet.read(tmp_path / "none.json")


def test_activitynet_published_file(real):
    queries, skipped = activitynet.read(real("annotations/activitynet_captions_val_2.json"))
    assert Counter(query.task for query in queries) == {"grounding": 17031, "dense_captioning": 4885}
    assert not skipped


def test_dialogue(tmp_path):
    queries, counts = vtimellm.read(save(tmp_path, [TIMED, TIMED]))
    assert not counts
    assert [query.id for query in queries] == ["v#0", "v#1"]
    query = queries[0]
    assert (query.video, query.task, query.duration_s) == ("v", "dialogue", 54.2)
    assert [(turn.question, turn.answer) for turn in query.turns] == [
        ("What happens from <s0> to <e0>?", "A man waves."),
        ("When does he leave?", "From <s1> to <e1>."),
    ]
    assert all(turn.times == TIMED["meta"]["token"] for turn in query.turns)
    write_queries(tmp_path / "queries.jsonl", queries)
    assert list(read_queries(tmp_path / "queries.jsonl")) == queries


@pytest.mark.parametrize(
    ("written", "question"),
    [
        ("<video>\nHi", "Hi"),
        ("<video>\n describe the video. ", " describe the video. "),
        ("<image>\nWhat is this?", "What is this?"),
        ("<video>\n\nHi", "\nHi"),
        ("Describe it.\n<image>", "Describe it.\n<video>"),
        ("<video> Hi", "<video> Hi"),
        ("<video>\n", ""),
    ],
)
def test_placeholder(tmp_path, written, question):
    """On a line of its own in front it is taken off, as the prompt puts it there; anywhere else it stays in place."""
    (query,), _ = vtimellm.read(save(tmp_path, [dialogue(written, "An  answer\n")]))
    assert (query.turns[0].question, query.turns[0].answer) == (question, "An  answer\n")
    assert query.duration_s is None


def test_image_keyword_in_a_later_turn_is_plain_text(tmp_path):
    (query,), _ = vtimellm.read(save(tmp_path, [dialogue("<video>\nHi", "Ho", "an <image>?", "Yes")]))
    assert query.turns[1].question == "an <image>?"


def test_official_drops_are_counted(tmp_path):
    odd = dialogue("<video>\nHi", "Ho", "And then?")
    first = {
        "id": "w",
        "conversations": [{"from": "gpt", "value": "Welcome"}, *TIMED["conversations"]],
        "meta": TIMED["meta"],
    }
    queries, counts = vtimellm.read(save(tmp_path, [odd, first]))
    assert [len(query.turns) for query in queries] == [1, 2]
    assert queries[1].turns[0].question == "What happens from <s0> to <e0>?"
    assert counts == {
        "turn dropped: the last, a question without an answer": 1,
        "turn dropped: the first, not from the human": 1,
    }


@pytest.mark.parametrize(
    ("sample", "reason"),
    [
        (with_times(e1=60), "event outside the video"),
        (with_times(s0=-3), "event outside the video"),
        (with_times(s1=53.9), "end before start"),
        (with_times(s1="1"), "time is not a number"),
        (TIMED | {"meta": {"token": TIMED["meta"]["token"]}}, "markers without a duration"),
        (dialogue("<video>\nFrom <s0>?", "Yes"), "marker without a time"),
        (dialogue("<video>\nHi", ""), "empty text"),
        (dialogue("<video>\nHi"), "no question with an answer"),
        (dialogue("Hi", "Ho"), "the first question must hold <video> once"),
        (dialogue("<video><video>\nHi", "Ho"), "the first question must hold <video> once"),
        (dialogue("<video>\nHi", "Ho") | {"id": ""}, "video must be a non-empty string"),
        (dialogue("<video>\nHi", "Ho", duration=-1), "duration_s must be positive"),
        ({"id": "v", "conversations": TIMED["conversations"][:1] * 2}, "questions and answers do not alternate"),
        ({"id": "v"}, "sample of another layout"),
        ("text", "sample of another layout"),
    ],
)
def test_bad_sample(tmp_path, sample, reason):
    path = save(tmp_path, [TIMED, sample])
    with pytest.raises(ValueError, match=f"file.json, sample 1.*: {reason}"):
        vtimellm.read(path)
    queries, counts = vtimellm.read(path, "skip")
    assert [query.id for query in queries] == ["v#0"]
    assert counts.total() == 1
    assert next(iter(counts)).startswith(reason)
    assert ", got" not in next(iter(counts))


def test_a_loc_of_videoexperts_data_is_a_time_like_any_other(tmp_path):
    asked = "<video>\nDescribe the video."
    sample = dialogue(
        asked, "During <LOC>, it runs. During <LOC>, it stops.", duration=54.2, loc=[[[1, 2.5]], [[9, 54]]]
    )
    (query,), counts = vtimellm.read(save(tmp_path, [sample]))
    assert not counts
    (turn,) = query.turns
    assert turn.answer == "During <s0> to <e0>, it runs. During <s1> to <e1>, it stops."
    assert turn.times == {"<s0>": 1, "<e0>": 2.5, "<s1>": 9, "<e1>": 54}
    video = Clip(54.2, 100, 100 / 54.2)
    rendered = TemporalExpert().render(turn, video, Random(0))
    assert rendered.answer == sample["conversations"][1]["value"]
    assert len(rendered.targets) == 2
    assert TextTimestamps().render(turn, video, Random(0)).answer.startswith("During 02 to 05, it runs.")


@pytest.mark.parametrize(
    ("loc", "reason"),
    [
        ([[[1, 2]]], r"<LOC> and windows differ .2 <LOC> for 1 lists of windows in meta.loc"),
        ([[[1, 2]], [[1, 2], [3, 4]]], "not one window for a <LOC>"),
        ([[[1, 2]], [[4, 3]]], "end before start"),
        ([[[1, 2]], [[4, 60]]], "event outside the video"),
        ([[[1, 2]], [[None, 4]]], "time is not a number"),
        ([[[1, 2]], [[4]]], "not one window for a <LOC>"),
    ],
)
def test_locs_that_do_not_fit_are_refused(tmp_path, loc, reason):
    sample = dialogue("<video>\nWhen?", "During <LOC> and <LOC>.", duration=54.2, loc=loc)
    with pytest.raises(ValueError, match=f"file.json, sample 0 .id 'v'.: {reason}"):
        vtimellm.read(save(tmp_path, [sample]))


def test_vtimellm_refuses(tmp_path):
    with pytest.raises(ValueError, match="unknown layout: an empty object. Understood: a list of {id, conv"):
        vtimellm.read(save(tmp_path, {}))
    with pytest.raises(ValueError, match="not JSON"):
        vtimellm.read(save(tmp_path, "["))


def test_durations(tmp_path):
    assert read_durations(save(tmp_path, {"v_x": KARATE})) == {"v_x": 73.1}
    samples = [TIMED, TIMED, dialogue("<image>\nHi", "Ho") | {"id": "i", "image": "i.jpg"}, dialogue("a") | {"id": "w"}]
    assert read_durations(save(tmp_path, samples)) == {"v": 54.2, "i": 0.0}
    queries, _ = activitynet.read(save(tmp_path, {"v_x": KARATE}))
    write_queries(tmp_path / "queries.jsonl", queries)
    assert read_durations(tmp_path / "queries.jsonl") == {"v_x": 73.1}
    (tmp_path / "list.jsonl").write_text('{"id": "a", "duration_s": 3}\n{"id": "a", "duration_s": 4}\n')
    with pytest.raises(ValueError, match="list.jsonl, line 2: 'a' lasts 4 s here and 3 s before .list.jsonl, line 1"):
        read_durations(tmp_path / "list.jsonl")
    (tmp_path / "list.jsonl").write_text('{"id": "a", "duration_s": "3"}\n')
    with pytest.raises(ValueError, match="line 1: the duration of 'a' is '3'"):
        read_durations(tmp_path / "list.jsonl")
    (tmp_path / "list.jsonl").write_text('{"duration_s": 3}\n')
    with pytest.raises(ValueError, match="list.jsonl, line 1: no id"):
        read_durations(tmp_path / "list.jsonl")


def arrays(folder: Path, **content) -> Path:
    folder.mkdir()
    for name, array in content.items():
        np.save(folder / f"{name}.npy", array)
    return folder


def test_pack(tmp_path):
    video, image = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float16), np.ones(6, np.float16)
    folder = arrays(tmp_path / "npy", v=video, i=image)
    (folder / "sub").mkdir()
    np.save(folder / "sub" / "a.b.npy", video.astype(np.float32))
    durations = {"v": 9.0, "i": 0.0, "sub/a.b": 3.0, "other": 2.0}
    summary = vtimellm.pack(folder, durations, tmp_path / "out", sampling=Sampling(frames=4))
    assert (summary.written, summary.present, summary.skipped) == (3, 0, ())
    reader = ShardReader(tmp_path / "out")
    assert set(reader.ids) == {"v", "i", "sub/a.b"}
    np.testing.assert_array_equal(reader.read("v").features, video, strict=True)
    np.testing.assert_array_equal(reader.read("sub/a.b").features, video, strict=True)
    assert reader.read("v").frame_times_s.tolist() == [0, 3, 6, 9]
    assert (reader.read("i").features.shape, reader.read("i").duration_s) == ((1, 6), 0.0)
    assert (reader.header.width, reader.header.sampling) == (6, "uniform 4")
    assert verify(tmp_path / "out").problems == ()
    again = vtimellm.pack(folder, durations, tmp_path / "out", sampling=Sampling(frames=4))
    assert (again.written, again.present) == (0, 3)


@pytest.mark.parametrize(
    ("array", "duration_s", "message"),
    [
        (np.ones((4, 6)), None, "its duration is not known"),
        (np.ones(6), 5.0, r"a video needs \(T, D\)"),
        (np.ones((4, 6)), 0.0, "4 frame.s. for a duration of 0.0 s"),
        (np.ones((1, 6)), 5.0, "1 frame.s. for a duration of 5.0 s"),
        (np.ones((5, 6)), 5.0, r"5 frames, not 4 \(sampling uniform 4\)"),
        (np.ones((4, 7)), 5.0, r"shape \(4, 7\), the folder's header asks for \(4, 6\)"),
        (np.full((4, 6), np.nan), 5.0, "NaN"),
        (np.full((4, 6), 1e6), 5.0, "infinity"),
        (np.array([[print] * 6] * 4), 5.0, "Python objects|allow_pickle"),
    ],
)
def test_pack_bad_array(tmp_path, array, duration_s, message):
    folder = arrays(tmp_path / "npy", a=np.ones((4, 6)), bad=array)
    durations = {"a": 5.0} | ({} if duration_s is None else {"bad": duration_s})
    with pytest.raises(ValueError, match=f"bad.npy: features cannot be used .*({message})"):
        vtimellm.pack(folder, durations, tmp_path / "fail", sampling=Sampling(frames=4))
    summary = vtimellm.pack(folder, durations, tmp_path / "skip", sampling=Sampling(frames=4), on_error="skip")
    assert summary.written == 1
    assert [Path(skip.where).name for skip in summary.skipped] == ["bad.npy"]
    assert ShardReader(tmp_path / "skip").ids == ["a"]


def test_pack_empty_and_broken_files(tmp_path):
    with pytest.raises(ValueError, match="no .npy file"):
        vtimellm.pack(arrays(tmp_path / "none"), {}, tmp_path / "out")
    folder = arrays(tmp_path / "npy", z=np.ones((4, 6)))
    (folder / "empty.npy").write_bytes(b"")
    (folder / "text.npy").write_bytes(b"hello")
    np.savez(folder / "zipped", np.ones(3))
    (folder / "zipped.npz").rename(folder / "zipped.npy")
    durations = dict.fromkeys(("z", "empty", "text", "zipped"), 5.0)
    summary = vtimellm.pack(folder, durations, tmp_path / "out", sampling=Sampling(frames=4), on_error="skip")
    assert (summary.written, len(summary.skipped)) == (1, 3)


def test_pack_without_a_length_where_no_time_is_named(tmp_path):
    """As stage 3 of VTimeLLM is released: a third of it are videos without a duration, and dialogues without a time."""
    stage3, instruct = tmp_path / "stage3.json", tmp_path / "VideoInstruct100K.json"
    untimed = dialogue("<video>\nWhat is it?", "A dog.") | {"id": "u"}
    lost = dialogue("<video>\nWhen?", "From <s0> to <e0>.") | {"id": "l", "meta": {"token": {"<s0>": 1, "<e0>": 2}}}
    stage3.write_text(json.dumps([TIMED | {"id": "t"}, untimed, lost]))
    instruct.write_text(json.dumps([{"q": "What?", "a": "A dog.", "video_id": "i"}]))
    found = read_lengths([stage3, instruct])
    assert found.known == {"t": TIMED["meta"]["duration"]}
    assert found.untimed == {"u", "i"}
    folder = arrays(tmp_path / "npy", t=np.ones((4, 6)), u=np.ones((4, 6)), i=np.ones((4, 6)))
    settings = {"sampling": Sampling(frames=4), "untimed": found.untimed}
    summary = vtimellm.pack(folder, found.known, tmp_path / "out", **settings)
    assert (summary.written, summary.nominal) == (3, 2)
    reader = ShardReader(tmp_path / "out")
    assert {video: reader.duration_s(video) for video in reader.ids} == found.known | {"u": 100.0, "i": 100.0}
    assert [reader.read(video).nominal for video in ("t", "u", "i")] == [False, True, True]
    np.save(folder / "l.npy", np.ones((4, 6)))
    with pytest.raises(ValueError, match=r"l\.npy: features cannot be used .its duration is not known"):
        vtimellm.pack(folder, found.known, tmp_path / "out", **settings)


def test_two_files_may_not_disagree_about_a_length(tmp_path):
    (tmp_path / "a.json").write_text('{"v": 3.0}')
    (tmp_path / "b.json").write_text('{"v": 4.0}')
    with pytest.raises(ValueError, match=r"b\.json, entry 'v': 'v' lasts 4.0 s here and 3.0 s before .a\.json, entry"):
        read_lengths([tmp_path / "a.json", tmp_path / "b.json"])
