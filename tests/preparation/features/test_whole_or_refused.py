"""Files that are no video, are cut off or damaged are refused in one line; the others look as in a player."""

import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numbered import HEIGHT, VPX, WIDTH, X264, picture, read, render

from preparation.features.decoding import SampledFrames, Sampling, sample_frames
from preparation.features.pictures import PictureReader
from preparation.features.timeline import Timeline, read_timeline

CONTAINERS = [
    ("x.mp4", {"options": X264}),
    ("x.mov", {"codec": "mjpeg", "pixels": "yuvj420p"}),
    ("fast.mp4", {"options": X264, "muxer": {"movflags": "faststart"}}),
    ("fragments.mp4", {"options": X264, "muxer": {"movflags": "frag_keyframe+empty_moov"}}),
    ("x.mkv", {"options": X264, "sound_s": 3.0}),
    ("live.mkv", {"options": X264, "muxer": {"live": "1"}}),
    ("x.webm", {"codec": "libvpx", "options": VPX}),
    ("x.avi", {"codec": "mpeg4", "max_b_frames": 2}),
    ("x.flv", {"options": X264}),
    ("x.ts", {"codec": "mpeg2video", "gop_size": 1}),
    ("x.mpg", {"codec": "mpeg2video", "muxer": {"format": "mpeg"}}),
    ("x.ogv", {"codec": "libvpx", "options": VPX}),
    ("x.wmv", {"codec": "wmv2"}),
]
IDS = [name for name, _ in CONTAINERS]


def frames(path: Path, sampling: str = "uniform 10") -> SampledFrames:
    return sample_frames(path, Sampling.parse(sampling))


def refused(path: Path, *words: str) -> None:
    """A line that names the file, why, and what to do; whatever is sampled."""
    for sampling in ("uniform 100", "4.0 fps"):
        with pytest.raises(ValueError) as error:
            frames(path, sampling)
        message = str(error.value)
        assert message.startswith(f"{path}: ")
        assert "\n" not in message
        assert "; " in message  # the remedy
        assert all(word in message for word in words), message


@pytest.mark.parametrize("share", [0.3, 0.5, 0.93])
@pytest.mark.parametrize(("name", "how"), CONTAINERS, ids=IDS)
def test_cut_off(tmp_path, name, how, share):
    render(tmp_path / name, size=(320, 128), **how)
    content = (tmp_path / name).read_bytes()
    cut = int(len(content) * share)
    (tmp_path / name).write_bytes(content[: cut - (name == "x.ts") * (cut % 188)])  # .ts: also between its packets
    refused(tmp_path / name, "not whole")


