"""MeCo against numbers of the released code: text, losses, every gradient, maps along generation, segments."""

import json
from random import Random

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model, set_peft_model_state_dict
from safetensors.torch import load_file
from torch import nn
from transformers import AutoTokenizer, LogitsProcessorList, Phi3Config, Phi3ForCausalLM, Qwen2Config, Qwen2ForCausalLM

from datamodules.batch import collate, collate_prompts
from datamodules.chat import chat_format
from datamodules.clip import Clip
from datamodules.dialogue import Dialogue
from datamodules.packing import attention_pattern
from datamodules.schema import Event, Query, Turn, Video
from localizers import StructuralTokens
from localizers.answer import Answer
from localizers.similarity_maps import saliency, segments
from localizers.structural_tokens import StructuralTargets, event_texts
from localizers.structural_windows import bounded, covered, interleave, transitions
from metrics.benchmarks.etbench import TASKS
from models.structural_head import StructuralHead
from models.video_llm import VideoLLM
from models.vocabulary import add_tokens
from preparation.annotations import reader

pytestmark = pytest.mark.golden
ROWS = {"pre_norm_rowsum", "hidden_m2_rowsum", "attn_allowed"}
KINDS = {"phi3": (Phi3Config, Phi3ForCausalLM), "qwen2": (Qwen2Config, Qwen2ForCausalLM)}


@pytest.fixture(scope="module")
def common(golden):
    return golden / "models" / "meco_common"


class Case:
    """One golden folder: a tiny base with heads and LoRA, three dialogues, and what the official code made of them."""

    def __init__(self, folder, kind: str):
        self.folder = folder
        self.expected = json.loads((folder / "expected.json").read_text())
        self.localizer = StructuralTokens(token_init="released")
        tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
        self.dialogue = Dialogue(tokenizer, chat_format(kind), self.localizer)
        self.ids = {token: number for number, token in self.dialogue.special.items()}
        self.frames = load_file(folder / "frame_tokens.safetensors")
        self.llm, heads = self.base(kind)
        self.head = StructuralHead(self.llm.config.hidden_size)
        self.head.load_state_dict(heads)
        self.model = self.tuned()

    def base(self, kind: str):
        settings = json.loads((self.folder / "config.json").read_text())
        del settings["kind"]
        config, model = KINDS[kind]
        llm = model(config(**settings))
        tensors = load_file(self.folder / "base.safetensors")
        heads = {k: tensors.pop(k) for k in list(tensors) if k.split(".")[0] in ("frm_head", "vid_head", "logit_scale")}
        llm.load_state_dict(tensors)
        return llm, heads

    def tuned(self) -> VideoLLM:
        add_tokens(self.llm, self.dialogue.tokenizer, self.localizer.special_tokens, "released")
        if self.expected["resized"]:
            names = {"embed_tokens": self.llm.get_input_embeddings(), "lm_head": self.llm.get_output_embeddings()}
            for key, value in load_file(self.folder / "embeds_after_resize.safetensors").items():
                names[key.split(".")[-2]].weight.data.copy_(value)
        lora = self.expected["lora"]
        llm = get_peft_model(
            self.llm, LoraConfig(r=lora["r"], lora_alpha=lora["alpha"], target_modules=lora["targets"])
        )
        set_peft_model_state_dict(llm, load_file(self.folder / "lora.safetensors"))
        model = VideoLLM(llm, nn.Identity(), self.head, self.localizer.states, bidirectional=True)
        for name, parameter in model.named_parameters():
            trained = ("lora_", "embed_tokens", "lm_head", "frm_head", "vid_head", "logit_scale")
            parameter.requires_grad_(any(part in name for part in trained))
        return model

    def video(self, name: str) -> Video:
        rows = self.frames[name].numpy()
        return Video(name, float(len(rows)), np.arange(len(rows), dtype=float), rows)

    def queries(self) -> list[Query]:
        return [as_query(item) for item in json.loads((self.folder / "data.json").read_text())]

    def batch(self, count: int = 3):
        examples = [self.dialogue.example(q, self.video(q.video), Random(0)) for q in self.queries()[:count]]
        return collate(examples, self.dialogue.pad_id)

    def prompt(self, item: dict):
        chat = self.dialogue.encoder.chat
        question = item["prompt"].split(chat.user.strip() + "\n")[1].split(chat.end)[0].replace("<image>", "<video>")
        query = Query(item["video"], item["video"], "dialogue", turns=(Turn(question),))
        return self.dialogue.prompt(query, self.video(item["video"]))


