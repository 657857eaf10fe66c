"""Time distributions equal DisTime's released code: logits, spans, losses, gradients, and what a token is read as."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from datamodules.chat import IGNORE
from datamodules.clip import Clip
from datamodules.schema import Query
from localizers import TimeDistribution
from localizers.answer import Answer
from localizers.time_distribution import SPAN
from models.feedback import Feedback
from models.time_distribution_head import bells, distance_iou, expected, focal

pytestmark = pytest.mark.golden
CLOSE = {"rtol": 1e-5, "atol": 1e-6}


def same_gradient(own: torch.Tensor, theirs: torch.Tensor) -> None:
    """To 1e-5 of the largest entry, and to the rounding of terms that cancel."""
    torch.testing.assert_close(own, theirs, rtol=0, atol=1e-5 * theirs.abs().max().item() + 1e-7)


@pytest.fixture(scope="module")
def official(golden):
    set_ = json.loads((golden / "paradigms/time_distribution.json").read_text())
    return SimpleNamespace(**set_, tensors=load_file(golden / "paradigms/time_distribution.safetensors"))


def prepared(official, name: str):
    """A case, its localizer with the released weights, and a batch of one dialogue with what its tokens stand for."""
    case, tensors = official.cases[name], official.tensors
    localizer = TimeDistribution(bins=case["reg_max"], sigma=case["sigma"], legacy=True)
    head = localizer.head(case["hidden"])
    head.load_state_dict({key: tensors[f"{name}.weights.{key}"] for key in head.state_dict()})
    ids, axis = tensors[f"{name}.input_ids"], Clip(case["duration"], 4, 1.0)
    moments = torch.full((*ids.shape, 2), torch.nan)
    said = [moment for span in case["spans"] for moment in localizer.moments(*span, axis)]
    moments[ids == case["time_token"]] = torch.tensor(said)
    seen = torch.tensor(case["frame_seconds"])[:, None].expand(-1, 2) / case["duration"]
    moments[ids == case["frame_token"]] = seen
    labels = torch.where(ids == case["time_token"], ids, IGNORE)
    return case, localizer, head, SimpleNamespace(labels=labels, moments=moments, ids=ids)


def test_time_distribution_losses_and_every_gradient(official):
    for name in official.cases:
        case, localizer, head, batch = prepared(official, name)
        hidden = official.tensors[f"{name}.hidden"].clone().requires_grad_()
        terms = localizer.loss(head, {"after_norm": hidden}, batch, {SPAN: case["time_token"]})
        assert terms["focal"].item() == pytest.approx(case["loss_dfl"], rel=1e-5, abs=1e-6), name
        assert terms["iou"].item() == pytest.approx(case["loss_diou"], rel=1e-5, abs=1e-6), name
        sum(terms.values()).backward()
        same_gradient(hidden.grad, official.tensors[f"{name}.hidden.grad"])
        for key, parameter in head.time_gen.named_parameters():
            same_gradient(parameter.grad, official.tensors[f"{name}.grad.time_gen.{key}"])


def test_time_distribution_spans(official):
    for name, case in official.cases.items():
        _, localizer, head, batch = prepared(official, name)
        states = official.tensors[f"{name}.hidden"][0, (batch.ids[0] == case["time_token"]).nonzero()[:, 0] - 1]
        logits = head(states)
        torch.testing.assert_close(logits.flatten(0, 1), official.tensors[f"{name}.logits"], **CLOSE)
        seconds = expected(logits) / localizer.bins * case["duration"]
        torch.testing.assert_close(seconds, official.tensors[f"{name}.seconds"], **CLOSE)
        answer = Answer(SPAN * len(states), (SPAN,) * len(states), predicting={"after_norm": states})
        found = localizer.decode(Query("q", "v", "grounding", "x"), answer, Clip(case["duration"], 4, 1.0), head)
        for span, theirs in zip(found.spans, case["generated_seconds"], strict=True):
            assert span[:2] == pytest.approx(sorted(theirs), abs=0.006)
            assert 0 < span[2] < 1


def test_time_distribution_is_read_back(official):
    for name, case in official.cases.items():
        _, localizer, head, batch = prepared(official, name)
        feedback = Feedback(localizer, (case["time_token"], case["frame_token"]))
        inputs = official.tensors[f"{name}.input_embeds"]
        read = feedback(head, inputs, batch.moments, torch.zeros(1, 1, inputs.shape[-1]))
        torch.testing.assert_close(read, official.tensors[f"{name}.input_embeds_out"], **CLOSE)
        rough = official.tensors[f"{name}.input_embeds_out.bf16"].float()
        torch.testing.assert_close(read, rough, rtol=1e-2, atol=1e-2)
        states = official.tensors[f"{name}.hidden"][0, (batch.ids[0] == case["time_token"]).nonzero()[:, 0] - 1]
        said = localizer.just_written(head, {"after_norm": states}, {}, None)
        torch.testing.assert_close(said * localizer.bins, official.tensors[f"{name}.generated_bins"], **CLOSE)
        torch.testing.assert_close(head.encode(said), official.tensors[f"{name}.generated_vectors"], **CLOSE)
        for what, kind in (("spans", "time_token"), ("frames", "frame_token")):
            moments = batch.moments[batch.ids == case[kind]] * localizer.bins
            found = bells(moments, localizer.bins, localizer.sigma).flatten(1)
            torch.testing.assert_close(found, official.tensors[f"{name}.gaussian_{what}"], **CLOSE)


def number(value) -> float:
    return float(value)


def test_time_distribution_iou_losses(official):
    for case in official.tables["diou"]:
        pair = [torch.tensor([[number(end) for end in case[key]]]) for key in ("pred", "target")]
        if not isinstance(case["diou_loss"], dict):
            assert distance_iou(*pair, legacy=True).item() == pytest.approx(case["diou_loss"], rel=1e-5, abs=1e-6), case
        ours = distance_iou(*pair).item()
        assert ours != ours or 0 <= ours <= 2  # bounded, and what is no number stays none
        if case["pred"] == case["target"]:
            assert ours == 0


def test_time_distribution_focal_losses(official):
    table = official.tables["dfl"]
    logits = official.tensors[table["logits"]][0]
    for row in table["rows"]:
        label = torch.tensor(row["label"])
        found = focal(logits, label).item()
        if isinstance(row["sum"], dict):  # at the end of the video and behind it: a defect; here the last bin is right
            ends = focal(logits, label.clamp(max=table["reg_max"])).item()
            assert ends == pytest.approx(-logits.log_softmax(-1)[-1].item(), rel=1e-5)
        else:
            assert found == pytest.approx(row["sum"], rel=1e-5)
            assert found / table["reg_max"] == pytest.approx(row["over_reg_max"], rel=1e-5)


def test_time_distribution_means_and_bells(official):
    for case in official.tables["decode"]:
        bins = expected(official.tensors[case["logits"]])
        torch.testing.assert_close(bins[None], torch.tensor(case["bins"]), **CLOSE)
        seconds = bins / (official.tensors[case["logits"]].shape[-1] - 1) * case["duration"]
        assert seconds.flatten().tolist() == pytest.approx(np.ravel(case["seconds"]).tolist(), abs=0.006)  # hundredths
    table = official.tables["gaussian"]
    for row in table["rows"]:
        found = bells(torch.tensor([number(peak) for peak in table["peaks"]]), table["length"] - 1, row["sigma"])
        torch.testing.assert_close(found, official.tensors[row["tensor"]], **CLOSE)
    assert bells(torch.tensor([1e4]), 16, 0.1).isfinite().all()


class Logits(nn.Module):
    """Its scores are the states."""

    def forward(self, states):
        return states


@pytest.mark.parametrize(("start", "end", "span"), [(8, 4, (10.0, 20.0)), (4, 4, (10.0, 10.0)), (0, 16, (0.0, 40.0))])
def test_reversed_empty_and_whole_spans_and_confidence(start, end, span):
    localizer = TimeDistribution(bins=16, none_below=0.5)
    sharp = torch.full((1, 2, 17), -30.0)
    sharp[0, 0, start], sharp[0, 1, end] = 30.0, 30.0
    query, axis = Query("q", "v", "grounding", "x"), Clip(40.0, 40, 1.0)

    def asked(logits):
        answer = Answer(f"During {SPAN}.", ("During", SPAN, "."), predicting={"after_norm": logits.expand(3, -1, -1)})
        return localizer.decode(query, answer, axis, Logits())

    found = asked(sharp)
    assert found.spans == ((pytest.approx(span[0]), pytest.approx(span[1]), pytest.approx(1.0)),)
    assert found.answer == f"During {span[0]} - {span[1]} s."
    flat = asked(torch.zeros(1, 2, 17))
    assert (flat.rule, flat.spans) == ("none", ())
