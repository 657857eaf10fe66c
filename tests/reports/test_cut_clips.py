"""Parts of videos as files: the pictures of the seconds that were asked for, no more and no fewer."""

import json

import av
import numpy as np
import pytest

from reports.clips import clip_name, cut
from reports.media import place, probe


def pictures(path) -> list[tuple[float, np.ndarray]]:
    with av.open(str(path)) as container:
        return [(frame.time, frame.to_ndarray(format="gray")) for frame in container.decode(video=0)]


def number(picture: np.ndarray) -> int:
    """What a picture of the timing set says: ten squares are the bits of its number."""
    height, width = picture.shape
    return sum((picture[height // 2, int((bit + 0.5) * width / 10)] > 128) << bit for bit in range(10))


def test_a_clip_begins_and_ends_at_the_frame(clip, tmp_path):
    done = []
    cut(clip, tmp_path / "deep" / "cut.mp4", 4.5, 9.2, done.append)
    found = pictures(tmp_path / "deep" / "cut.mp4")
    assert [round(at_s, 3) for at_s, _ in found] == [round(k / 10, 3) for k in range(47)]
    assert done[-1] == pytest.approx(4.6)
    brightness = [int(picture[:20].mean()) for _, picture in found]
    assert brightness[4] != brightness[5] and brightness[44] != brightness[45]  # red, green from 5 s, blue from 9 s
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["cut.mp4"]


@pytest.mark.parametrize("name", ["vfr.mp4", "vfr.mkv", "mpeg4.avi", "cutcopy.mp4", "opengop.mp4", "videolate4.mp4"])
def test_pictures_of_any_file_are_those_of_their_seconds(real, name, tmp_path):
    truth = json.loads(real("videos/timing/truth.json").read_text())[name]["frames"]
    first_s = truth[0][1]
    cut(real(f"videos/timing/{name}"), tmp_path / "cut.mp4", 3.0, 6.5)
    wanted = [(n, at_s - first_s - 3.0) for n, at_s in truth if 3.0 - 1e-6 <= at_s - first_s < 6.5 - 1e-6]
    found = pictures(tmp_path / "cut.mp4")
    assert [number(picture) for _, picture in found] == [n for n, _ in wanted]
    assert [at_s for at_s, _ in found] == pytest.approx([at_s for _, at_s in wanted], abs=0.001)


def test_sound_comes_along_and_pictures_stand_upright(real, tmp_path):
    cut(real("videos/charades_example.mp4"), tmp_path / "a.mp4", 10.0, 12.0)
    with av.open(str(tmp_path / "a.mp4")) as container:
        (sound,) = container.streams.audio
        assert float(sound.duration * sound.time_base) == pytest.approx(2.0, abs=0.05)
    cut(real("videos/timing/rot90.mp4"), tmp_path / "b.mp4", 1.0, 2.0)
    with av.open(str(tmp_path / "b.mp4")) as container:
        picture = next(container.decode(video=0))
    assert (picture.rotation, picture.width, picture.height) == (0, 64, 320)
    assert number(np.rot90(picture.to_ndarray(format="gray"), -1)) == 25  # the picture of second 1


@pytest.mark.parametrize(("content", "word"), [(b"<html>no video</html>" * 9, "Invalid data"), (None, "No such file")])
def test_a_bad_file_leaves_nothing_behind(content, word, tmp_path):
    if content:
        (tmp_path / "bad.mp4").write_bytes(content)
    with pytest.raises(ValueError, match=f"bad.mp4: {word}"):
        cut(tmp_path / "bad.mp4", tmp_path / "out.mp4", 0.0, 1.0)
    assert not list(tmp_path.glob("*out*"))


def test_seconds_behind_the_end_are_refused(clip, tmp_path):
    with pytest.raises(ValueError, match="no picture from 20.0 to 21.0 s"):
        cut(clip, tmp_path / "out.mp4", 20.0, 21.0)
    assert not list(tmp_path.iterdir())


def test_names_of_clips_are_names_everywhere():
    name = clip_name("a/b<x>:.mp4", 9, 11.94, 'A <b>"blue"</b> box/../\u202e')
    assert name == "a_b_x__.mp4_0009.0-0011.9_a-b-blue-b-box.mp4"
    assert len(clip_name("v" * 300, 0, 1, "w " * 300)) < 200


@pytest.mark.parametrize(
    ("name", "note"),
    [
        ("mpeg4.avi", "browsers do not play mpeg4 in avi. Make the page again with --reencode"),
        ("hevc10.mp4", "browsers do not play hevc"),
        ("html.mp4", "Invalid data found"),
    ],
)
def test_what_no_browser_plays_is_said_or_written_again(real, name, note, tmp_path):
    file = real(f"videos/timing/{name}")
    assert note in place(file, tmp_path / "page.html").note
    if name != "html.mp4":
        media = place(file, tmp_path / "page.html", reencode=True)
        assert media.source == f"media/{file.stem}.mp4"
        assert not probe(tmp_path / media.source).unplayed


def test_links_are_relative_and_large_videos_are_not_embedded(clip, tmp_path, monkeypatch):
    strange = tmp_path / "videos" / b"\xff #?% '.mp4".decode("utf-8", "surrogateescape")
    strange.parent.mkdir()
    strange.write_bytes(clip.read_bytes())
    assert place(strange, tmp_path / "pages" / "page.html").source == "../videos/%FF%20%23%3F%25%20%27.mp4"
    assert place(strange, tmp_path / "page.html", embed=True).source.startswith("data:video/mp4;base64,AAAA")
    monkeypatch.setattr("reports.media.EMBEDDED_BYTES", 2**10)
    assert "larger than" in place(strange, tmp_path / "page.html", embed=True).note
