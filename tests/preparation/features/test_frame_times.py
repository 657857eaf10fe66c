"""Numbered pictures over containers, codecs and rates: the time of each frame is that of the picture in it."""

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from numbered import VPX, X264, copy, read, render

from preparation.features.decoding import Sampling, Source, decode, sample_frames

BEFORE_S, RIGHT_S = 0.05, 0.002
"""A clip may begin with a picture that appeared this much earlier; containers round times to milliseconds."""
SAMPLINGS = ("uniform 4", "uniform 60", "3.0 fps", "40.0 fps", "4.0 fps max 5", "qwen_vl_utils 3.0 fps")


def check(path: Path, times_s: dict[int, float], duration_s: float, sampling: str, *bounds: float) -> None:
    """Hold the frames of a video, or of a clip of it, against the times of its pictures."""
    found, begin_s = sample_frames(path, Sampling.parse(sampling), *bounds), bounds[0] if bounds else 0.0
    last_s = max(times_s.values())
    step_s = duration_s - last_s
    end_s = bounds[1] if bounds else duration_s
    assert found.duration_s == pytest.approx(end_s - begin_s, abs=step_s + RIGHT_S)
    assert len(found.pixels) == len(found.frame_times_s)
    assert (np.diff(found.frame_times_s) >= 0).all()
    numbers = [read(pixels) for pixels in found.pixels]
    for number, time_s in zip(numbers, found.frame_times_s, strict=True):
        assert time_s == pytest.approx(max(times_s[number] - begin_s, 0.0), abs=RIGHT_S), (number, sampling)
        assert -BEFORE_S - RIGHT_S <= times_s[number] - begin_s <= end_s - begin_s + RIGHT_S
    wanted = Sampling.parse(sampling)
    if wanted.frames:
        assert len(numbers) == wanted.frames
        before = max(number for number, time_s in times_s.items() if time_s <= begin_s + 1e-6)
        assert numbers[0] == before + (begin_s - times_s[before] > BEFORE_S + 1e-6)
    gaps = max(np.diff([*times_s.values(), duration_s]))
    even_s = np.linspace(found.frame_times_s[0], found.frame_times_s[-1], len(numbers))
    assert abs(found.frame_times_s - even_s).max() <= 1.5 * gaps + BEFORE_S + RIGHT_S  # spread over time


MATRIX = [
    ("h264.mp4", {"options": X264}),
    ("h264.mov", {"options": X264, "rate": "30000/1001"}),
    ("h264.mkv", {"options": X264, "rate": "24000/1001"}),
    ("h264.flv", {"options": X264}),
    ("h264.avi", {"options": X264}),
    ("h264.ts", {"options": X264}),
    ("h264.m2ts", {"options": X264, "muxer": {"format": "mpegts", "mpegts_m2ts_mode": "1"}}),
    ("slow.mp4", {"options": X264, "rate": "5"}),
    ("fast.mkv", {"options": X264, "rate": "60"}),
    ("open_gop.mp4", {"options": X264 | {"x264-params": "open-gop=1:keyint=15:bframes=4"}}),
    ("open_gop.ts", {"options": X264 | {"x264-params": "open-gop=1:keyint=15:bframes=4"}}),
    ("no_edit_list.mp4", {"options": X264, "muxer": {"use_editlist": "0"}}),
    ("fragments.mp4", {"options": X264, "muxer": {"movflags": "frag_keyframe+empty_moov"}}),
    ("10bit.mp4", {"options": X264, "pixels": "yuv420p10le"}),
    ("hevc.mkv", {"codec": "libx265", "options": {"preset": "ultrafast", "x265-params": "log-level=0:open-gop=1"}}),
    ("hevc.ts", {"codec": "libx265", "options": {"preset": "ultrafast", "x265-params": "log-level=0"}}),
    ("b_frames.mkv", {"codec": "mpeg4", "max_b_frames": 3}),
    ("layers.mp4", {"codec": "libx265", "options": {"x265-params": "log-level=0:temporal-layers=3:bframes=4"}}),
    ("b_frames.avi", {"codec": "mpeg4", "max_b_frames": 2}),
    ("b_frames.mp4", {"codec": "mpeg4", "max_b_frames": 2, "rate": "10"}),
    ("mpeg2.mpg", {"codec": "mpeg2video", "max_b_frames": 2, "muxer": {"format": "mpeg"}}),
    ("mpeg2.vob", {"codec": "mpeg2video", "muxer": {"format": "vob"}, "rate": "30000/1001"}),
    ("mpeg2.ts", {"codec": "mpeg2video", "max_b_frames": 2}),
    ("mpeg1.mpg", {"codec": "mpeg1video", "muxer": {"format": "mpeg"}, "size": (640, 384)}),
    ("vp8.webm", {"codec": "libvpx", "options": VPX | {"auto-alt-ref": "1", "lag-in-frames": "10"}}),
    ("vp9.webm", {"codec": "libvpx-vp9", "options": VPX | {"lag-in-frames": "10"}}),
    ("vp8.ogv", {"codec": "libvpx", "options": VPX}),
    ("av1.mp4", {"codec": "libsvtav1", "options": {"preset": "12", "svtav1-params": "lp=1"}}),
    ("wmv2.wmv", {"codec": "wmv2"}),
    ("flv1.flv", {"codec": "flv"}),
    ("mjpeg.avi", {"codec": "mjpeg", "pixels": "yuvj420p"}),
    ("prores.mov", {"codec": "prores_ks", "pixels": "yuv422p10le"}),
    ("ffv1.mkv", {"codec": "ffv1"}),
]
"""Name of a file -> how it is made."""


