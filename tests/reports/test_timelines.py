"""Answers as pictures, tables and objects."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from command_line.tables import shown
from datamodules.prediction import Prediction, Strip
from datamodules.schema import Event, Query
from reports.results import Moment, Moments, answers_table, opacities, printed
from reports.timelines import PREDICTED, TRUE, draw_timelines


def prediction(name: str, **settings) -> Prediction:
    return Prediction(name, "v", "grounding", **{"answer": "From 10 to 20.", "spans": ((1.0, 2.0, 1.0),)} | settings)


def pixels(path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def columns(image: np.ndarray, colour: str) -> np.ndarray:
    """Columns in which a colour is."""
    rgb = [int(colour[place : place + 2], 16) for place in (1, 3, 5)]
    here = (abs(image - rgb).sum(-1) < 12)[60:]  # below the legend
    return here.any(0).nonzero()[0]


def rows(count: int) -> list:
    event = Event(1.0, 5.0, "a robot jumps")
    query = Query("q", "v", "grounding", "a robot jumps " * 20, events=(event, Event(7.0, 8.0)), duration_s=10.0)
    return [(query, prediction("q", spans=((1.0, 6.0, 1.0), (9.0, 2.0, 1.0))), 10.0)] * count


@pytest.mark.parametrize("count", [0, 1, 40])
def test_timelines_of_any_number(tmp_path, count):
    draw_timelines(tmp_path / "deep" / "t.png", rows(count))
    image = Image.open(tmp_path / "deep" / "t.png")
    assert image.format == "PNG"
    assert image.size[1] < 2000  # no more than twelve rows


def test_timelines_show_what_was_asked_and_what_was_not_found(tmp_path):
    own = Query("q", "v", "grounding", "$x^2 robot_$", duration_s=10.0)  # nothing of it is a formula
    draw_timelines(tmp_path / "t.png", [(own, prediction("q", spans=(), rule=None), 10.0)])
    assert Image.open(tmp_path / "t.png").size[0] > 300


def test_bars_stand_at_their_seconds(tmp_path):
    query = Query("q", "v", "grounding", "x", (Event(25.0, 50.0),), duration_s=100.0)
    draw_timelines(tmp_path / "t.png", [(query, prediction("q", spans=((75.0, 100.0, 1.0),)), 100.0)])
    image = pixels(tmp_path / "t.png")
    left, right = columns(image, TRUE), columns(image, PREDICTED)
    second = (right.max() - left.min()) / 75  # pixels
    assert (left.max() - left.min()) / second == pytest.approx(25, abs=1)
    assert (right.min() - left.min()) / second == pytest.approx(50, abs=1)


def test_queries_about_one_video_share_an_axis(tmp_path):
    query = Query("q", "v", "grounding", "x", duration_s=10.0)
    for name, videos in (("one", ("v", "v")), ("two", ("v", "w"))):
        asked = [(replace(query, video=video), prediction("q"), 10.0) for video in videos]
        draw_timelines(tmp_path / f"{name}.png", asked)
    assert pixels(tmp_path / "two.png").shape[0] > pixels(tmp_path / "one.png").shape[0]


def test_saliency_and_strips_take_room(tmp_path):
    query = Query("q", "v", "grounding", "x", duration_s=10.0)
    full = prediction("q", saliency=(0.1, 0.4, 0.4), strips=(Strip("<ent> 1", (0.0, 0.5, 1.0)),) * 2)
    heights = []
    for found in (prediction("q"), full):
        draw_timelines(tmp_path / "t.png", [(query, found, 10.0)])
        heights.append(pixels(tmp_path / "t.png").shape[0])
    assert heights[1] > heights[0] + 50


def test_unlikely_spans_are_faint():
    spans = ((0.0, 2.0, 0.8), (4.0, 6.0, 0.2), (7.0, 8.0, -0.1))
    assert opacities(prediction("q", spans=spans)) == [1.0, 0.25, 0.0]
    assert opacities(replace(prediction("q", spans=spans), task="dense_captioning")) == [1.0, 1.0, 1.0]
    assert opacities(prediction("q", spans=((0.0, 2.0, -0.1), (4.0, 6.0, -0.2)))) == [1.0, 0.2]
    assert opacities(prediction("q", spans=())) == []


def test_a_result_is_a_sequence_that_prints(monkeypatch):
    query = Query("q", "a[b] [/red].mp4", "grounding", "[bold]x", duration_s=10.0)
    found = Moments(query, prediction("q", spans=((1.0, 2.5, 0.9), (4.0, 5.0, 0.2))), 10.0)
    assert list(found) == [Moment(1.0, 2.5, 0.9), Moment(4.0, 5.0, 0.2)] and len(found) == 2
    assert str(found[0]) == "1.0-2.5 s"
    text = str(found)
    assert all(part in text for part in ("a[b] [/red].mp4", "[bold]x", "1.0", "2.5", "0.90", "From 10 to 20."))
    assert "and 1 less likely" in printed(answers_table([found], most=1))


def test_an_answer_without_a_time_is_shown_as_one():
    query = Query("q", "v", "grounding", "x", duration_s=10.0)
    lost = Moments(query, prediction("q", answer="Hello.", spans=(), rule=None), 10.0)
    assert "Hello. (no time could be read)" in str(lost) and not len(lost)


def test_a_chosen_option_is_read_out():
    query = Query("q", "v", "grounded_qa", "what?", options=("a cat", "a dog"), duration_s=10.0)
    assert Moments(query, replace(prediction("q"), option=1), 10.0).text == "a dog"


def test_a_notebook_gets_text_as_text():
    query = Query("q", "<i>v", "grounding", "<script>alert(1)</script>", duration_s=10.0)
    drawn = Moments(query, prediction("q", answer="</div><b>"), 10.0)._repr_html_()
    assert "<script>" not in drawn and "</div><b>" not in drawn and "<i>v" not in drawn
    assert "left:10.000%;width:10.000%" in drawn


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("a\x1b[2Jb", "a\\x1b[2Jb"),
        ("photo\u202egnp.exe", "photo\\u202egnp.exe"),
        ("line\nbreak\tand\rreturn", "line\nbreak and\\rreturn"),
        ("\udcff.mp4", "\\udcff.mp4"),
        ("\u05e2\u05d1\u05e8\u05d9\u05ea \U0001f469\u200d\U0001f680 [x]",) * 2,
    ],
)
def test_what_would_steer_a_terminal_is_written_out(text, safe):
    assert shown(text) == safe
