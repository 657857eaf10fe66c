"""Frame matching equals E.T. Chat's released code: inputs, scores, soft labels, loss and gradients, and generation."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from datamodules.clip import Clip
from datamodules.schema import Query, Video
from datamodules.splicing import Splicer
from localizers import FrameMatching
from localizers.answer import Answer
from localizers.frame_matching import VID, moment
from models.feedback import Feedback, Writing
from preparation.features.sampling import Sampling

pytestmark = pytest.mark.golden
CLOSE = {"rtol": 1e-5, "atol": 1e-6}


def clip(frames: int) -> Clip:
    """Their times are frame numbers."""
    return Clip(float(frames), frames, 1.0)


def same_gradient(own: torch.Tensor, theirs: torch.Tensor) -> None:
    """To 1e-5 of the largest entry, and to the rounding of terms that cancel."""
    torch.testing.assert_close(own, theirs, rtol=0, atol=1e-5 * theirs.abs().max().item() + 1e-7)


@pytest.fixture(scope="module")
def official(golden):
    """Cases, tensors and a localizer with its head and words, as released."""
    set_ = json.loads((golden / "paradigms/frame_matching.json").read_text())
    tensors, settings = load_file(golden / "paradigms/frame_matching.safetensors"), set_["settings"]
    localizer = FrameMatching(alpha=settings["alpha"])
    head = localizer.head(settings["hidden"])
    head.load_state_dict({key: tensors[f"weights.{key}"] for key in head.state_dict()})
    words = nn.Embedding.from_pretrained(tensors["weights.model.embed_tokens.weight"])
    feedback = Feedback(localizer, (settings["match_id"],))
    return SimpleNamespace(**set_, tensors=tensors, localizer=localizer, head=head, words=words, feedback=feedback)


def spliced(official, name: str, sample: dict, ids: torch.Tensor, frames: torch.Tensor):
    """Ids with the frames between them, where these are, and what each ``<vid>`` stands for."""
    video = Video("v", float(len(frames)), np.arange(len(frames), dtype=float), frames.numpy())
    spliced_ids, of_video, _ = Splicer(0).splice(ids.tolist(), video, "")
    moments = torch.full((len(spliced_ids), 2), torch.nan)
    times = [*(sample["src"] or ()), *(sample.get("tgt") or ())]
    if times:
        moments[(spliced_ids == official.settings["match_id"]) & ~of_video] = torch.tensor(
            [moment(time, clip(len(frames))) for time in times]
        )
    return spliced_ids, of_video, moments


def training_batch(official, name: str):
    """A training case as a batch of this project, with its input vectors and labels."""
    rows, frames = [], []
    for number, sample in enumerate(official.cases[name]["samples"]):
        part = {key: official.tensors[f"{name}.{key}"][number] for key in ("input_ids", "labels", "attention_mask")}
        ids, labels = part["input_ids"][part["attention_mask"]], part["labels"][part["attention_mask"]]
        frames.append(official.tensors[f"{name}.frames.{number}"])
        spliced_ids, of_video, moments = spliced(official, name, sample, ids, frames[-1])
        known = torch.full_like(spliced_ids, official.settings["ignore"])
        known[~of_video] = labels[ids != official.settings["image_id"]]
        rows.append((spliced_ids, known, of_video, moments))
    ids, labels, frame_mask, moments = (
        pad_sequence(list(column), batch_first=True, padding_value=value)
        for column, value in zip(zip(*rows, strict=True), (0, -100, False, torch.nan), strict=True)
    )
    features = pad_sequence(frames, batch_first=True)
    feature_mask = pad_sequence([torch.ones(len(f), dtype=torch.bool) for f in frames], batch_first=True)
    inputs = official.words(ids).masked_scatter(frame_mask[..., None], features[feature_mask])
    inputs = official.feedback(official.head, inputs, moments, features)
    masks = {"frame_mask": frame_mask, "feature_mask": feature_mask}
    return SimpleNamespace(labels=labels, moments=moments, blocks=None, inputs=inputs, **masks)


def test_frame_matching_inputs_losses_and_every_gradient(official):
    """Of every case of training: questions and answers are read with the frames of their times."""
    seen = 0
    for name, case in official.cases.items():
        if "samples" not in case:
            continue
        batch = training_batch(official, name)
        theirs = {key: official.tensors[f"{name}.spliced_{key}"] for key in ("embeds", "labels", "attention")}
        length = batch.labels.shape[1]  # theirs is padded further
        real = theirs["attention"][:, :length]
        assert torch.equal(batch.labels[real], theirs["labels"][theirs["attention"]])
        torch.testing.assert_close(batch.inputs[real], theirs["embeds"][theirs["attention"]], **CLOSE)
        assert [[int(m.nonzero().min()), int(m.nonzero().max()) + 1] for m in batch.frame_mask] == [
            rows[-1] for rows in case["frame_rows"]
        ]
        points = {"before_norm": "before_norm", "before_last_layer": "second_last"}
        given = {point: official.tensors[f"{name}.{key}"][:, :length] for point, key in points.items()}
        states = {point: state.clone().requires_grad_() for point, state in given.items()}
        official.head.zero_grad()
        loss = official.localizer.loss(official.head, states, batch, {VID: official.settings["match_id"]})["matching"]
        assert loss.item() == pytest.approx(case["loss"], abs=1e-5), name
        loss.backward()
        for point, key in points.items():
            theirs, own = official.tensors[f"{name}.{key}.grad"], states[point].grad
            own = torch.zeros_like(states[point]) if own is None else own
            same_gradient(own, theirs[:, :length])
            assert not theirs[:, length:].any()
        for key, parameter in official.head.named_parameters():
            same_gradient(parameter.grad, official.tensors[f"{name}.grad.{key}"])
        seen += 1
    assert seen


def test_frame_matching_scores_and_soft_labels(official):
    for name, case in official.cases.items():
        batch = training_batch(official, name) if "samples" in case else None
        best = []
        for number, sample in enumerate(case.get("samples", ())):
            if f"{name}.scores.{number}" not in official.tensors:
                continue
            first, end = case["frame_rows"][number][-1]
            frames = official.tensors[f"{name}.before_norm"][number, first:end]
            at = (batch.labels[number] == official.settings["match_id"]).nonzero().flatten()
            scores = official.head(official.tensors[f"{name}.second_last"][number, at - 1], frames)
            torch.testing.assert_close(scores, official.tensors[f"{name}.scores.{number}"], **CLOSE)
            labels = official.tensors[f"{name}.soft_labels.{number}"]
            places = torch.tensor([moment(time, clip(end - first))[0] for time in sample["tgt"]])
            own = official.localizer.soft_labels(places, end - first)
            torch.testing.assert_close(own, labels, **CLOSE)
            best.append(scores.argmax(-1).tolist())
        assert best == case.get("best_frame", []) or batch is None


def test_frame_matching_generation(official):
    """What each step reads, and the text with frames in place of tokens."""
    for name, case in official.cases.items():
        if "new_ids" not in case:
            continue
        frames, ids = official.tensors[f"{name}.frames"], official.tensors[f"{name}.input_ids"][0]
        prompt, of_video, moments = spliced(official, name, case, ids, frames)
        inputs = official.words(prompt).masked_scatter(of_video[:, None], frames)
        inputs = official.feedback(official.head, inputs[None], moments[None], frames[None])
        torch.testing.assert_close(inputs, official.tensors[f"{name}.input_embeds.0"], **CLOSE)
        steps = [official.tensors[f"{name}.second_last.{k}"] for k in range(len(case["new_ids"]))]
        seen = official.tensors[f"{name}.before_norm.0"][:, of_video]
        mask = torch.ones(seen.shape[:2], dtype=torch.bool)
        only = torch.zeros(1, dtype=torch.long)
        writing = Writing(official.feedback, official.head, frames[None], {"before_norm": seen}, mask, only)
        for step, (state, new) in enumerate(zip(steps, case["new_ids"], strict=True), 1):
            token = torch.tensor([[new]])
            read = writing.read(token[0], official.words(token), {"before_last_layer": state[:, -1]})
            if f"{name}.input_embeds.{step}" in official.tensors:
                torch.testing.assert_close(read, official.tensors[f"{name}.input_embeds.{step}"], **CLOSE)
        predicting = torch.cat([state[0, -1:] for state in steps])
        scores = official.head(predicting, seen[0])
        unscaled = (scores * official.settings["hidden"] ** 0.5).softmax(-1)
        torch.testing.assert_close(unscaled, official.tensors[f"{name}.probabilities"], **CLOSE)
        assert scores.argmax(-1).tolist() == case["best_frame"]
        chosen = torch.cat(writing.moments)[:, 0]
        assert chosen[~chosen.isnan()].tolist() == case["frame_of_match"]
        tokens = tuple(VID if new == official.settings["match_id"] else "x" for new in case["new_ids"])
        states = {"before_last_layer": predicting}
        answer = Answer(case["text"], tokens, {"before_norm": seen[0]}, predicting=states)
        found = official.localizer.decode(Query("q", "v", "grounding", "x"), answer, clip(len(frames)), official.head)
        assert found.answer == case["filled"]


def test_frame_matching_times_of_frames(official):
    """Frame k at a rate is that of second k / rate."""
    for case in official.frame_times:
        chosen = Sampling(fps=float(case["fps"])).indices(case["frames_in_video"], case["average_fps"])
        assert chosen.tolist() == case["frames"]
        axis = Clip(case["frames_in_video"] / case["average_fps"], len(case["frames"]), float(case["fps"]))
        for number, time_s in enumerate(case["seconds"]):
            if time_s == number / case["fps"]:  # a short video repeats its frames
                assert moment(time_s, axis)[0] == number
