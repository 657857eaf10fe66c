"""Texts before frames and answers in seconds equal those of Qwen3-VL's processor, TimeLens, UniTime and Molmo2."""

import json
import re
from dataclasses import replace
from random import Random

import numpy as np
import pytest

from datamodules.clip import Clip
from datamodules.schema import Event, Query, Turn
from datamodules.turns import TurnWriter
from localizers import TextSeconds
from localizers.answer import Answer
from localizers.text_seconds import segment, snapped
from metrics.benchmarks.formats.windows import window
from preparation.features.sampling import Sampling

pytestmark = pytest.mark.golden
UNITIME = {"frame_wording": "timestamp: {:.1f} seconds; feature: ", "lead": "", "snap": True,
           "wording": "from {start} seconds to {end} seconds", "around_group": False}  # fmt: skip
MOLMO2 = {"per-frame-compact": "{:.1f} ", "per-frame": "time {:.2f} ", "numbered-frames": "{number}: ", "none": ""}
"""Its ways of writing a time -> ours."""


@pytest.fixture(scope="module")
def official(golden):
    return json.loads((golden / "paradigms/frame_texts.json").read_text())


def clip(times_s) -> Clip:
    times_s = np.array(times_s, dtype=float)
    return Clip(float(times_s[-1]) + 1000.0, len(times_s), 1.0, times_s)


def told(localizer: TextSeconds, times_s, pads: int) -> str:
    """A video as people read it, each group of frames as so many pads."""
    texts = localizer.frame_texts(clip(times_s))
    groups = [texts.before[k] + f"<|video_pad|>*{pads}" for k in range(0, len(times_s), localizer.group)]
    assert not any(text for k, text in enumerate(texts.before) if k % localizer.group)
    return "".join(groups) + texts.behind


def test_frame_texts_of_qwen3_vl(official):
    for case in official["qwen3_vl"]["groups"]:
        times_s = np.array(case["frame_indices"]) / (case["fps"] or 24.0)
        pads = case["grid_thw"][1] * case["grid_thw"][2] // 4
        localizer = TextSeconds()
        assert localizer.group_times_s(clip(times_s)) == pytest.approx(case["seconds_of_groups"], rel=1e-12)
        for outer, version in ((False, "4_57_1"), (True, "5_23_0")):
            expected = case[f"text_transformers_{version}"]
            video = told(TextSeconds(around_video=outer), times_s, pads)
            before, _, behind = case["prompt"].partition("<|vision_start|><|video_pad|><|vision_end|>")
            assert before + video + behind == expected, (case["id"], version)
        markers = [text.split("<|vision_end|>")[-1].removesuffix("<|vision_start|>")
                   for text in localizer.frame_texts(clip(times_s)).before if text]  # fmt: skip
        assert markers == case["markers"]