@pytest.mark.parametrize(("name", "how"), CONTAINERS, ids=IDS)
def test_a_lost_block_in_the_middle(tmp_path, name, how):
    render(tmp_path / name, size=(320, 128), **how)
    content = bytearray((tmp_path / name).read_bytes())
    lost = len(content) // 10
    content[5 * lost : 6 * lost] = bytes(lost)
    (tmp_path / name).write_bytes(content)
    refused(tmp_path / name, "not whole")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("empty.mp4", b"", "an empty file; get the file again"),
        ("page.mp4", b"\n <!DOCTYPE html><html>not found</html>" * 50, "a web page, not a video"),
        ("error.webm", b'<?xml version="1.0"?><Error>AccessDenied</Error>', "a web page"),
        ("pointer.mp4", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git lfs pull"),
        ("noise.mkv", os.urandom(5000), "cannot be decoded"),
        (
            "playlist.mp4",
            b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nhttp://127.0.0.1:9/a.ts\n",
            "cannot be decoded",
        ),
        ("no_index.mp4", b"\0\0\0\x10ftypisom\0\0\0\0\0\0\0\x10mdat12345678", "no moov"),
    ],
)
def test_no_video_at_all(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    refused(tmp_path / name, words)


def test_sound_alone_a_cover_picture_and_one_picture(tmp_path):
    def sound(path: Path, cover: bool) -> None:
        with av.open(str(path), "w") as container:
            stream = container.add_stream("aac", rate=48000, layout="mono")
            image = container.add_stream("mjpeg") if cover else None
            if cover:
                image.width, image.height, image.pix_fmt = 32, 32, "yuvj420p"
                image.disposition = av.stream.Disposition.attached_pic
                frame = av.VideoFrame.from_ndarray(picture(1, 32, 32), format="rgb24")
                container.mux([*image.encode(frame), *image.encode()])
            for at in range(0, 48000, 1024):
                silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
                silence.sample_rate, silence.pts, silence.time_base = 48000, at, Fraction(1, 48000)
                container.mux(stream.encode(silence))
            container.mux(stream.encode())

    sound(tmp_path / "sound.mp4", cover=False)
    refused(tmp_path / "sound.mp4", "no video in it, sound alone")
    sound(tmp_path / "cover.mp4", cover=True)
    refused(tmp_path / "cover.mp4", "no video in it, a cover picture")
    render(tmp_path / "one.mp4", times_s=1, options=X264)
    refused(tmp_path / "one.mp4", "too short for a video: 1 picture; give an image as jpg or png")


def test_pictures_without_times(tmp_path):
    render(tmp_path / "raw.h264", options=X264, muxer={"format": "h264"})
    refused(tmp_path / "raw.h264", "no times in it", "ffmpeg -i FILE NEW.mp4")


def test_sound_may_last_longer_than_the_pictures(tmp_path):
    for name in ("x.mp4", "x.mkv"):
        render(tmp_path / name, options=X264, sound_s=7.0)
        assert frames(tmp_path / name).duration_s == pytest.approx(3.0)


@pytest.mark.parametrize(("degrees", "turns"), [(90, 1), (180, 2), (270, 3)])
def test_a_turned_video(tmp_path, degrees, turns):
    """As a telephone writes it: the matrix says by how much the picture is to be turned, against the clock."""
    render(tmp_path / "plain.mp4", options=X264)
    with av.open(str(tmp_path / "plain.mp4")) as container, av.open(str(tmp_path / "x.mp4"), "w") as new:
        stream = new.add_stream_from_template(container.streams.video[0])
        stream.set_display_rotation(degrees)
        for packet in container.demux(video=0):
            if packet.size:
                packet.stream = stream
                new.mux(packet)
    found, plain = frames(tmp_path / "x.mp4"), frames(tmp_path / "plain.mp4")
    np.testing.assert_array_equal(found.pixels, np.rot90(plain.pixels, turns, (1, 2)))
    np.testing.assert_array_equal(found.frame_times_s, plain.frame_times_s)


def test_a_mirrored_video(tmp_path):
    render(tmp_path / "plain.mp4", options=X264)
    content = bytearray((tmp_path / "plain.mp4").read_bytes())
    at = content.index(b"tkhd") + 4 + 40  # the matrix: a b u, c d v, x y w
    assert content[at : at + 4] == (1 << 16).to_bytes(4)
    content[at : at + 4] = (-1 << 16).to_bytes(4, signed=True)
    (tmp_path / "x.mp4").write_bytes(content)
    plain = frames(tmp_path / "plain.mp4")
    np.testing.assert_array_equal(frames(tmp_path / "x.mp4").pixels, plain.pixels[:, :, ::-1])


def test_pixels_that_are_not_square(tmp_path):
    times_s = render(tmp_path / "wide.mkv", options=X264, sample_aspect_ratio=Fraction(4, 3))
    found = frames(tmp_path / "wide.mkv", "uniform 5")
    assert found.pixels.shape == (5, HEIGHT, round(WIDTH * 4 / 3), 3)
    assert [times_s[read(pixels)] for pixels in found.pixels] == pytest.approx(found.frame_times_s.tolist())


def test_pictures_are_those_that_decord_gave(tmp_path):
    """Features that were made with it keep company with new ones: bit for bit, where it was right."""
    import decord

    render(tmp_path / "x.mp4", options=X264, size=(322, 182))
    found = frames(tmp_path / "x.mp4", "uniform 20")
    indices = Sampling(frames=20).indices(75, 25.0)
    np.testing.assert_array_equal(
        found.pixels, decord.VideoReader(str(tmp_path / "x.mp4")).get_batch(indices).asnumpy()
    )


def test_a_container_that_is_wrong_about_its_pictures(tmp_path):
    """Times that no picture has: found by decoding where that helps, refused where it does not, and never guessed."""
    times_s = render(tmp_path / "x.mp4", options=X264)
    right = read_timeline(tmp_path / "x.mp4")
    shifted = Timeline(right.pts + 1, right.keys, right.time_base, right.last_pts, right.average_rate)
    with pytest.raises(Exception, match="^$") as error:
        list(PictureReader(tmp_path / "x.mp4", shifted).read(shifted.pts[:3]))
    assert type(error.value).__name__ == "Mistaken"
    decoded = read_timeline(tmp_path / "x.mp4", decoded=True)
    np.testing.assert_array_equal(decoded.pts, right.pts)
    assert decoded.times_s.tolist() == pytest.approx(list(times_s.values()))
