"""From a released annotation file to the list of clips, to their features, to training; nothing is written by hand."""

import json
from pathlib import Path

import pytest

import prepare
import train
from datamodules.query_files import query_from_dict, query_to_dict, read_queries
from datamodules.schema import Event, Part, Query
from datamodules.shards import ShardReader
from preparation.annotations import internvid, vtimellm
from preparation.annotations.clips import write_clips
from preparation.features.decoding import find_sources
from preparation.world.rendering import render_clip
from preparation.world.tiny import tiny_clip

PART = Part("film", 2.0, 10.0)


def sample(video: str, split, duration: float = 8.0, **token) -> dict:
    turns = [("human", "<video>\nWhat happens from <s0> to <e0>?"), ("gpt", "A green box.")]
    meta = {"duration": duration, "token": token or {"<s0>": 3.0, "<e0>": 7.0}}
    return {
        "id": video,
        "conversations": [{"from": role, "value": text} for role, text in turns],
        "meta": meta | ({"split": split} if split else {}),
    }


def stage2(folder: Path, *samples: dict) -> Path:
    path = folder / "stage2.json"
    path.write_text(json.dumps(samples))
    return path


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def films(tmp_path_factory) -> Path:
    """A folder with one film of 12 s."""
    folder = tmp_path_factory.mktemp("films")
    render_clip(folder / "deep" / "film.mp4")
    return folder


def test_a_released_split_is_a_part_of_a_file(tmp_path):
    (query, whole), counts = vtimellm.read(stage2(tmp_path, sample("film", [2, 10.0]), sample("other", None)))
    assert not counts
    assert (query.part, whole.part) == (PART, None)
    assert query_from_dict(json.loads(json.dumps(query_to_dict(query)))) == query
    del (without := sample("film", [2, 10.0]))["meta"]["duration"]
    (query,), _ = vtimellm.read(stage2(tmp_path, without))
    assert query.duration_s == 8.0


@pytest.mark.parametrize(
    ("split", "words"),
    [
        ([10, 2], "split is no span of the file ..10, 2. .end_s must be after start_s"),
        ([2], "split is no span of the file"),
        ("2-10", "split is no span of the file"),
        ([-1, 7], "split is no span of the file ..-1, 7. .start_s must not be negative"),
        ([0, 20], r"duration_s is 8.0, the part of the file 0.0..20.0 s"),
    ],
)
def test_a_split_that_is_none_is_refused(tmp_path, split, words):
    with pytest.raises(ValueError, match=f"stage2.json, sample 0 .id 'film'.: {words}"):
        vtimellm.read(stage2(tmp_path, sample("film", split)))


def test_the_list_names_files_where_they_are_and_where_they_will_be(tmp_path, films):
    queries = [Query(f"q{k}", "clip", "grounding", "x", duration_s=8.0, part=PART) for k in range(2)]
    queries += [Query("w", "absent", "grounding", "x")]
    counts = write_clips(tmp_path / "clips.jsonl", queries, None, "fail")
    assert counts == {"clips": 2, "files not there yet": 2}
    expected = {"id": "clip", "path": "film.mp4", "start_s": 2.0, "end_s": 10.0}
    assert lines(tmp_path / "clips.jsonl") == [expected, {"id": "absent", "path": "absent.mp4"}]
    with pytest.raises(ValueError, match=f"video 'absent': video without a file .no absent in {films}"):
        write_clips(tmp_path / "clips.jsonl", queries, films, "fail")
    counts = write_clips(tmp_path / "clips.jsonl", queries, films, "skip")
    assert counts == {"clips": 1, "video without a file": 1}
    (source,), _ = find_sources(tmp_path / "clips.jsonl")
    assert (source.id, source.start_s, source.end_s) == ("clip", 2.0, 10.0)
    assert source.path.resolve() == (films / "deep" / "film.mp4").resolve()
    counts = write_clips(films / "clips.jsonl", queries[:2], None, "fail")
    assert counts == {"clips": 1} and lines(films / "clips.jsonl")[0]["path"] == "deep/film.mp4"


