"""Evidence tokens equal D2VLM's released code: runs of frames, scores, labels, losses, gradients, and generation."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from datamodules.batch import Batch
from datamodules.clip import Clip
from lightning_modules.preference_tuning import PreferenceTuning, answers_of
from localizers import EvidenceTokens
from localizers.evidence_tokens import EVI
from models.evidence_head import best_run
from models.factorised_preferences import preference_loss, sums_of_blocks
from models.feedback import Feedback, Writing
from models.outputs import Output

pytestmark = pytest.mark.golden
IMAGE = -200
"""Id that stands for a video."""
CLOSE = {"rtol": 1e-5, "atol": 1e-6}


def same_gradient(own: torch.Tensor, theirs: torch.Tensor) -> None:
    """To 1e-5 of the largest entry, and to the rounding of terms that cancel."""
    torch.testing.assert_close(own, theirs, rtol=0, atol=1e-5 * theirs.abs().max().item() + 1e-7)


@pytest.fixture(scope="module")
def official(golden):
    set_ = json.loads((golden / "paradigms/evidence.json").read_text())
    tensors, settings = load_file(golden / "paradigms/evidence.safetensors"), set_["settings"]
    localizer = EvidenceTokens(alpha=settings["alpha"], block=settings["block"], legacy=True)
    head = localizer.head(settings["hidden"])
    head.load_state_dict({key: tensors[f"weights.{key}"] for key in head.state_dict()})
    words = nn.Embedding.from_pretrained(tensors["weights.model.embed_tokens.weight"])
    return SimpleNamespace(**set_, tensors=tensors, localizer=localizer, head=head, words=words)


def spans(times, localizer: EvidenceTokens, frames: int) -> list[tuple[float, float]]:
    """Pairs of frame numbers as what tokens stand for."""
    axis = Clip(float(frames), frames, 1.0)
    return [localizer.moments(*pair, axis)[0] for pair in zip(times[::2], times[1::2], strict=True)]


def asked(pairs) -> list[tuple[float, float]]:
    """As those of a question are kept."""
    return [(-1.0 - first, -1.0 - last) for first, last in pairs]


def training_batch(official, name: str):
    """A training case as a batch of this project: ids, labels, what tokens stand for, frames and their inner states."""
    case, tensors, rows = official.cases[name], official.tensors, []
    for number, sample in enumerate(case["samples"]):
        real = tensors[f"{name}.attention_before_frames"][number]
        before = tensors[f"{name}.input_ids_before_frames"][number][real]
        before = before[before != IMAGE]
        behind = tensors[f"{name}.input_ids_after_frames.{number}"]
        frames = tensors[f"{name}.frames.{number}"]
        first, end = case["frame_rows"][number][-1]
        ids = torch.cat([before, torch.zeros(len(frames), dtype=before.dtype), behind])
        mask = torch.zeros(len(ids), dtype=torch.bool)
        mask[first:end] = True
        labels = torch.full_like(ids, -100)
        labels[end:] = tensors[f"{name}.labels_after_frames.{number}"]
        said = spans(sample["tgt"] or [], official.localizer, len(frames))
        moments = torch.full((len(ids), 2), torch.nan)
        known = asked(spans(sample["src"] or [], official.localizer, len(frames))) + said + said
        moments[(ids == official.settings["evidence_id"]) & ~mask] = torch.tensor(known).reshape(-1, 2)
        inner = tensors[f"{name}.after_block_{official.settings['block']}"][number, first:end]
        rows.append((ids, labels, mask, moments, frames, inner, torch.ones(len(frames), dtype=torch.bool)))
    values = (0, -100, False, torch.nan, 0.0, 0.0, False)
    padded = [
        pad_sequence(list(column), batch_first=True, padding_value=value)
        for column, value in zip(zip(*rows, strict=True), values, strict=True)
    ]
    names = ("ids", "labels", "frame_mask", "moments", "features", "inner", "feature_mask")
    return SimpleNamespace(blocks=None, **dict(zip(names, padded, strict=True)))


def test_evidence_runs_of_frames(official):
    for case in official.find_and_merge:
        scores = torch.tensor(case["scores"])
        assert [list(best_run(scores, joined=True))] == case["span"], case["id"]
        first, last = best_run(scores)  # by default, no frame below the threshold is inside
        assert (scores[first : last + 1] >= 0.6 * scores.max() - 1e-6).all()
        if "defect" not in case["id"] and (first, last) != tuple(case["span"][0]):
            assert first == case["span"][0][0]  # another run with the same mean


def test_evidence_losses_and_every_gradient(official):
    for name, case in official.cases.items():
        if "samples" not in case:
            continue
        batch = training_batch(official, name)
        length = batch.ids.shape[1]
        states = official.tensors[f"{name}.second_last"][:, :length].clone().requires_grad_()
        weight = 10.0 if case["consistency"] else 0.0
        localizer = EvidenceTokens(alpha=case["alpha"], consistency_weight=weight, legacy=True)
        official.head.zero_grad()
        terms = localizer.loss(
            official.head, {"before_last_layer": states}, batch, {EVI: official.settings["evidence_id"]}
        )
        assert sum(terms.values()).item() == pytest.approx(case["loss"], rel=1e-5), name
        assert terms["evidence"].item() == pytest.approx(10 * sum(case["bce"]) / len(case["bce"]), rel=1e-5)
        sum(terms.values()).backward()
        same_gradient(states.grad, official.tensors[f"{name}.second_last.grad"][:, :length])
        for key, parameter in official.head.named_parameters():
            same_gradient(parameter.grad, official.tensors[f"{name}.grad.{key}"])


def test_evidence_scores_labels_and_inputs(official):
    for name, case in official.cases.items():
        if "samples" not in case:
            continue
        batch = training_batch(official, name)
        for number, sample in enumerate(case["samples"]):
            if not sample["tgt"]:
                continue
            at = (batch.labels[number] == official.settings["evidence_id"]).nonzero()[:, 0]
            states = official.tensors[f"{name}.second_last"][number]
            first, end = case["frame_rows"][number][-1]
            scores, _ = official.head(states[at - 1], states[first:end])
            torch.testing.assert_close(scores, official.tensors[f"{name}.scores.{number}"], **CLOSE)
            localizer = replace(official.localizer, alpha=case["alpha"])
            labels = localizer.soft_labels(batch.moments[number, at], end - first)
            torch.testing.assert_close(labels, official.tensors[f"{name}.soft_labels.{number}"], **CLOSE)
        frames = torch.stack([batch.features, batch.inner], dim=2)
        inputs = official.words(batch.ids).masked_scatter(
            batch.frame_mask[..., None], batch.features[batch.feature_mask]
        )
        read = Feedback(official.localizer, (official.settings["evidence_id"],))(
            official.head, inputs, batch.moments, frames
        )
        real = official.tensors[f"{name}.spliced_attention"][:, : batch.ids.shape[1]]
        theirs = official.tensors[f"{name}.spliced_embeds"][:, : batch.ids.shape[1]]
        torch.testing.assert_close(read[real], theirs[real], **CLOSE)


def test_evidence_generation(official):
    """What each step reads, and the frames of every step."""
    evidence = official.settings["evidence_id"]
    feedback = Feedback(official.localizer, (evidence,))
    for name, case in official.cases.items():
        if "new_ids" not in case:
            continue
        frames, ids = official.tensors[f"{name}.frames"], official.tensors[f"{name}.input_ids"][0]
        place = int((ids == IMAGE).nonzero())
        prompt = torch.cat([ids[:place], torch.zeros(len(frames), dtype=ids.dtype), ids[place + 1 :]])
        seen = slice(place, place + len(frames))
        moments = torch.full((len(prompt), 2), torch.nan)
        at = prompt == evidence
        at[seen] = False
        moments[at] = torch.tensor(asked(spans(case["src"] or [], official.localizer, len(frames)))).reshape(-1, 2)
        inner = official.tensors[f"{name}.after_block_{official.settings['block']}"][0, seen]
        read_with = torch.stack([frames, inner], dim=1)[None]
        inputs = official.words(prompt)
        inputs[seen] = frames
        inputs = feedback(official.head, inputs[None], moments[None], read_with)
        torch.testing.assert_close(inputs, official.tensors[f"{name}.input_embeds.0"], **CLOSE)
        states = [official.tensors[f"{name}.second_last.{step}"] for step in range(len(case["new_ids"]))]
        mask = torch.ones(1, len(frames), dtype=torch.bool)
        only = {"before_last_layer": states[0][:, seen]}
        writing = Writing(feedback, official.head, read_with, only, mask, torch.zeros(1, dtype=torch.long))
        for step, (state, new) in enumerate(zip(states, case["new_ids"], strict=True), 1):
            logits, _ = official.head(state[0, -1:], states[0][0, seen])
            assert list(official.localizer._run(logits[0].sigmoid())) == case["span_of_step"][step - 1]
            predicting = {"before_last_layer": state[:, -1]}
            read = writing.read(torch.tensor([new]), official.words(torch.tensor([[new]])), predicting)
            if f"{name}.input_embeds.{step}" in official.tensors:
                torch.testing.assert_close(read, official.tensors[f"{name}.input_embeds.{step}"], **CLOSE)
        said = torch.cat(writing.moments)
        assert said[~said[:, 0].isnan()].tolist() == case["span_of_token"]


class Given(nn.Module):
    """Projections of states that are projected already."""

    def forward(self, tokens, frames):
        return (frames @ tokens[..., None]).squeeze(-1) / tokens.shape[-1] ** 0.5, tokens


def pair(case: dict, tensors: dict, evidence: int):
    """Two answers behind one video as the stage reads them: a batch, the states, and the loss of each token.

    The words that name evidence count nothing: theirs are the words of the events alone.
    """
    frames, offset = tensors["frame_vectors"], case["relative_offset"]
    states, labels, blocks, losses = [frames], [-100] * len(frames), [0] * len(frames), []
    moments = [[torch.nan] * 2] * len(frames)
    for block, name in enumerate(("chosen", "reject"), 1):
        answer = case["event"][name]
        pointed, said = answer.get("grounding") or {}, answer.get("text") or {}
        at = torch.tensor(pointed.get("input_index", []), dtype=torch.long) + offset
        words = torch.tensor(said.get("input_index", []), dtype=torch.long) + offset
        ids = torch.tensor(said.get("logit_token_id", []), dtype=torch.long)
        states += [tensors["evidence_vectors"][at], torch.zeros(1 + len(ids), frames.shape[-1])]
        labels += [-100, *[evidence] * len(at), *ids.tolist()]
        blocks += [block] * (1 + len(at) + len(ids))
        moments += [[torch.nan] * 2, *pointed.get("tgt", []), *[[torch.nan] * 2] * len(ids)]
        losses += [torch.zeros(len(at)), nn.functional.cross_entropy(tensors["logits"][words], ids, reduction="none")]
    labels = torch.tensor([labels])
    batch = Batch(
        labels, labels, torch.ones_like(labels), torch.arange(labels.shape[1])[None] < len(frames), frames[None],
        torch.ones(1, len(frames), dtype=torch.bool), (), (), torch.tensor([moments]), torch.tensor([blocks]),
    )  # fmt: skip
    return batch, {"before_last_layer": torch.cat(states)[None]}, torch.cat(losses)


def test_evidence_preferences(official):
    """Log-likelihoods of both answers, the loss of each pair, and its gradients, as the stage has them."""
    fpo, evidence = official.cases["fpo"], 1000  # the id of no word
    localizer = EvidenceTokens(alpha=fpo["alpha"])
    stage = SimpleNamespace(localizer=localizer, model=SimpleNamespace(head=Given()), ids={EVI: evidence},
                            beta=fpo["beta"], preference_weight=1.0, log=lambda *_, **__: None)  # fmt: skip
    for case in fpo["cases"]:
        tensors = {name: official.tensors[f"fpo.{name}"].clone().requires_grad_()
                   for name in ("evidence_vectors", "frame_vectors", "logits")}  # fmt: skip
        batch, states, losses = pair(case, tensors, evidence)
        rows, blocks = answers_of(batch)
        pointed = localizer.log_likelihood(Given(), states, batch, {EVI: evidence})
        likely = pointed + sums_of_blocks(-losses, rows, blocks, tuple(pointed.shape))
        assert likely[0, 1].item() == pytest.approx(case["chosen_logp"], rel=1e-5), case["id"]
        assert likely[0, 2].item() == pytest.approx(case["reject_logp"], rel=1e-5), case["id"]
        words = losses[(blocks == 1) & (batch.labels[:, 1:][batch.labels[:, 1:] != -100] != evidence)]
        averaged = pointed[0, 1].item() - (words.mean().item() if len(words) else 0.0)
        assert averaged == pytest.approx(case["chosen_logp_text_averaged"], rel=1e-5), case["id"]
        terms = PreferenceTuning.loss_terms(stage, batch, Output(torch.zeros(()), token_loss=losses, states=states))
        assert terms["preference"].item() == pytest.approx(case["loss"], rel=1e-5), case["id"]
        terms["preference"].backward()
        for name, tensor in tensors.items():
            expected = official.tensors.get(f"fpo.{case['id'].replace(' ', '_')}.{name}.grad")
            if expected is not None:
                same_gradient(tensor.grad, expected)
    for each in fpo["pair_loss"]:
        loss = preference_loss(torch.tensor(each["chosen"]), torch.tensor(each["reject"]), fpo["beta"])
        assert loss.item() == pytest.approx(each["loss"], rel=1e-5)
