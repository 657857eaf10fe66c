"""Time tokens equal the released code of Grounded-VideoLLM, Vid2Seq and OmniVid."""

import json
import re
from dataclasses import replace
from random import Random
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from datamodules.clip import Clip
from datamodules.markup import Text, any_of, literal
from datamodules.rendered import Unsayable
from datamodules.schema import Event, Query, Turn
from localizers import TimeTokens
from localizers.answer import Answer
from metrics.spans import iou
from models.vocabulary import add_tokens, rescaled

pytestmark = pytest.mark.golden
SECONDS = re.compile(r"<(-?\d+(?:\.\d+)?)>")
"""Pattern of a time in the data of Grounded-VideoLLM."""
OURS = {"vid2seq": {"name": "<time={}>", "wording": "{start} {end}", "event_wording": "{span} {caption}"},
        "omnivid": {"name": "<time_bin_{}>", "wording": "{start}{end}",
                    "event_wording": "<event>{span}{caption}</event>"}}  # fmt: skip


@pytest.fixture(scope="module")
def official(golden):
    return json.loads((golden / "paradigms/time_tokens.json").read_text())


@pytest.fixture(scope="module")
def tensors(golden):
    return load_file(golden / "paradigms/time_tokens.safetensors")


def tokens(style: str, count: int, **settings) -> TimeTokens:
    """As the released code of a style writes and reads."""
    return TimeTokens(count=count, mark_questions=False, legacy=style, **OURS.get(style, {}), **settings)


def clip(duration_s: float) -> Clip:
    return Clip(duration_s, 10, 1.0)


def grounded(text: str, localizer: TimeTokens, duration_s: float) -> str:
    """A text of Grounded-VideoLLM with its times written."""
    return SECONDS.sub(lambda match: localizer.token(float(match[1]), clip(duration_s)), text)


def test_time_tokens_grounded_videollm_writes(official):
    for case in official["grounded_videollm"]["encode"]:
        localizer = tokens("grounded_videollm", case["num_temporal_tokens"] + 1)
        if isinstance(case["out"], dict):
            with pytest.raises(ValueError, match="no steps to name"):
                grounded(case["text"], localizer, case["duration"])
            continue
        assert grounded(case["text"], localizer, case["duration"]) == case["out"], case["id"]
    for case in official["grounded_videollm"]["referring"]:
        localizer, times = TimeTokens(mark_questions=False, legacy="grounded_videollm"), {}
        said = re.findall(r"([\d.]+) seconds", case["text"])
        if any("." in time or float(time) > case["duration"] for time in said):
            continue  # (defect) a decimal is torn apart; times behind the end get no token

        def marker(match: re.Match, times: dict = times) -> str:
            times[f"<s{len(times)}>"] = float(match[1])
            return list(times)[-1]

        question = re.sub(r"(\d+) seconds", marker, case["text"])
        rendered = localizer.render(Turn(question, times=times), clip(case["duration"]), Random(0))
        assert rendered.question == case["out"]


def test_time_tokens_grounded_videollm_reads(official):
    for case in official["grounded_videollm"]["decode"]:
        localizer = tokens("grounded_videollm", case["num_temporal_tokens"] + 1)
        read = [f"{localizer.seconds(number, case['duration']):.2f}" for number in case["indices"]]
        assert [int(number) for number in re.findall(r"<(\d+)>", case["text"])] == case["indices"]
        if "defect" not in case["id"]:
            assert re.findall(r"(\d+\.\d+) seconds", case["out"]) == read, case["id"]
    for case in official["grounded_videollm"]["round_trip"]:
        localizer = TimeTokens(legacy="grounded_videollm")
        numbers = [localizer.number(time_s, case["duration"]) for time_s in case["seconds"]]
        assert numbers == case["index"]
        read = [localizer.seconds(number, case["duration"]) for number in numbers]
        assert read == pytest.approx(case["decoded"], rel=1e-12)


def test_time_tokens_grounded_videollm_marks_questions(official):
    for case in official["grounded_videollm"]["mark_questions"]:
        said = [turn["value"] for turn in case["conversation"]]
        for number, (question, answer) in enumerate(zip(said[::2], said[1::2], strict=True)):
            times = {f"<s{k}>": float(time) for k, time in enumerate(SECONDS.findall(answer))}
            for marker, time in zip(times, SECONDS.findall(answer), strict=True):
                answer = answer.replace(f"<{time}>", marker, 1)
            asked = question.replace("<image>", "<video>")
            rendered = TimeTokens().render(Turn(asked, answer, times=times), clip(100.0), Random(0))
            assert rendered.question.replace("<video>", "<image>") == case["out"][2 * number]["value"], case["id"]


def test_time_tokens_grounded_videollm_new_rows_are_means(official, tensors):
    for side in ("input", "output"):
        old = tensors[f"grounded.{side}_old"]
        llm, tokenizer = stand_in(old)
        add_tokens(llm, tokenizer, ["<0>"], TimeTokens().token_init)
        torch.testing.assert_close(llm.matrix.weight[-1], tensors[f"grounded.{side}_new_row"], rtol=1e-5, atol=1e-6)