@pytest.mark.parametrize(("name", "how"), MATRIX, ids=[name for name, _ in MATRIX])
def test_every_stored_time_is_that_of_the_stored_picture(tmp_path, name, how):
    times_s = render(tmp_path / name, **how)
    step_s = times_s[1]
    duration_s = len(times_s) * step_s
    for sampling in SAMPLINGS:
        check(tmp_path / name, times_s, duration_s, sampling)
        check(tmp_path / name, times_s, duration_s, sampling, 0.313 * duration_s, 0.8 * duration_s)
    check(tmp_path / name, times_s, duration_s, "uniform 2", 0.5 * duration_s + step_s / 4, duration_s)


@pytest.mark.xfail(strict=True, reason="what cannot be noticed, docs/time.md: 0.04 s late behind a packet's end")
def test_tiny_pictures_that_share_a_packet_of_mpeg_ps(tmp_path):
    times_s = render(tmp_path / "mpeg1.mpg", codec="mpeg1video", muxer={"format": "mpeg"})
    check(tmp_path / "mpeg1.mpg", times_s, len(times_s) * times_s[1], "uniform 4")


SLOWING = [Fraction(k, 25) if k < 40 else Fraction(40 + 6 * (k - 40), 25) for k in range(75)]
"""Every picture of the first seconds, then one in six."""
LATE = [4 + time_s for time_s in SLOWING]


@pytest.mark.parametrize("times_s", [SLOWING, LATE], ids=["from_zero", "late"])
@pytest.mark.parametrize("name", ["x.mp4", "x.mkv", "x.mov", "x.flv", "x.ts"])
def test_a_varying_rate_and_a_late_begin(tmp_path, name, times_s):
    truth = render(tmp_path / name, times_s=times_s, options=X264)
    duration_s = sample_frames(tmp_path / name, Sampling(frames=2)).duration_s
    assert duration_s == pytest.approx(max(truth.values()), abs=0.25)
    for sampling in SAMPLINGS:
        check(tmp_path / name, truth, duration_s, sampling)
        check(tmp_path / name, truth, duration_s, sampling, 1.1, 7.3)


def test_a_clip_in_which_no_picture_appears_is_the_one_that_stays(tmp_path):
    render(tmp_path / "slides.mkv", times_s=map(Fraction, (0, 10, 17, 30)), options=X264)
    found = sample_frames(tmp_path / "slides.mkv", Sampling(fps=1.0), 12.0, 15.0)
    assert [read(pixels) for pixels in found.pixels] == [1, 1, 1]
    assert (found.frame_times_s.tolist(), found.duration_s) == ([0.0, 0.0, 0.0], 3.0)
    whole = sample_frames(tmp_path / "slides.mkv", Sampling(fps=1.0))
    assert [read(pixels) for pixels in whole.pixels] == [0] * 10 + [1] * 7 + [2] * 13 + [3]
    assert whole.frame_times_s.tolist() == [0.0] * 10 + [10.0] * 7 + [17.0] * 13 + [30.0]