def test_one_id_for_two_parts_is_refused(tmp_path):
    queries = [Query("a", "v", "grounding", "x", duration_s=8.0, part=PART), Query("b", "v", "grounding", "x")]
    with pytest.raises(ValueError, match="query 'b': video 'v' is None here and Part.*before"):
        write_clips(tmp_path / "clips.jsonl", queries, None, "fail")


def test_long_videos_of_internvid_are_cut_into_clips(tmp_path):
    """At events, so that no clip is longer than asked; a video that is short enough stays whole."""
    spans = [("long", 100, 130), ("long", 140, 200), ("long", 210, 215.5), ("long", 600, 640), ("short", 5, 30)]
    clock = "{:02d}:{:02d}:{:06.3f}"
    rows = [
        {
            "YoutubeID": video,
            "Start_timestamp": clock.format(0, int(start // 60), start % 60),
            "End_timestamp": clock.format(0, int(end // 60), end % 60),
            "Caption": f"event {start}",
        }
        for video, start, end in spans
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "lengths.json").write_text('{"long": 700, "short": 60}')
    queries, counts = internvid.read(tmp_path / "a.jsonl", durations=tmp_path / "lengths.json", longest_s=110)
    assert not counts
    assert [(query.video, query.part, query.duration_s) for query in queries] == [
        ("long_100000_200000", Part("long", 100, 200), 100),
        ("long_210000_215500", Part("long", 210, 215.5), 5.5),
        ("long_600000_640000", Part("long", 600, 640), 40),
        ("short", None, 60),
    ]
    assert queries[0].events == (Event(0, 30, "event 100"), Event(40, 100, "event 140"))
    whole, _ = internvid.read(tmp_path / "a.jsonl", durations=tmp_path / "lengths.json")
    assert [(query.video, query.duration_s) for query in whole] == [("long", 700), ("short", 60)]


def test_clips_go_from_a_released_file_to_training(films, arguments, tmp_path):
    tiny_clip(tmp_path / "clip", width=8)
    queries, clips, shards = tmp_path / "stage2.jsonl", tmp_path / "clips.jsonl", tmp_path / "shards"
    released = ["annotations", "vtimellm", f"--input={stage2(tmp_path, sample('film', [2.0, 10.0]))}"]
    released += [f"--output={queries}"]
    assert prepare.main([*released, f"--clips={clips}", f"--videos={films}"]) == 0
    encoder = [f"--encoder={tmp_path / 'clip'}", "--sampling=uniform 12", "--device=cpu"]
    assert prepare.main(["features", f"--videos={clips}", f"--output={shards}", *encoder]) == 0
    assert prepare.main([*released, f"--shards={shards}"]) == 0
    assert ShardReader(shards).duration_s("film") == pytest.approx(8.0, abs=0.1)
    source = f"--data.train=[{{shards: {shards}, queries: {queries}}}]"
    train.main(arguments(2, tmp_path / "run", source, "--model.tune_adapter=true", max_steps=1))
    assert (tmp_path / "run" / "model" / "manifest.json").is_file()
    assert [query.part for query in read_queries(queries)] == [PART]


def test_features_of_whole_files_do_not_serve_clips(films, tmp_path, capsys):
    tiny_clip(tmp_path / "clip", width=8)
    encoder = [f"--encoder={tmp_path / 'clip'}", "--sampling=uniform 12", "--device=cpu"]
    assert prepare.main(["features", f"--videos={films / 'deep'}", f"--output={tmp_path / 'whole'}", *encoder]) == 0
    released = ["annotations", "vtimellm", f"--input={stage2(tmp_path, sample('film', [2.0, 10.0]))}"]
    assert prepare.main([*released, f"--output={tmp_path / 'q.jsonl'}", f"--shards={tmp_path / 'whole'}"]) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert "annotation and features differ in duration" in error
    assert "--clips" in error
    assert prepare.main([*released, f"--output={tmp_path / 'q.jsonl'}", f"--videos={films}"]) == 2
    assert "--videos is for --clips" in capsys.readouterr().err