def as_query(item: dict) -> Query:
    ask, say = [turn["value"] for turn in item["conversations"]][-2:]  # the assistant may begin
    times = item["tgt"]
    spans = [(times[0], times[0] + 2)] if item["task"] == "vhd" else list(zip(times[::2], times[1::2], strict=True))
    turn = Turn(ask.replace("<image>", "<video>"), say, events=tuple(Event(a, b) for a, b in spans))
    return Query(item["video"], item["video"], "dialogue", turns=(turn,), duration_s=item["duration"])


@pytest.fixture(scope="module", params=["phi3", "qwen2"])
def case(request, golden):
    return Case(golden / "models" / f"meco_{request.param}", request.param)


def test_meco_text_ids_and_labels(case):
    for query, official in zip(case.queries(), case.expected["texts"], strict=True):
        example = case.dialogue.example(query, case.video(query.video), Random(0))
        words = [i for i in official["input_ids"] if i != -200]
        labels = [x for i, x in zip(official["input_ids"], official["labels"], strict=True) if i != -200]
        assert example.input_ids[~example.frame_mask].tolist() == words
        assert example.labels[~example.frame_mask].tolist() == labels
        assert int(example.frame_mask.nonzero()[0]) == official["input_ids"].index(-200)
        (rendered,) = example.targets
        assert len(rendered.events) == official["answer_after_insertion"].count("<ent>")


def test_meco_text_from_annotations(case, tmp_path):
    """The same ids through `prepare.py annotations et_instruct`: what people train on."""
    (tmp_path / "data.json").write_text((case.folder / "data.json").read_text())
    queries, dropped = reader("et_instruct")(tmp_path / "data.json")
    assert not dropped
    for query, official in zip(queries, case.expected["texts"], strict=True):
        example = case.dialogue.example(query, case.video(query.video), Random(0))
        if "<image>\n" not in official["prompt"].split("\n", 3)[3][:9]:
            continue  # there the video stands behind the question, which is not kept
        assert example.input_ids[~example.frame_mask].tolist() == [i for i in official["input_ids"] if i != -200]
        assert [x for x in example.labels.tolist() if x != -100] == [x for x in official["labels"] if x != -100]


def test_meco_windows_from_annotations(common, tmp_path):
    """Every golden case of every task through the reader, which refuses times that are reversed or out of the video."""
    seen, refused = set(), []
    for case in json.loads((common / "transition_windows.json").read_text()):
        row = case["anno"]
        row["conversations"][0]["value"] = "What at <vid> - <vid>?" if row["task"] == "rvc" else "q"
        (tmp_path / "a.json").write_text(json.dumps([row]))
        frames = case["num_frames"]
        video = Video("x", float(frames), np.arange(frames, dtype=float), np.zeros((frames, 1), np.float16))
        try:
            ((query,), _) = reader("et_instruct")(tmp_path / "a.json")
        except ValueError as error:
            refused.append(str(error))
            if "--repair" in str(error):  # MeCo mends such windows
                ((query,), notes) = reader("et_instruct")(tmp_path / "a.json", repair=True)
                rendered = StructuralTokens().render(query.turns[0], Clip.of(video, row["duration"]), Random(0))
                assert list(rendered.targets.events) == sorted(map(tuple, case["ent_frames"]))
                assert notes.total() >= 1
            continue
        (turn,) = query.turns
        rendered = StructuralTokens().render(turn, Clip.of(video, row["duration"]), Random(0))
        in_order = sorted(map(tuple, case["ent_frames"]))
        assert list(rendered.targets.events) == in_order, row
        if in_order == list(map(tuple, case["ent_frames"])) and "windows" not in row:
            assert [list(stretch) for stretch in rendered.targets.transitions] == case["tst_frames"], row
            assert rendered.answer.count("<tst>") == case["answer"].count("<tst>")
        seen.add(row["task"])
    assert seen == {"tvg", "tal", "evs", "gvq", "slc", "dvc", "epm", "rvc", "vhd", "tvc"}
    assert len(refused) == 6
    assert sum("end is not after the start" in reason for reason in refused) == 2
    assert sum("outside the video" in reason for reason in refused) == 1
    assert sum("without a text" in reason for reason in refused) == 2  # the official code drops these as well


