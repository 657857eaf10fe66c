"""Which files are found, and which of their frames are chosen."""

import json
import os
from pathlib import Path

import pytest

from preparation.features.decoding import Sampling, Source, find_sources, sample_frames

ROOT = Path(__file__).parents[3]
GOLDEN = Path(os.environ.get("WHENLM_GOLDEN_DIR", ROOT.parent / "shared" / "golden"))


@pytest.mark.golden
def test_vtimellm_frame_sampling():
    path = GOLDEN / "models" / "vtimellm" / "eval.json"
    if not path.is_file():
        pytest.skip(f"no golden file {path}; set WHENLM_GOLDEN_DIR")
    for case in json.loads(path.read_text())["frame_sampling"]:
        split = case["split"] or (None, None)
        found = Sampling(frames=case["N"]).indices(case["num_frames"], case["fps"], *split)
        assert found.tolist() == case["indices"]


def test_sampling_rules():
    assert Sampling(frames=4).indices(8, 10.0).tolist() == [0, 2, 4, 7]
    assert Sampling(frames=5).indices(3, 10.0).tolist() == [0, 0, 1, 1, 2]
    assert Sampling(fps=1.0).indices(300, 29.97).tolist() == [0, 30, 60, 90, 120, 150, 180, 210, 240, 270, 299]
    assert Sampling(fps=2.0).indices(10, 10.0).tolist() == [0, 5]
    assert Sampling(fps=2.0).indices(100, 10.0, 3.0, 4.9).tolist() == [30, 35, 40, 45]
    assert Sampling(fps=0.01).indices(10, 10.0).tolist() == [0]
    with pytest.raises(ValueError, match=r"clip 5\.0\.\.9\.0 s is empty in a file of 2\.00 s"):
        Sampling(frames=4).indices(20, 10.0, 5.0, 9.0)
    with pytest.raises(ValueError, match="is empty"):
        Sampling(frames=4).indices(100, 10.0, 5.0, 5.0)


def test_a_rate_with_a_cap_is_lowered_until_it_fits():
    capped = Sampling.parse("1.0 fps max 4")
    assert capped.indices(30, 10.0).tolist() == Sampling(fps=1.0).indices(30, 10.0).tolist() == [0, 10, 20]
    assert capped.indices(80, 10.0).tolist() == [0, 20, 40, 60]
    assert capped.indices(1000, 10.0, 10.0, 50.0).tolist() == [100, 200, 300, 400]


def test_the_rules_for_qwen_spread_frames_from_the_first_picture_to_the_last():
    assert Sampling.parse("qwen_vl_utils 2.0 fps").indices(100, 10.0).tolist()[:3] == [0, 5, 10]
    assert Sampling.parse("qwen_vl_utils 2.0 fps").indices(90, 10.0)[-1] == 89
    assert len(Sampling.parse("qwen_vl_utils 1.0 fps").indices(90, 10.0)) == 8  # an even number
    assert len(Sampling.parse("transformers 1.0 fps").indices(90, 10.0)) == 9
    assert len(Sampling.parse("transformers 1.0 fps max 5").indices(90, 10.0)) == 5
    assert len(Sampling.parse("qwen_vl_utils uniform 9").indices(90, 10.0)) == 8
    with pytest.raises(ValueError, match="qwen_vl_utils takes 2 pictures, and the clip has 1"):
        Sampling.parse("qwen_vl_utils 2.0 fps").indices(1, 10.0)


@pytest.mark.parametrize(
    "text",
    ["uniform 100", "1.0 fps", "0.5 fps", "1.0 fps max 350", "qwen_vl_utils 2.0 fps max 64", "transformers uniform 9"],
)
def test_sampling_reads_what_it_writes(text):
    assert str(Sampling.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "uniform",
        "uniform 0",
        "uniform -3",
        "100",
        "fps 1",
        "0 fps",
        "-1 fps",
        "1 2 fps",
        "1 fps max",
        "1 fps max 0",
        "qwen_vl_utils",
        "qwen 2.0 fps",
    ],
)
def test_sampling_refuses(text):
    with pytest.raises(ValueError, match="sampling must read like"):
        Sampling.parse(text)


def test_lists(tmp_path):
    (tmp_path / "list.txt").write_text("a.mp4\n\nsome/id\tsub/b.mp4\n")
    assert find_sources(tmp_path / "list.txt")[0] == [
        Source("a", tmp_path / "a.mp4"),
        Source("some/id", tmp_path / "sub/b.mp4"),
    ]
    (tmp_path / "list.jsonl").write_text(
        '{"path": "/x/a.mp4"}\n{"id": "b", "path": "b.mp4", "start_s": 1, "end_s": 2.5}\n'
    )
    assert find_sources(tmp_path / "list.jsonl")[0] == [
        Source("a", Path("/x/a.mp4")),
        Source("b", tmp_path / "b.mp4", 1, 2.5),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"id": "a"}', "needs a path"),
        ('{"path": "a.mp4", "begin": 1}', "got .'begin', 'path'."),
        ('{"path": "a.mp4", "start_s": "1"}', "start_s must be a number"),
        ('{"path": "a.mp4", "id": ""}', "non-empty"),
        ("a.mp4", "Expecting value"),
        ("[1]", "needs a path|has no attribute|got"),
    ],
)
def test_bad_lines_are_named(tmp_path, line, message):
    (tmp_path / "list.jsonl").write_text('{"path": "good.mp4"}\n' + line)
    with pytest.raises(ValueError, match=f"list.jsonl, line 2: .*({message})"):
        find_sources(tmp_path / "list.jsonl")


def test_a_list_from_another_system(tmp_path):
    """With a byte order mark, carriage returns, and blanks behind the paths."""
    (tmp_path / "list.txt").write_bytes("\ufeffa.mp4 \r\n\r\nsome/id\tsub/b.mp4 \r\n".encode())
    assert find_sources(tmp_path / "list.txt")[0] == [
        Source("a", tmp_path / "a.mp4"),
        Source("some/id", tmp_path / "sub/b.mp4"),
    ]
    (tmp_path / "list.jsonl").write_bytes('\ufeff{"path": "a.mp4"}\r\n'.encode())
    assert find_sources(tmp_path / "list.jsonl")[0] == [Source("a", tmp_path / "a.mp4")]


def test_links_are_followed_and_those_that_lead_nowhere_are_sources(tmp_path):
    (tmp_path / "videos").mkdir()
    (tmp_path / "disk" / "deep").mkdir(parents=True)
    (tmp_path / "disk" / "deep" / "a.mp4").write_bytes(b"x")
    (tmp_path / "videos" / "linked").symlink_to(tmp_path / "disk")
    (tmp_path / "videos" / "lost.mp4").symlink_to(tmp_path / "gone.mp4")
    (tmp_path / "videos" / "lost.txt").symlink_to(tmp_path / "gone.txt")
    (tmp_path / "disk" / "deep" / "round").symlink_to(tmp_path / "disk")
    sources, others = find_sources(tmp_path / "videos")
    assert ([source.id for source in sources], others) == (["linked/deep/a", "lost"], 1)
    with pytest.raises(FileNotFoundError, match="lost.mp4: a link that leads nowhere"):
        sample_frames(sources[1].path, Sampling(frames=2))


def test_nothing_found(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder"):
        find_sources(tmp_path / "none")
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(ValueError, match="no video or image found .1 other"):
        find_sources(tmp_path)
