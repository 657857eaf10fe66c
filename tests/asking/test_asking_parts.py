"""Windows of long videos, kept features, questions as queries: what needs no model."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asking.features import FeatureCache
from asking.questions import about, description, from_file, moment, of_a_window, question
from asking.videos import cost, find_videos, footage
from asking.windows import Windows, together
from datamodules.prediction import Prediction
from datamodules.query_files import write_queries
from datamodules.records import FeatureHeader
from datamodules.schema import Event, Query, Turn, Video
from preparation.features.decoding import Sampling


@settings(deadline=None)  # other work on the machine is no failure
@given(st.floats(0.5, 20_000), st.floats(1, 900), st.floats(0, 0.9))
def test_windows_cover_the_video_and_overlap_as_promised(duration_s, length_s, overlap):
    found = Windows(length_s, overlap).cut(duration_s)
    assert found[0][0] == 0 and found[-1][1] == pytest.approx(duration_s)
    assert all(math.isclose(end - start, min(length_s, duration_s), abs_tol=1e-6) for start, end in found)
    shared = [end - start for (_, end), (start, _) in zip(found, found[1:], strict=False)]
    assert all(part >= length_s * overlap - 1e-6 for part in shared)
    if len(found) > 2:  # none could be left out
        assert duration_s > length_s + (len(found) - 2) * length_s * (1 - overlap) - 1e-6


def test_short_videos_are_seen_whole():
    assert Windows(60).cut(60.0) == [(0.0, 60.0)]
    assert Windows(0).cut(9000.0) == [(0.0, 9000.0)]
    assert Windows(60, 0.5).cut(120.0) == [(0.0, 60.0), (30.0, 90.0), (60.0, 120.0)]


@pytest.mark.parametrize("wrong", [(-1, 0.5), (60, 1.0), (60, -0.1), (float("nan"), 0.5), (float("inf"), 0.5)])
def test_windows_that_lead_nowhere_are_refused(wrong):
    with pytest.raises(ValueError, match="a window needs a length"):
        Windows(*wrong)


WINDOWS = ((0.0, 60.0), (30.0, 90.0), (60.0, 120.0))


def said(*spans, **settings) -> Prediction:
    return Prediction("q", "v", "grounding", "From 1 to 2.", spans, **{"rule": "digits"} | settings)


def merged(*answers: Prediction, task: str = "grounding", **settings) -> Prediction:
    query = Query("q", "v", task, "x", events=(Event(0, 1, "y"),), **settings)
    return together(query, list(zip(WINDOWS, answers, strict=True)), 120.0)


def test_a_moment_seen_twice_is_one_moment():
    found = merged(said((40.0, 50.0, 0.8)), said((11.0, 21.0, 0.6), (50.0, 55.0, 0.7)), said(rule=None))
    assert found.spans == ((40.0, 50.0, 0.8), (80.0, 85.0, 0.7))


def test_a_moment_that_a_window_cut_off_is_joined():
    found = merged(said((50.0, 60.0, 0.8)), said((20.0, 45.0, 0.9)), said((0.0, 14.0, 0.5)))
    assert found.spans == ((50.0, 75.0, 0.9),)


def test_unscored_moments_are_ranked_by_how_sure_the_model_was():
    answers = [said((1.0, 2.0, 1.0), confidence=confidence) for confidence in (0.2, 0.9, 0.5)]
    assert [span[0] for span in merged(*answers).spans] == [31.0, 61.0, 1.0]
    assert merged(*answers).spans[0][2] == pytest.approx(0.9)


def test_no_event_is_told_twice():
    told = [said((0.0, 20.0, 1.0), (40.0, 50.0, 1.0), captions=("a", "b"))]
    told += [said((10.0, 20.0, 1.0), (40.0, 50.0, 1.0), captions=("b again", "c"))]
    told += [said((10.0, 20.0, 1.0), (50.0, 60.0, 1.0), captions=("c again", "d"))]
    found = merged(*(replace(answer, task="dense_captioning") for answer in told), task="dense_captioning")
    assert found.captions == ("a", "b", "c", "d")
    assert found.spans[1:3] == ((40.0, 50.0, 1.0), (70.0, 80.0, 1.0))


def test_the_surest_window_chooses():
    answers = [said(option=option, confidence=sure) for option, sure in ((0, 0.3), (1, 0.8), (0, 0.5))]
    assert merged(*answers, task="grounded_qa", options=("a", "b")).option == 1


def test_nothing_is_said_of_frames_of_one_window():
    found = merged(*[said((1.0, 2.0, 1.0), saliency=(0.5,))] * 3)
    assert found.saliency == () and found.answer.splitlines()[1] == "[30-90 s] From 1 to 2."
    assert merged(*[said(rule=None)] * 3).rule is None


def a_video(frames: int = 3) -> Video:
    features = np.ones((frames, 4), np.float16)
    return Video("v", 2.0, np.linspace(0, 2, frames), features, spatial=features, source="v.mp4")


HEADER = FeatureHeader("somewhere/clip", "CLS", "224", "uniform 3", 4, encoder_sha256="ab")


def test_features_are_made_once_for_the_same_content(tmp_path):
    made = []
    for name in ("one.mp4", "copy.mp4", "other.mp4"):
        (tmp_path / name).write_bytes(b"other" if name == "other.mp4" else b"same")
        cache = FeatureCache(tmp_path / "cache")
        found = cache.get(tmp_path / name, HEADER, None, lambda name=name: made.append(name) or a_video())
        assert found.duration_s == 2.0 and (found.spatial == 1).all() and found.frame_times_s.tolist() == [0, 1, 2]
    assert made == ["one.mp4", "other.mp4"]


@pytest.mark.parametrize(
    ("change", "again"),
    [({"sampling": "1.0 fps"}, True), ({"encoder_sha256": "cd"}, True), ({"encoder": "elsewhere/clip"}, False)],
)
def test_features_are_made_again_where_they_would_differ(tmp_path, change, again):
    (tmp_path / "v.mp4").write_bytes(b"x")
    cache = FeatureCache(tmp_path / "cache")
    cache.get(tmp_path / "v.mp4", HEADER, None, a_video)
    assert cache.has(tmp_path / "v.mp4", replace(HEADER, **change), None) is not again
    assert not cache.has(tmp_path / "v.mp4", HEADER, (0.0, 1.0))


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 no archive", None])
def test_a_damaged_file_is_made_again(tmp_path, damage):
    (tmp_path / "v.mp4").write_bytes(b"x")
    cache = FeatureCache(tmp_path / "cache")
    cache.get(tmp_path / "v.mp4", HEADER, None, a_video)
    (kept,) = (tmp_path / "cache").iterdir()
    kept.write_bytes(kept.read_bytes()[:-200] if damage is None else damage)
    assert len(cache.get(tmp_path / "v.mp4", HEADER, None, lambda: a_video(5)).features) == 5
    assert len(cache.get(tmp_path / "v.mp4", HEADER, None, a_video).features) == 5
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_nothing_is_kept_where_that_was_asked(tmp_path):
    FeatureCache(None).get(tmp_path / "absent.mp4", HEADER, None, a_video)
    assert not list(tmp_path.iterdir())


def test_questions_become_queries():
    asked = about([moment(" a dog "), question("why?", "a | b"), question("and then?"), description()], ["v", "w"])
    assert [query.id for query in asked["w"]] == ["w.q0", "w.q1", "w.q2", "w.q3"]
    assert [query.task for query in asked["v"]] == ["grounding", "grounded_qa", "dialogue", "dense_captioning"]
    assert asked["v"][1].options == ("a", "b")
    assert [query.title for query in asked["v"]] == ["a dog", "why?", "and then?", "Everything that happens"]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: moment("  "), "a query is empty"),
        (lambda: question(""), "a question is empty"),
        (lambda: question("why?", "one"), "two options or more"),
        (lambda: question("why?", "a||b"), "options must be non-empty"),
    ],
)
def test_empty_questions_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_queries_from_files(tmp_path):
    (tmp_path / "moments.txt").write_text("\ufeffa dog\r\n\r\n a cat \n", encoding="utf-8")
    assert [query.text for query in from_file(tmp_path / "moments.txt", ["v"])["v"]] == ["a dog", "a cat"]
    records = [Query("a", "clip", "grounding", "x", (Event(1, 2),)), Query("b", "w", "grounding", "y")]
    write_queries(tmp_path / "q.jsonl", records)
    found = from_file(tmp_path / "q.jsonl", ["deep/clip", "w"])
    assert found["deep/clip"][0].events == (Event(1, 2),) and found["w"][0].video == "w"
    with pytest.raises(ValueError, match="query 'b' is about video 'w', which is not here; there is deep/clip"):
        from_file(tmp_path / "q.jsonl", ["deep/clip"])
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(ValueError, match="holds no query"):
        from_file(tmp_path / "empty.txt", ["v"])


def test_a_window_is_not_told_where_the_answer_lies():
    query = Query("q", "v", "grounding", "x", (Event(100, 200),), duration_s=300.0)
    asked = of_a_window(query)
    assert (asked.id, asked.text, asked.events, asked.duration_s) == ("q", "x", (), None)
    timed = Query("q", "v", "dialogue", turns=(Turn("what from <s0>?", times={"<s0>": 3.0}),))
    with pytest.raises(ValueError, match="query q: dialogue names times of the whole video"):
        of_a_window(timed)


def test_videos_that_cannot_be_read_are_named(clip, tmp_path):
    (tmp_path / "a.mp4").write_bytes(clip.read_bytes())
    (tmp_path / "b.mp4").write_bytes(b"<html>")
    (tmp_path / "picture.jpg").write_bytes(b"")
    found, problems = find_videos(tmp_path, Windows())
    assert [video.id for video in found] == ["a"] and found[0].duration_s == pytest.approx(12.0)
    assert len(problems) == 1 and "b.mp4: Invalid data" in problems[0]
    (tmp_path / "a.mp4").unlink()
    with pytest.raises(ValueError, match=r"b.mp4: Invalid data"):
        find_videos(tmp_path, Windows())


def test_the_cost_of_a_long_video_is_said_before(clip):
    long = footage(clip, "lecture", Windows(4.0, 0.5))
    assert cost([long, footage(clip, "clip", Windows())], Sampling(frames=100), 3) == [
        "lecture is 12 s long: seen in 5 windows of 4 s, 500 pictures to encode and 5 answers to write for each of "
        "3 questions"
    ]