def stand_in(old: torch.Tensor):
    """Of a language model, one matrix, and of a tokenizer, one more token than it has rows."""
    matrix = torch.nn.Embedding.from_pretrained(torch.cat([old, torch.zeros(1, old.shape[1])]))
    llm = SimpleNamespace(matrix=matrix, get_input_embeddings=lambda: matrix, get_output_embeddings=lambda: matrix)
    return llm, type("T", (), {"__len__": lambda _: len(matrix.weight),
                               "convert_tokens_to_ids": lambda _, names: [len(old)]})()  # fmt: skip


def test_time_tokens_vid2seq_writes(official):
    for case in official["vid2seq"]["encode"]:
        localizer = tokens("vid2seq", case["num_bins"])
        if isinstance(case["token_id"], dict):
            with pytest.raises((ValueError, TypeError)):
                localizer.number(case["seconds"], case["duration"])
            continue
        number = localizer.number(case["seconds"], case["duration"])
        assert number + case["num_text_tokens"] == case["token_id"], case["id"]


def test_time_tokens_vid2seq_reads(official):
    for case in official["vid2seq"]["decode"]:
        localizer = tokens("vid2seq", case["num_bins"])
        query = Query("q", "v", "dense_captioning", events=(Event(0, 1, "x"),))
        found = localizer.decode(query, Answer(case["text"]), clip(case["duration"]))
        assert list(found.captions) == [event["sentence"] for event in case["out"]], case["id"]
        for (start, end, _), event in zip(found.spans, case["out"], strict=True):
            assert [start, end] == pytest.approx(event["timestamp"], rel=1e-12)


def test_time_tokens_vid2seq_rescales(official, tensors):
    count = official["vid2seq"]["rescale"]["time_rows_are_last"]
    for side in ("input", "output"):
        before, after = tensors[f"vid2seq.{side}_before"], tensors[f"vid2seq.{side}_after"]
        rows = rescaled(before[-count:], before[:-count])
        torch.testing.assert_close(rows, after[-count:], rtol=1e-5, atol=1e-6)
        assert torch.equal(before[:-count], after[:-count])


def test_time_tokens_omnivid_writes(official):
    for case in official["omnivid"]["encode"]:
        localizer = tokens("omnivid", case["num_bins"])
        if isinstance(case["out"], dict):
            with pytest.raises(ValueError, match="no steps to name"):
                localizer.span(*case["span"], clip(case["duration"]))
            continue
        assert localizer.span(*case["span"], clip(case["duration"])) == case["out"], case["id"]
    for case in official["omnivid"]["points"]:
        if case["seconds"] is not None:
            localizer = TimeTokens(count=300, legacy="omnivid", **OURS["omnivid"])
            assert localizer.token(case["seconds"], clip(case["duration"])) == case["token"]
            number = int(re.search(r"\d+", case["token"])[0])
            assert round(localizer.seconds(number, case["duration"]), 2) == pytest.approx(case["back"])


def test_time_tokens_omnivid_reads(official):
    for case in official["omnivid"]["decode"]:
        if case["duration"] is None:
            continue  # a clip has a length
        order = {"start_end_cat": "start_end", "center_duration_cat": "centre_length"}[case["time_triplet"]]
        localizer = tokens("omnivid", case["num_bins"], order=order)
        numbers = [int(re.search(r"\d+", token)[0]) for token in case["tokens"]]
        assert list(localizer.read_span(*numbers, case["duration"])) == pytest.approx(case["out"], abs=1e-9), case["id"]


def test_time_tokens_omnivid_events(official):
    """With and without counters; points are events of which only the start is told."""
    for case in official["omnivid"]["target"]:
        settings, axis = case["settings"], clip(case["duration"])
        if settings["num_iou_bins"] or settings["timepoint_type"] != "start":
            continue  # tokens for how well a proposal of another model fits; points that are not the start
        kept = [at for at, (start_s, end_s) in enumerate(case["timestamps"]) if settings["points"] or start_s != end_s]
        if settings["use_event_counter"] and len(kept) < len(case["timestamps"]):
            continue  # (defect) it counts events that it leaves out
        localizer = omnivid(settings, counters=100 * settings["use_event_counter"])
        spans = [localizer.span(*case["timestamps"][at], axis) for at in kept]
        assert spans == case["out"][1], case["id"]
        said = [case["sentences"][at] for at in kept]
        told = localizer.description(spans, said)
        assert bare(told) == bare(case["out"][0]), case["id"]
        query = Query("q", "v", "dense_captioning", events=(Event(0, 1, "x"),))
        assert [*map(bare, localizer.decode(query, Answer(told), axis).captions)] == [*map(bare, said)]


def bare(text: str) -> str:
    """In small letters, without full stops and the blanks around tokens: ours are written as sentences."""
    return re.sub(r"\.(?=<)|\.$", "", re.sub(r"\s*(<[^>]*>)\s*", r"\1", text.strip().lower()))


def omnivid(settings: dict, **more) -> TimeTokens:
    """As a case of OmniVid says."""
    order = {"start_end_cat": "start_end", "center_duration_cat": "centre_length"}[settings["time_triplet"]]
    localizer = tokens("omnivid", settings["num_bins"], order=order, **more)
    return replace(localizer, wording="{start}") if settings.get("points") else localizer


