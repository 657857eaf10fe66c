"""The papers' rules, shared videos, and queries held against features."""

import json

import numpy as np
import pytest

from datamodules.leakage import overlap, shared_videos, source_video
from datamodules.query_files import write_queries
from datamodules.records import FeatureHeader
from datamodules.schema import Event, Query, Turn, Video
from preparation.annotations.conversion import convert
from preparation.annotations.selection import FILTERS, select
from preparation.features.shard_writer import ShardWriter
from prepare import main


def described(video: str, duration_s: float | None, *spans) -> Query:
    events = tuple(Event(*span, "x") for span in spans)
    return Query(f"{video}/events", video, "events", events=events, duration_s=duration_s)


@pytest.mark.parametrize(
    ("rule", "query", "reason"),
    [
        ("vtimellm_stage2", described("v", 120, (0, 20), (20, 30)), ""),
        ("vtimellm_stage2", described("v", 120.5, (0, 20), (20, 30)), "video longer than 120 s"),
        ("vtimellm_stage2", described("v", None, (0, 20), (20, 30)), "duration not known"),
        ("vtimellm_stage2", described("v", 60, (0, 20)), "fewer than 2 events"),
        ("vtimellm_stage2", described("v", 60, (20, 30), (0, 20.5)), "events overlap"),
        ("vtimellm_stage2", described("v", 60, (0, 20), (20, 23)), "an event not longer than 3 s"),
        ("vtimellm_stage2", described("v", 100, (0, 8), (20, 28)), "mean event not longer than 8% of the video"),
        ("vtimellm_stage2", described("v", 100, (0, 8), (20, 28.5)), ""),
        ("vtimellm_stage3_activitynet", described("v", 10, (0, 3), (3, 6), (6, 9.1)), ""),
        ("vtimellm_stage3_activitynet", described("v", 10, (0, 5), (5, 10)), "fewer than 3 events"),
        ("vtimellm_stage3_activitynet", described("v", 10, (0, 3), (3, 6), (6, 9)),
         "events cover not more than 90% of the video"),
        ("vtimellm_stage3_didemo", described("v", 30, (0, 5), (20, 30)), ""),
        ("vtimellm_stage3_didemo", described("v", 30, (0, 5), (20, 25)), "events cover not more than 40% of the video"),
        ("meco", described("v", 350, (0, 5)), ""),
        ("meco", described("v", 350.5, (0, 5)), "video not within 5 to 350 s"),
        ("meco", described("v", 4.9, (0, 4)), "video not within 5 to 350 s"),
        ("meco", Query("q", "v", "dialogue", turns=(Turn("a", "b " * 500),), duration_s=9), ""),
        ("meco", Query("q", "v", "dialogue", turns=(Turn("a", "b " * 501),), duration_s=9),
         "answer longer than 500 words"),
        ("etchat", Query("q", "v", "dialogue", turns=(Turn("a", "b " * 200),), duration_s=9), ""),
        ("etchat", Query("q", "v", "dialogue", turns=(Turn("a", "b " * 201),), duration_s=9),
         "answer longer than 200 words"),
        ("meco", Query("q", "v", "dialogue", turns=(Turn("a", None, events=(Event(0, 1, detail="b " * 501),)),),
                       duration_s=9), "answer longer than 500 words"),
    ],
)  # fmt: skip
def test_rules(rule, query, reason):
    kept, dropped = select(rule, [query])
    assert (kept, dropped) == (([query], {}) if not reason else ([], {f"{rule}: {reason}": 1}))


def test_a_rule_takes_all_queries_of_a_video_or_none():
    """The events of a video are those of all its queries, so grounding queries are chosen like an events record."""
    good = [Query(f"g{k}", "g", "grounding", "x", (Event(20 * k, 20 * k + 20),), duration_s=60.0) for k in range(3)]
    bad = [Query(f"b{k}", "b", "grounding", "x", (Event(k, k + 20),), duration_s=60.0) for k in range(2)]
    kept, dropped = select("vtimellm_stage2", [bad[0], *good, bad[1]])
    assert kept == good
    assert dropped == {"vtimellm_stage2: events overlap": 2}
    with pytest.raises(ValueError, match="unknown filter 'x'; known: vtimellm_stage2"):
        select("x", [])
    vtimellm = {"vtimellm_stage2", "vtimellm_stage3_activitynet", "vtimellm_stage3_didemo"}
    assert set(FILTERS) == {*vtimellm, "etchat", "meco"}


@pytest.mark.parametrize(
    ("names", "video"),
    [
        (("NUsG9BgSes0", "v_NUsG9BgSes0", "NUsG9BgSes0_60.0_210.0", "NUsG9BgSes0.mp4", "v_NUsG9BgSes0_60.0_210.0.mp4",
          "qvhighlights/NUsG9BgSes0_60.0_210.0.mp4", "NUsG9BgSes0_000060_000210", "a/NUsG9BgSes0.MKV"), "NUsG9BgSes0"),
        (("v_abcdefghi", "v_v_abcdefghi", "v_abcdefghi_0_10"), "v_abcdefghi"),
        (("ab_12_34567", "v_ab_12_34567.mp4"), "ab_12_34567"),
        (("_abcde_1_20", "_abcde_1_20_3_40"), "_abcde_1_20"),
        (("3MSZA", "v_3MSZA", "3MSZA.mp4", "3MSZA_0_10"), "3MSZA"),
        (("26292851@N04_4253489686_265c3c8051.m4v", "26292851@N04_4253489686_265c3c8051"),
         "26292851@N04_4253489686_265c3c8051"),
        (("clip_20_10",), "clip_20_10"),
        (("10001787725",), "10001787725"),
        (("v_",), "v_"),
    ],
)  # fmt: skip
def test_names_of_one_video(names, video):
    assert {source_video(name) for name in names} == {video}