def test_meco_new_rows(golden):
    """The released first values of new rows, where the vocabulary outgrows the matrices."""
    case = Case(golden / "models" / "meco_qwen2", "qwen2")
    llm, _ = case.base("qwen2")
    add_tokens(llm, case.dialogue.tokenizer, case.localizer.special_tokens, "released")
    new = load_file(case.folder / "resize_init.safetensors")
    torch.testing.assert_close(llm.get_input_embeddings().weight[-3:], new["embed_new"])
    torch.testing.assert_close(llm.get_output_embeddings().weight[-3:], new["lm_head_new"])


@pytest.mark.parametrize(("name", "count"), [("batch", 3), ("single0", 1)])
def test_meco_losses_and_every_gradient(case, name, count):
    expected, tensors = case.expected[name], load_file(case.folder / f"train_{name}.safetensors")
    batch = case.batch(count)
    length = batch.labels.shape[1]  # the single dialogue was collated at the width of the three
    torch.testing.assert_close(batch.labels, tensors["spliced_labels"][:, :length])
    assert (tensors["spliced_labels"][:, length:] == -100).all()
    tensors = {k: v[:, :length] if k in ROWS else v for k, v in tensors.items()}
    real = batch.attention_mask.bool()
    pattern = attention_pattern(batch.attention_mask, torch.float32, None, batch.frame_mask)[:, 0] == 0
    assert torch.equal(pattern[real], tensors["attn_allowed"].bool()[:, :, :length][real])
    case.model.zero_grad()
    output = case.model(batch)
    terms = case.localizer.loss(case.head, output.states, batch, case.ids)
    assert output.lm_loss.item() == pytest.approx(expected["ar_loss"], abs=1e-5)
    assert terms["grounding"].item() == pytest.approx(expected["str_loss"], abs=1e-5)
    close = {"rtol": 1e-4, "atol": 2e-5}
    torch.testing.assert_close(output.states["before_norm"].sum(-1)[real], tensors["pre_norm_rowsum"][real], **close)
    torch.testing.assert_close(
        output.states["before_last_layer"].sum(-1)[real], tensors["hidden_m2_rowsum"][real], **close
    )
    (output.lm_loss + terms["grounding"]).backward()
    checked = set()
    for parameter_name, parameter in case.model.named_parameters():
        if not parameter.requires_grad:
            continue
        official = (
            parameter_name.removeprefix("llm.").replace("head.", "base_model.model.", 1)
            if (parameter_name.startswith("head."))
            else parameter_name.removeprefix("llm.")
        )
        if f"grad.{official}" in tensors:
            torch.testing.assert_close(parameter.grad, tensors[f"grad.{official}"], rtol=1e-4, atol=1e-5)
        else:
            torch.testing.assert_close(
                parameter.grad.norm(dim=-1), tensors[f"grad_rownorm.{official}"], rtol=1e-4, atol=1e-5
            )
        checked.add(official)
    assert checked == set(expected["grad_norms"])


def forced(ids: list[int], start: list[int]):
    """Makes greedy generation write given ids."""

    def process(seen, scores):
        scores = torch.full_like(scores, -1e9)
        scores[:, ids[min(start[0], len(ids) - 1)]] = 0
        start[0] += 1
        return scores

    return LogitsProcessorList([process])