def test_time_tokens_omnivid_restores(official):
    """Captions, moments and points of a list of tokens. Where nothing can be read, theirs is the whole video."""
    for case in official["omnivid"]["restore"]:
        what = case["function"].rpartition("_")[2]
        if case["settings"]["time_triplet"] != "start_end_cat" and "Charades" in case["extra"]:
            continue  # (defect) seconds are taken for bins once more
        localizer = omnivid(case["settings"] | {"points": what == "gebd"})
        read = [token for token in case["tokens"] if token not in ("<s>", "</s>", "<pad>")]
        query = Query("q", "v", "grounding" if what == "mr" else "dense_captioning", "x", (Event(0, 1, "x"),))
        found = localizer.decode(query, Answer(" ".join(read)), clip(case["duration"]))
        expected = case["out"] if what == "mr" else case["out"][1]
        spans = [start if what == "gebd" else [start, end] for start, end, _ in found.spans]
        late = is_time(case["tokens"][-3 if what == "mr" else -4 :])  # (defect) such a pair is missed
        if expected in ([], [[0, case["duration"]]]) and (not spans or late):
            assert spans or found.rule is None, case["id"]
            continue
        assert len(spans) == len(expected) or late or "Charades" in case["extra"], case["id"]
        assert spans[: len(expected)] == [pytest.approx(each) for each in expected], case["id"]
        if what != "mr":
            assert [*found.captions][: len(expected)] == case["out"][0], case["id"]


def is_time(tokens: list[str]) -> bool:
    """Whether any is a time."""
    return any(token.startswith("<time_bin_") for token in tokens)


def test_time_tokens_omnivid_iou_of_spans(official):
    """Of the two spans that four tokens name, in steps; reversed ones, empty ones, and words have none."""
    for case in official["omnivid"]["token_iou"]:
        numbers = [re.fullmatch(r"<time_bin_(\d+)>", token) for token in case["tokens"]]
        first, second = ([int(number[1]) for number in pair if number] for pair in (numbers[:2], numbers[2:]))
        valid = len(first) == len(second) == 2 and first[0] < first[1] and second[0] < second[1]
        assert case["iou"] == pytest.approx(iou(first, second) if valid else 0.0), case


def test_time_tokens_by_default_are_inside_the_video():
    """Negative times, those behind the end, reversed and empty spans: none is lost, and none leaves the video."""
    localizer, axis = TimeTokens(), clip(30.0)
    with pytest.warns(UserWarning, match="before the start"):
        assert localizer.number(-1.0, 30.0) == 0
    assert localizer.number(99.0, 30.0) == 300
    assert localizer.read_span(300, 300, 30.0) == pytest.approx((29.9, 30.0))
    assert localizer.read_span(80, 20, 30.0) == pytest.approx((2.0, 8.0))
    known = any_of(localizer.special_tokens)
    found = localizer.decode(Query("q", "v", "grounding", "x"), Answer(literal("From <5> to <5>.", known)), axis)
    assert found.spans == ((0.5, pytest.approx(0.6), 1.0),)
    none = localizer.decode(Query("q", "v", "grounding", "x"), Answer(Text(localizer.no_moment)), axis)
    assert (none.rule, none.spans) == ("none", ())
    assert localizer.decode(Query("q", "v", "grounding", "x"), Answer("banana"), axis).rule is None


def test_time_tokens_of_starts_last_until_the_next_one():
    """As chapters do; asked for moments they are one step long."""
    localizer, axis = TimeTokens(count=11, wording="at {start}", mark_questions=False), clip(20.0)
    turn = Turn("?", task="dense_captioning", events=(Event(2.0, 9.0, "a dog"), Event(9.0, 20.0, "a cat")))
    answer = localizer.render(turn, axis, Random(0)).answer
    assert answer == "At <1>, a dog. At <4>, a cat."
    found = localizer.decode(Query("q", "v", "dense_captioning", events=turn.events), Answer(answer), axis)
    assert found.spans == ((2.0, 8.0, 1.0), (8.0, 20.0, 1.0))
    asked = Query("q", "v", "grounding", "x")
    ends = localizer.decode(asked, Answer("At <1>, at <10>."), axis).spans
    assert ends == ((2.0, 4.0, 1.0), (18.0, 20.0, 1.0))
    assert localizer.decode(asked, Answer("banana"), axis).rule is None


def test_time_tokens_refuse_what_does_not_go_together():
    with pytest.raises(ValueError, match="needs two tokens"):
        TimeTokens(wording="{start}", order="centre_length")
    with pytest.raises(ValueError, match="needs tags"):
        TimeTokens(counters=5)
    counted = TimeTokens(event_wording="<e>{span}{caption}</e>", counters=2)
    turn = Turn("?", task="dense_captioning", events=tuple(Event(k, k + 1.0, "a dog") for k in range(2)))
    with pytest.raises(Unsayable, match="2 events or more"):
        counted.render(turn, clip(20.0), Random(0))