@pytest.mark.parametrize(("first", "name"), [(10, "cut.mp4"), (37, "cut.mov")])
def test_what_an_edit_list_cuts_away_is_not_shown(tmp_path, first, name):
    """Cut without encoding: the packets before the cut stay in the file, and the edit list says where it begins."""
    render(tmp_path / "whole.mp4", options=X264, rate="25")
    copy(tmp_path / "whole.mp4", tmp_path / "shifted.mp4")
    content = bytearray((tmp_path / "shifted.mp4").read_bytes())
    at = (
        content.index(b"elst") + 16
    )  # version and flags, count, length; then where the edit begins, in the track's units
    unit = int.from_bytes(content[content.index(b"mdhd") + 16 :][:4])
    begin = int.from_bytes(content[at : at + 4]) + first * unit // 25
    content[at - 4 : at + 4] = (1000 * (75 - first) // 25).to_bytes(4) + begin.to_bytes(4)
    (tmp_path / name).write_bytes(content)
    times_s = {number: (number - first) / 25 for number in range(first, 75)}
    for sampling in SAMPLINGS:
        check(tmp_path / name, times_s, (75 - first) / 25, sampling)
        check(tmp_path / name, times_s, (75 - first) / 25, sampling, 0.4, 1.0)


@pytest.mark.parametrize("name", ["x.mp4", "x.mkv", "x.ts"])
def test_sound_that_begins_earlier_is_not_waited_for(tmp_path, name):
    times_s = [4 + Fraction(k, 25) for k in range(75)]
    truth = render(tmp_path / name, times_s=times_s, options=X264, sound_s=9.0)
    check(tmp_path / name, truth, 3.0, "uniform 60")
    check(tmp_path / name, truth, 3.0, "3.0 fps", 1.0, 2.0)
    *_, end = decode(Source("x", tmp_path / name), Sampling(frames=2), 2)
    assert end.video["sound_lead_s"] == pytest.approx(4, abs=0.05)


def test_a_picture_that_fades_in_over_many_is_read_in_sequence(tmp_path):
    """Without a keyframe to begin at: the whole file is decoded."""
    options = X264 | {"x264-params": "intra-refresh=1:keyint=20:bframes=0"}
    times_s = render(tmp_path / "refresh.mp4", options=options)
    check(tmp_path / "refresh.mp4", times_s, 3.0, "uniform 4")
    assert sample_frames(tmp_path / "refresh.mp4", Sampling(frames=4)).reader == "PyAV in sequence"
    render(tmp_path / "usual.mp4", options=X264)
    assert sample_frames(tmp_path / "usual.mp4", Sampling(frames=4)).reader == "PyAV by keyframe"


@pytest.mark.parametrize("sampling", ["uniform 1", "uniform 7", "uniform 100", "1.0 fps", "30.0 fps", "2.0 fps max 9"])
@pytest.mark.parametrize("bounds", [(), (3.3, 11.7), (8.1, 30.0), (0.0, 0.5)])
def test_the_published_files(real, sampling, bounds):
    """Every file of the folder: right to a twentieth of a second, or refused."""
    folder = real("videos/timing")
    for name, truth in json.loads((folder / "truth.json").read_text()).items():
        frames, whole = truth.get("frames", []), not truth.get("stopped")
        times_s = {number: time_s - frames[0][1] for number, time_s in frames}
        try:
            found = sample_frames(folder / name, Sampling.parse(sampling), *bounds)
        except ValueError as error:
            read_by_players = truth["readable"] and whole and len(frames) > 1 and not name.startswith("cut_")
            assert not read_by_players or "is empty in a file" in str(error), name
            continue
        assert whole, name
        assert not name.startswith("cut_")
        begin_s = bounds[0] if bounds else 0.0
        upright = np.rot90(found.pixels, -1, (1, 2)) if name == "rot90.mp4" else found.pixels
        for pixels, time_s in zip(upright, found.frame_times_s, strict=True):
            assert abs(times_s[read(pixels)] - begin_s - time_s) <= 0.05, name
        if not bounds:
            step_s = frames[-1][1] - frames[-2][1]
            assert abs(found.duration_s - max(times_s.values())) <= step_s + 0.05, name