@pytest.mark.parametrize("number", [0, 1, 2])
@torch.no_grad()
def test_meco_maps_along_generation(case, number):
    item = case.expected["generation"][number]
    tensors = load_file(case.folder / f"gen_{item['name']}.safetensors")
    prompt = case.prompt(item)
    assert prompt.prefix_ids[~prompt.frame_mask].tolist() + prompt.suffix_ids.tolist() == [
        i for i in item["input_ids"] if i != -200
    ]
    free = item["name"] == "free_greedy"
    more = {} if free else {"logits_processor": forced(item["new_ids"], [0])}
    settings = {"do_sample": False, "max_new_tokens": len(item["new_ids"]), "pad_token_id": 0, "eos_token_id": -1}
    (answer,) = case.model.eval().generate(collate_prompts([prompt], case.dialogue.pad_id), **settings, **more)
    assert answer.ids.tolist() == item["new_ids"]
    made = Answer(
        "", (), frames=answer.frames, predicting=answer.predicting, reading=answer.reading, first=answer.first
    )
    places = list(range(len(item["new_ids"])))
    legacy = StructuralTokens(legacy_first_step=True)
    torch.testing.assert_close(legacy.maps(made, places, case.head), tensors["sim"], atol=1e-5, rtol=1e-4)
    maps = case.localizer.maps(made, places, case.head)
    torch.testing.assert_close(maps[1:], tensors["sim"][1:], atol=1e-5, rtol=1e-4)
    if "sim_training_consistent" in tensors:
        torch.testing.assert_close(maps, tensors["sim_training_consistent"], atol=1e-5, rtol=1e-4)
        assert (maps[0] - tensors["sim"][0]).abs().max() > 1e-3


def test_meco_loss_cases(common):
    cases = json.loads((common / "loss_cases.json").read_text())
    tensors = load_file(common / "loss_cases.safetensors")
    head = StructuralHead(cases["D"])
    weights = load_file(common / "loss_heads.safetensors")
    head.load_state_dict({key: weights[key] for key in head.state_dict() if key != "logit_scale"}, strict=False)
    head.logit_scale.data.fill_(cases["logit_scale"])
    for name, case in cases["cases"].items():
        head.zero_grad()
        states = {}
        for number in range(len(case["samples"])):
            for kind in ("frame", "ent", "tst"):
                key = f"{name}.{number}.{kind}_hidden"
                if key in tensors:
                    states[number, kind] = tensors[key].clone().requires_grad_()
        loss = case_loss(head, case, states)
        assert loss.item() == pytest.approx(case["loss"], abs=1e-5), name
        if case["loss"] == 0:
            continue
        loss.backward()
        for (number, kind), state in states.items():
            official = tensors.get(f"{name}.{number}.{kind}_hidden.grad")
            if official is not None and state.grad is not None:
                torch.testing.assert_close(state.grad, official, rtol=1e-4, atol=1e-6)
        for key, parameter in head.named_parameters():
            if f"{name}.grad.{key}" in tensors:
                torch.testing.assert_close(parameter.grad, tensors[f"{name}.grad.{key}"], rtol=1e-4, atol=1e-6)


def case_loss(head: StructuralHead, case: dict, states: dict) -> torch.Tensor:
    """The localizer's loss on a row of tokens that holds the given states at the given places."""
    ids = {"<ent>": 7, "<tst>": 8}
    length = 1 + max((p for places in case["ent_pos"] + case["tst_pos"] for p in places), default=30) + 1
    length = max(length, case["frame_start"] + max(s["T"] for s in case["samples"]) + 1)
    rows, labels, frame_mask, targets = {"before_norm": [], "before_last_layer": []}, [], [], []
    for number, sample in enumerate(case["samples"]):
        frames = torch.arange(length)
        frame_mask.append((frames >= case["frame_start"]) & (frames < case["frame_start"] + sample["T"]))
        label, width = torch.full((length,), -100), head.frm_head[0].normalized_shape[0]
        normal, last = torch.zeros(length, width), torch.zeros(length, width)
        if (number, "frame") in states:
            normal = normal.masked_scatter(frame_mask[-1][:, None], states[number, "frame"])
        for kind, token in (("ent", 7), ("tst", 8)):
            at = torch.tensor(case[f"{kind}_pos"][number], dtype=torch.long)
            label[at + 1] = token
            if len(at):
                last = last.index_put((at,), states[number, kind])
        rows["before_norm"].append(normal)
        rows["before_last_layer"].append(last)
        labels.append(label)
        stretches = {
            kind: tuple((int(a), min(int(b), sample["T"] - 1)) for a, b in sample[kind]) for kind in ("ent", "tst")
        }
        targets.append((StructuralTargets(stretches["ent"], stretches["tst"]),))

    class Row:
        blocks = None

    batch = Row()
    batch.labels, batch.frame_mask, batch.targets = torch.stack(labels), torch.stack(frame_mask), tuple(targets)
    stacked = {key: torch.stack(value) for key, value in rows.items()}
    return StructuralTokens().loss(head, stacked, batch, ids)["grounding"]