def test_frame_texts_where_the_prompt_has_no_vision_tokens(official):
    """Of the groups alone; what stands around them is the prompt's."""
    for case in official["qwen3_vl"]["other_prompts"]:
        before, pad, behind = case["prompt"].partition("<|video_pad|>")
        (frames, height, width), *others = case["grids"]
        if others or not pad:
            continue
        for version in ("4_57_1", "5_23_0"):
            text = case[f"text_transformers_{version}"]
            seconds = [float(time) for time in re.findall(r"<([\d.]+) seconds>", text)]
            localizer = TextSeconds(group=1)  # its groups, whose times the text has
            assert len(seconds) == frames
            assert before + told(localizer, seconds, height * width // 4) + behind == text, case["id"]


SAMPLING = {"fps": "{} fps", "nframes": "uniform {}", "num_frames": "uniform {}", "max_frames": "max {}"}
"""A setting of how frames are chosen -> ours."""


@pytest.mark.parametrize(
    ("rule", "block"),
    [("qwen_vl_utils", "qwen_vl_utils_frames"), ("transformers", "transformers_5_23_0_sample_frames")],
)
def test_frame_texts_are_of_the_frames_that_qwen_chooses(official, rule, block):
    for case in official["qwen3_vl"][block]:
        settings, rate, out = dict(case["settings"]), case["fps"] or 24.0, case.get("out", case)
        ends_s = settings.pop("video_start", None), settings.pop("video_end", None)
        if not settings.keys() & {"fps", "nframes", "num_frames"}:
            settings = {"fps": 2.0} | settings
        words = [SAMPLING[key].format(settings[key]) for key in SAMPLING if key in settings]
        sampling = Sampling.parse(" ".join([rule, *words]))
        assert Sampling.parse(str(sampling)) == sampling
        if "raises" in out:
            with pytest.raises(ValueError, match="clip"):
                sampling.indices(case["frames_in_video"], rate, *ends_s)
            continue
        found = sampling.indices(case["frames_in_video"], rate, *ends_s)
        assert found.tolist() == out["indices"], case
        if "seconds_of_groups" in out:
            times_s = TextSeconds().group_times_s(clip(found / rate))
            assert times_s == pytest.approx(out["seconds_of_groups"], rel=1e-12)


def test_frame_texts_of_timelens(official):
    facts = official["timelens"]
    query = Query("q", "v", "grounding", facts["question"]["query"], (Event(1.0, 2.0),))
    (turn,) = TurnWriter("timelens").turns(query, Random(0))
    assert turn.question == facts["question"]["text"]
    assert TurnWriter("timelens").question(query).question == facts["question"]["text"]
    for case in facts["answers"]:
        spans = case["span"] if isinstance(case["span"][0], list) else [case["span"]]
        turn = Turn("?", task="grounding", events=tuple(Event(*map(float, span)) for span in spans))
        axis = Clip(1000.0, 10, 1.0)
        answer = TextSeconds().render(turn, axis, Random(0)).answer
        assert answer == case["text"]
        found = TextSeconds().decode(query, Answer(answer), axis).spans
        assert [list(span[:2]) for span in found] == [[round(end, 1) for end in span] for span in spans]
    for case in facts["spans_refused"]:
        assert "raises" in case["out"]
        with pytest.raises(ValueError, match="span|window|times|numbers"):
            window(case["span"], "a query")


def test_frame_texts_of_unitime(official):
    for case in official["unitime"]["prompts"]:
        group, times_s, out = 1 if case["from_features"] else 2, case["frame_seconds"], case["out"]
        localizer = TextSeconds(group=group, **UNITIME)
        texts = [text for text in localizer.frame_texts(clip(times_s)).before if text]
        if "defect" in case["id"]:  # the last frame of an odd number is lost; here it has its own time
            assert texts[:-1] == out["before_frames"]
            continue
        assert texts == out["before_frames"], case["id"]
        if case["mode"] != "mr":
            localizer = replace(localizer, answers="segments")
        assert [round(time_s, 1) for time_s in localizer.group_times_s(clip(times_s))] == out["seconds"], case["id"]
        query = Query("q", "v", "grounding", "x", (Event(1.0, 2.0),))
        for windows, answer, read in zip(case["windows"], out["answers"], out["answers_read_back"], strict=True):
            said = localizer.listing([localizer.span(*window, clip(times_s)) for window in windows])
            assert said == answer, case["id"]
            if case["mode"] == "mr":  # of segments theirs is the first two of the times that are listed
                found = localizer.decode(query, Answer(said), clip(times_s)).spans
                assert [list(span[:2]) for span in found] == read, case["id"]
        if case["frames_per_feature"] is None:
            localizer = replace(localizer, around_group=True)
            pads = int(re.search(r"<\|video_pad\|>\*(\d+)", out["prompt"])[1])
            assert told(localizer, times_s, pads) == out["prompt"].partition("\n")[2].removesuffix("Query"), case["id"]
    for case in official["unitime"]["snapping"]:
        assert [segment(time_s, case["times"]) for time_s in case["window"]] == case["segments"]
        assert list(snapped(*case["window"], case["times"])) == case["fine"][1:3]
    for case in official["unitime"]["reading"]:
        if re.search(r"\bto\b", case["text"]) or case["text"] == "none":
            query = Query("q", "v", "grounding", "x")
            found = TextSeconds(**UNITIME).decode(query, Answer(case["text"]), Clip(1000.0, 10, 1.0)).spans
            expected = [window for window in case["windows"] if window != [-1, -1]]
            assert [list(span[:2]) for span in found] == expected


def test_frame_texts_of_molmo2(official):
    for case in official["molmo2"]:
        if case["time_mode"] not in MOLMO2:
            assert "raises" in case["out"]
            continue
        expected = case["out"]["before_frames"]  # also of videos with subtitles, which stand elsewhere
        if not MOLMO2[case["time_mode"]]:
            assert TextSeconds(frame_wording="").frame_texts(clip(case["seconds"])) is None and not any(expected)
            continue
        lead = " " if expected[0].startswith(" ") else ""
        localizer = TextSeconds(frame_wording=lead + MOLMO2[case["time_mode"]], group=1, around_group=False)
        if not lead:  # from the second on
            localizer = TextSeconds(frame_wording=MOLMO2[case["time_mode"]], group=1, around_group=False, between=" ")
        assert list(localizer.frame_texts(clip(case["seconds"])).before) == expected


def test_segments_are_listed_and_read_up_to_the_next_one():
    axis = clip(np.arange(0.0, 80.0, 8.0))
    localizer = TextSeconds(answers="segments", group=1, around_group=False)
    turn = Turn("?", task="grounding", events=(Event(9.0, 17.0), Event(40.3, 41.0)))
    answer = localizer.render(turn, axis, Random(0)).answer
    assert answer == "8.0 seconds, 16.0 seconds, 40.0 seconds."
    found = localizer.decode(Query("q", "v", "grounding", "x"), Answer(answer), axis)
    assert [span[:2] for span in found.spans] == [(8.0, 24.0), (40.0, 48.0)]


def test_sets_of_spans_are_lists_that_are_read_back():
    turn = Turn("?", task="grounding", events=(Event(3.2, 7.9), Event(12.04, 15.0)))
    answer = TextSeconds(answers="json").render(turn, Clip(20.0, 20, 1.0), Random(0)).answer
    assert json.loads(answer) == [[3.2, 7.9], [12.0, 15.0]]
    found = TextSeconds(answers="json").decode(Query("q", "v", "grounding", "x"), Answer(answer), Clip(20.0, 20, 1.0))
    assert [span[:2] for span in found.spans] == [(3.2, 7.9), (12.0, 15.0)]


@pytest.mark.parametrize(
    ("text", "spans"),
    [
        ("The event happens in 9.0 - 3.0 seconds.", [(3.0, 9.0)]),
        ("The event happens in 3.0 - 99.0 seconds.", [(3.0, 20.0)]),
        ("The event happens in 4.0 - 4.0 seconds.", [(4.0, 4.0)]),
        ("From 00:03 to 00:09.", [(3.0, 9.0)]),
        ("It happens from 3s to 9s.", [(3.0, 9.0)]),
    ],
)
def test_reversed_late_empty_and_other_words(text, spans):
    found = TextSeconds().decode(Query("q", "v", "grounding", "x"), Answer(text), Clip(20.0, 20, 1.0))
    assert [span[:2] for span in found.spans] == spans
