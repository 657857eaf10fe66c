"""Digit tokens equal the released code of VTG-LLM: numbers, answers, the sentence about frames, and the digit loss."""

import json
import re
from random import Random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from datamodules.clip import Clip
from datamodules.rendered import Unsayable
from datamodules.schema import Event, Query, Turn
from localizers import DigitTokens
from localizers.answer import Answer
from localizers.digit_tokens import digit_loss
from models.time_table import filled, second

pytestmark = pytest.mark.golden
LATER = 1000.0
"""Length of a video in which no time of the answers is beyond the end."""


@pytest.fixture(scope="module")
def official(golden):
    return json.loads((golden / "paradigms/time_tokens.json").read_text())["vtg_llm"]


@pytest.fixture(scope="module")
def tensors(golden):
    return load_file(golden / "paradigms/time_tokens.safetensors")


def read(text: str, task: str):
    query = Query("q", "v", task, "x", (Event(0, 1, "x"),))
    return DigitTokens().decode(query, Answer(text), Clip(LATER, 10, 1.0))


def test_time_tokens_and_digit_tokens_of_numbers(official):
    for case in official["number_to_tokens"]:
        assert DigitTokens(legacy=True).digits(case["number"]) == case["out"], case
        whole, dot, rest = str(case["number"]).partition(".")
        if dot and len(rest) == 1 and len(whole) <= 4:  # nothing to round, and no defect
            assert DigitTokens().digits(case["number"]) == case["out"], case


def test_time_tokens_and_digit_tokens_of_frames(official):
    for case in official["prompt_times"]:
        times_s = np.array([float(time) for time in re.findall(r"\d+\.\d+", case["text"])])
        told = DigitTokens().frame_texts(Clip(LATER, len(times_s), 1.0, times_s))
        assert told.before[0] == case["out"]
        assert not any(told.before[1:])
    characters = {token: character for character, token in zip("0123456789.", DigitTokens.special_tokens, strict=True)}
    for case in official["frame_sentence"]:
        times_s = np.array(case["indices"]) / case["fps"]
        told = DigitTokens().frame_texts(Clip(LATER, len(times_s), 1.0, times_s)).before[0]
        plain = re.sub("|".join(characters), lambda match: characters[match[0]], told)
        assert re.sub(r"\d+\.\d", lambda match: f"{float(match[0])}", plain) == case["text"]


def test_time_tokens_and_digit_tokens_read_moments(official):
    for case in official["grounding"]:
        if "defect" in case["id"]:
            continue
        spans = [list(span[:2]) for span in read(case["text"], "grounding").spans]
        assert spans[: len(case["spans"])] == case["spans"], case["id"]
        assert bool(spans) == bool(case["spans"])


def test_time_tokens_and_digit_tokens_read_captions(official):
    for case in official["captions"]:
        if "defect" in case["id"]:
            continue
        found, (windows, texts) = read(case["text"], "dense_captioning"), case["out"]
        assert [list(span[:2]) for span in found.spans] == windows, case["id"]
        assert [caption.lower().strip(".") for caption in found.captions] == [text.strip(".") for text in texts]


def test_time_tokens_and_digit_tokens_read_highlights(official):
    """Two seconds a clip. Theirs does not read its own format's sentence; ours reads that too."""
    for case in official["highlights"]:
        moments, clips = case["out"]
        ratings = tuple((0.0,) for _ in clips)
        query = Query("q", "v", "highlights", "x", saliency=ratings, clip_s=2.0)
        found = DigitTokens().decode(query, Answer(case["text"]), Clip(float(case["duration"]), 10, 1.0))
        assert len(found.saliency) == len(clips) or not moments
        if moments:
            assert list(found.saliency) == pytest.approx(clips), case["id"]
            best = max(moments, key=lambda moment: moment["saliency_score"])
            start_s, end_s, score = found.spans[0]
            assert start_s <= best["timestamp"] <= end_s
            assert score == best["saliency_score"]