def test_meco_transition_windows(common):
    seen = 0
    for case in json.loads((common / "transition_windows.json").read_text()):
        windows = case.get("windows")
        if case.get("error") or case["anno"].get("tst_windows") or "windows" in case["anno"]:
            continue  # refused by the official code, or taken from the annotation as they are
        raw = raw_windows(case["anno"])
        frames = case["num_frames"]
        between = transitions(raw, frames)
        say = case["anno"]["conversations"][1]["value"]
        pieces = [piece.strip() for piece in say.split("<ent>") if piece.strip()]
        captions = [*pieces[: len(raw) - 1], "".join(pieces[len(raw) - 1 :])]
        assert interleave(captions, list(between)) == case["answer"]
        assert [bounded(w, frames) for w in raw] == [tuple(w) for w in windows]
        assert [list(covered(w, frames)) for w in raw] == case["ent_frames"]
        assert [list(covered(w, frames)) for w in between.values()] == case["tst_frames"]
        seen += 1
    assert seen >= 18


def raw_windows(annotation: dict) -> list[tuple[float, float]]:
    """Event windows by task, in seconds, as the reference lists them."""
    task, times = annotation["task"], annotation.get("tgt")
    if task == "rvc":
        times = annotation["src"]
    if task == "vhd":
        return [(t, t + 2) for t in times]
    if task == "tvc":
        last = max(annotation["duration"] - 1, times[-1] + 1)
        return list(zip(times, [*times[1:], last], strict=True))
    return list(zip(times[::2], times[1::2], strict=True))


def test_meco_segments_and_saliency(common):
    for case in json.loads((common / "boundaries.json").read_text()):
        sample = case["sample"]
        if not sample["vl_sims"]:
            continue
        kinds = sorted([(i, True) for i in sample["ent_inds"]] + [(i, False) for i in sample["tst_inds"]])
        is_event = [kind for _, kind in kinds]
        maps, scale = torch.tensor(sample["vl_sims"]), sample["scale"]
        found = segments(maps, is_event, scale, "etbench", case["th"], legacy=True)
        assert [[s.start, s.end] for s in found] == case["etbench"]["boundary"], case["name"]
        assert [s.event for s in found] == case["etbench"]["indices"]
        for rule, key in (("charades", "charades"), ("qvhighlights", "qvh")):
            found = segments(maps, is_event, scale, rule, legacy=True)
            if not found:
                assert case[key]["windows"] == [[0, sample["duration"], 1]]
                continue
            for segment, (start, end, score) in zip(found, case[key]["windows"], strict=True):
                assert (segment.start, segment.end) == (start, end)
                assert segment.score == pytest.approx(score, abs=1e-6)
            torch.testing.assert_close(saliency(maps, is_event, scale), torch.tensor(case[key]["frame_saliency"]))


def test_meco_task_metrics(common):
    """Segments scored by the evaluator's E.T. Bench metrics."""
    golden = json.loads((common / "task_metrics.json").read_text())
    for task in ("tvg", "tem", "tal", "evs", "vhd"):
        said = [", ".join(f"{a} - {b}" for a, b in sample["boundary"]) for sample in golden[task]["samples"]]
        if task == "vhd":  # one moment: the maximum of the first segment found, counted from the start of the best
            said = [
                str(sample["boundary"][0][0] + np.argmax(sample["confidence"][0])) if sample["boundary"] else ""
                for sample in golden[task]["samples"]
            ]
        samples = [{"a": a, "tgt": sample["tgt"]} for a, sample in zip(said, golden[task]["samples"], strict=True)]
        scores = TASKS[task](samples, "official")
        for name, official in golden[task]["out"].items():
            assert scores[name] == pytest.approx(official, abs=1e-5), (task, name)


def test_meco_captions_of_events(common):
    for case in json.loads((common / "task_metrics.json").read_text())["dvc_caption_split"]:
        if "<ent>" in case["answer"]:
            assert event_texts(case["answer"], legacy=True) == case["captions"]
        else:  # the official code splits at punctuation, but keeps only captions of segments, and here are none
            assert event_texts(case["answer"], legacy=True) == []
    assert event_texts("<tst>\nserve the roots<ent>\n<tst>") == ["serve the roots"]