def test_shared_videos():
    training = ["v_NUsG9BgSes0", "NUsG9BgSes0_60.0_210.0", "v_other000000"]
    assert shared_videos(training, ["x/NUsG9BgSes0.mp4", "nUsG9BgSes0"]) == {
        "NUsG9BgSes0": (["NUsG9BgSes0_60.0_210.0", "v_NUsG9BgSes0"], ["x/NUsG9BgSes0.mp4"])
    }
    assert shared_videos([], ["a"]) == {}


def grounded(video: str, source: str) -> Query:
    return Query(f"{video}/0", video, "grounding", "x", (Event(0, 1),), source=source)


@pytest.mark.parametrize(
    ("training", "setting"),
    [
        ([grounded("b", "charades_sta")], "fine-tuned"),
        ([Query("b", "b", "events", events=(Event(0, 1, "x"),), source="charades_sta")], "fine-tuned"),
        ([Query("b", "b", "dialogue", turns=(Turn("a", "b"),), source="charades_sta")], "in-domain"),
        ([Query("b", "v_a.mp4", "dialogue", turns=(Turn("a", "b"),))], "in-domain"),
        ([grounded("b", "didemo")], "zero-shot"),
        ([grounded("b", "")], "zero-shot"),
        ([], "zero-shot"),
    ],
)
def test_setting_of_a_result(training, setting):
    evaluation = [grounded("a", "charades_sta"), grounded("c", "")]
    found = overlap(training, evaluation)
    assert found.setting == setting
    assert found.evaluation_queries == len(found.videos) == (training != [] and training[0].video == "v_a.mp4")
    assert str(found).startswith(f"{len(found.videos)} of 2 evaluation videos")


def test_overlap_command(tmp_path, capsys):
    write_queries(tmp_path / "a.jsonl", [grounded("v_NUsG9BgSes0", "activitynet")])
    write_queries(tmp_path / "b.jsonl", [grounded("NUsG9BgSes0_0.0_9.0", "qvhighlights"), grounded("c", "")])
    assert main(["overlap", str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")]) == 1
    out = capsys.readouterr().out
    for word in ("1 of 2", "in-domain", "v_NUsG9BgSes0", "NUsG9BgSes0_0.0_9.0"):
        assert word in out
    write_queries(tmp_path / "b.jsonl", [grounded("c", "")])
    assert main(["overlap", str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")]) == 0
    assert "zero-shot" in capsys.readouterr().out
    assert main(["overlap", str(tmp_path / "a.jsonl"), str(tmp_path / "none.jsonl")]) == 2


@pytest.fixture
def shards(tmp_path):
    header = FeatureHeader("e", "image_embeds", "p", "uniform 2", 3)
    with ShardWriter(tmp_path / "shards", header) as writer:
        for video, duration_s in (("a", 30.0), ("b", 9.0)):
            writer.add(Video(video, duration_s, np.array([0, duration_s / 2]), np.ones((2, 3), np.float16)))
    return tmp_path / "shards"


def test_queries_are_held_against_features(tmp_path, shards):
    rows = [
        {"id": "ok", "video": "a", "duration_s": 31.5},
        {"id": "unsaid", "video": "a"},
        {"id": "longer", "video": "a", "duration_s": 60},
        {"id": "outside", "video": "b", "events": [{"start_s": 5, "end_s": 20}]},
        {"id": "absent", "video": "c"},
    ]
    lines = [{"task": "grounding", "text": "x", "events": [{"start_s": 1, "end_s": 2}]} | row for row in rows]
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    found = convert("plain", path, "skip", shards)
    assert [query.id for query in found.queries] == ["ok", "unsaid"]
    assert found.dropped == {
        "annotation and features differ in duration": 1,
        "event outside the video": 1,
        f"video without features in {shards}": 1,
    }
    assert {("read", 5), ("kept", 2), ("kept: grounding queries", 2), ("kept: videos", 1)} <= set(found.rows())
    with pytest.raises(ValueError, match="query 'longer', video 'a': annotation and features differ in duration"):
        convert("plain", path, "fail", shards)


def test_annotations_command(tmp_path, capsys):
    path = tmp_path / "a.json"
    good = {"duration": 60, "timestamps": [[0, 20], [20, 40]], "sentences": ["He runs.", "He sits."]}
    path.write_text(json.dumps({"v": good, "w": good | {"timestamps": [[0, 20], [10, 40]]}}))
    out = str(tmp_path / "q.jsonl")
    call = ["annotations", "activitynet", "--input", str(path), "--output", out]
    assert main([*call, "--tasks", "[events]", "--filter", "vtimellm_stage2"]) == 0
    printed = capsys.readouterr().out
    for word in ("read", "kept: events queries", "dropped: vtimellm_stage2: events", "overlap"):
        assert word in printed
    (line,) = (tmp_path / "q.jsonl").read_text().splitlines()
    assert json.loads(line)["source"] == "activitynet"
    assert main([*call, "--durations", out]) == 2
    assert "--durations is not for activitynet, which takes --tasks" in capsys.readouterr().err
    assert main([*call, "--filter", "vtimellm_stage3_activitynet"]) == 2
    assert "nothing usable in it (vtimellm_stage3_activitynet: fewer than 3 events: 6)" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*call, "--filter", "stage2"])
    assert "vtimellm_stage3_didemo" in capsys.readouterr().err