@pytest.mark.parametrize(
    ("said", "scores"),
    [
        ("There are 2 highlight moments in the {}, {} second. Their saliency scores are 3.5, 2.0.", (3.5, 2.0)),
        ("{} seconds\nscore: 3.5\n{} seconds\nscore: 2.0", (3.5, 2.0)),
        ("{} seconds\nscore: 3.5\n{} seconds", (3.5, 0.0)),
        ("The best moments are at {} and {} seconds.", (1.0, 1.0)),
    ],
)
def test_highlights_with_and_without_scores(said, scores):
    query = Query("q", "v", "highlights", "x", saliency=tuple((0.0,) for _ in range(10)), clip_s=2.0)
    text = said.format(DigitTokens().digits(3.0), DigitTokens().digits(99.0))
    found = DigitTokens().decode(query, Answer(text), Clip(20.0, 20, 1.0))
    assert found.saliency == (0, scores[0], *[0] * 7, scores[1])  # the end, for a time behind it
    assert found.spans[0] == (2.0, 4.0, scores[0])
    assert found.rule == "digit tokens"


def test_time_tokens_and_digit_loss(official, tensors):
    """The sum of the cross-entropy and the digit term, and its gradient."""
    logits, labels = tensors["vtg.loss_logits"].clone().requires_grad_(), tensors["vtg.loss_targets"]
    digits = official["digit_loss"]["digit_ids"]
    loss = F.cross_entropy(logits, labels) + 0.1 * digit_loss(logits, labels, torch.tensor(digits))
    assert loss.item() == pytest.approx(official["digit_loss"]["value"], abs=1e-5)
    loss.backward()
    torch.testing.assert_close(logits.grad, tensors["vtg.loss_grad"], rtol=1e-5, atol=1e-6)
    names = dict(zip(DigitTokens.special_tokens, digits, strict=False))
    (term,) = DigitTokens(digit_weight=0.1).word_loss(logits, labels, names).values()
    assert term.item() == pytest.approx(0.1 * digit_loss(logits, labels, torch.tensor(digits)).item())
    assert DigitTokens().word_loss(logits, labels, names) == {}
    none = torch.zeros_like(labels).fill_(official["digit_loss"]["dot_id"])  # a dot is no digit: nothing is added
    without = digit_loss(logits, none, torch.tensor(digits))
    without.backward()
    assert without.item() == 0


def test_time_tokens_and_digit_table_of_times(official, tensors):
    for case in official["frame_time_index"]:
        assert second(torch.tensor([float(case["text"])])).item() == case["index"]
    table, untrained = tensors["vtg.time_table"], official["time_table"]["untrained_rows"]
    assert (table.abs().sum(-1) == 0).nonzero().flatten().tolist() == untrained
    torch.testing.assert_close(filled(table, legacy=True), tensors["vtg.time_table_filled"], rtol=1e-5, atol=1e-6)
    sound = filled(table)
    for row in untrained:  # between the neighbours that learned, and nearer to the nearer one
        before, behind = (max([r for r in range(row) if r not in untrained], default=None),
                          min([r for r in range(row, len(table)) if r not in untrained], default=None))  # fmt: skip
        if before is not None and behind is not None:
            share = (row - before) / (behind - before)
            torch.testing.assert_close(sound[row], table[before] * (1 - share) + table[behind] * share)


def test_times_that_four_digits_do_not_hold(official):
    localizer, axis = DigitTokens(), Clip(20000.0, 10, 1.0)
    with pytest.warns(UserWarning, match="before the start"):
        assert localizer.digits(-3.0) == localizer.digits(0.0)
    with pytest.raises(Unsayable, match=r"9999\.9 s"):
        localizer.render(Turn("?", task="grounding", events=(Event(1.0, 12345.6),)), axis, Random(0))
    beside = (
        f"{localizer.digits(3.2)} {localizer.digits(7.9)}"  # as tokenizers write tokens, and without a word between
    )
    assert read(beside.replace("><", "> <"), "grounding").spans[0][:2] == (3.2, 7.9)
    assert localizer.digits(59.96) == localizer.digits("60.0")
    assert read("<TIME_NINE> - <TIME_ONE> seconds", "grounding").spans[0][:2] == (1.0, 9.0)
