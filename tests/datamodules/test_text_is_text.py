"""Text from data is never a special token: whatever task, localizer, reader or template it goes through."""

import copy
import json
import pickle
import re
from dataclasses import replace
from random import Random

import numpy as np
import pytest
import torch

from datamodules.batch import collate
from datamodules.chat import chat_format
from datamodules.clip import Clip
from datamodules.dialogue import Dialogue
from datamodules.markup import MARKER, Text, Token, any_of, fill, literal, without
from datamodules.query_files import read_queries, write_queries
from datamodules.schema import Event, Query, Turn, Video
from lightning_modules.answering import Answering, Generation
from localizers import FrameMatching, SentenceMatching, StructuralTokens, TemporalExpert, TextTimestamps
from localizers.answer import Answer
from localizers.frame_matching import VID
from localizers.telling import write_times
from models.checkpoints import load_tokenizer
from models.outputs import Generated
from preparation.annotations import reader

NASTY = (
    "<s>", "</s>", "<unk>", "<video>", "<Video>", "<image>", "<ent>", "<tst>", "<vid>", "<LOC>", "<loc>", "<|im_end|>",
    "<|end|>", "<s0>", "<e0>", "<s7>", "{caption}", "{text}", "{question}", "{options}", "{options in one line}",
    "<0x0A>",
)  # fmt: skip
LOCALIZERS = {
    "text": TextTimestamps(), "meco": StructuralTokens(), "expert": TemporalExpert(), "sentence": SentenceMatching(),
    "matching": FrameMatching(), "told": FrameMatching(captions="query_focused"),
}  # fmt: skip
STYLES = {
    "text": "vtimellm", "meco": "meco", "expert": "videoexpert", "sentence": "sentence", "matching": "meco",
    "told": "meco",
}  # fmt: skip
TEXT = "a man " + " and ".join(NASTY) + " walks"
"""What a caption, a question or an option may say."""
SPANS = ((2.0, 5.0), (7.0, 9.0))
EVENTS = tuple(Event(*span, f"{TEXT} {n}") for n, span in enumerate(SPANS))
DETAILED = tuple(Event(*span, f"the man {n}", detail=TEXT) for n, span in enumerate(SPANS))
CHOICE = {"options": (f"{TEXT} one", f"{TEXT} two"), "answer": 1}
RECORDS = {
    "grounding": Query("grounding", "v", "grounding", TEXT, EVENTS[:1]),
    "dense": Query("dense", "v", "dense_captioning", events=EVENTS),
    "detailed": Query("detailed", "v", "dense_captioning", events=DETAILED),
    "segment": Query("segment", "v", "segment_captioning", events=EVENTS[:1]),
    "events": Query("events", "v", "events", events=EVENTS),
    "qa": Query("qa", "v", "qa", TEXT, **CHOICE),
    "grounded_qa": Query("grounded_qa", "v", "grounded_qa", TEXT, EVENTS[:1], **CHOICE),
    "dialogue": Query("dialogue", "v", "dialogue", turns=(Turn("what?", TEXT.replace("<s7>", "")
        .replace("<s0>", "").replace("<e0>", "")), Turn("<video> and <ent>?", "<LOC> <tst> </s> <|im_end|>"))),
}  # fmt: skip
VIDEO = Video("v", 12.0, np.arange(12, dtype=float), np.ones((12, 8), np.float16))
REFUSED = {
    ("sentence", "dense"), ("sentence", "detailed"), ("sentence", "segment"), ("sentence", "qa"),
    ("sentence", "grounded_qa"), ("sentence", "dialogue"), ("expert", "segment"),
}  # fmt: skip
"""What a localizer or its style has no words for."""


@pytest.fixture(scope="module", params=LOCALIZERS)
def dialogue(request, small_vicuna):
    tokenizer = load_tokenizer(str(small_vicuna))
    chat = chat_format("bare" if request.param == "sentence" else "vicuna_v1")
    made = Dialogue(tokenizer, chat, LOCALIZERS[request.param], STYLES[request.param])
    made.name = request.param
    return made


def specials(dialogue, ids: list[int]) -> dict[str, int]:
    """How often each special token stands in ids."""
    added = dialogue.tokenizer.added_tokens_decoder
    found = [added[number].content for number in ids if number in added]
    return {token: found.count(token) for token in found}


def own_tokens(dialogue, example) -> dict[str, int]:
    """The localizer's tokens that its targets and moments ask for."""
    targets, referred = [turn for turn in example.targets if turn], int((~example.moments[:, 0].isnan()).sum())
    if dialogue.name in ("matching", "told"):
        return {"<vid>": referred} if referred else {}
    if dialogue.name == "meco":
        events = sum(len(turn.events) for turn in targets)
        between = sum(len(turn.transitions) for turn in targets)
        counts = (("<ent>", events), ("<tst>", between), ("<vid>", referred))
        return {token: count for token, count in counts if count}
    count = sum(len(turn) for turn in targets)
    return {"<LOC>": count} if count else {}


@pytest.mark.parametrize("record", RECORDS)
def test_no_task_and_no_localizer_takes_text_for_a_token(record, dialogue, tmp_path):
    write_queries(tmp_path / "queries.jsonl", [RECORDS[record]])
    (query,) = read_queries(tmp_path / "queries.jsonl")
    if (dialogue.name, record) in REFUSED:
        with pytest.raises(ValueError):
            dialogue.example(query, VIDEO, Random(0))
        return
    for seed in range(6):
        example = dialogue.example(query, VIDEO, Random(seed))
        ids = example.input_ids[~example.frame_mask].tolist()
        found = specials(dialogue, ids)
        assert found.pop("<s>") == 1
        ends = len(example.targets) if dialogue.encoder.end else 0
        assert found.pop("</s>", 0) == ends
        assert found == own_tokens(dialogue, example)
        assert example.frame_mask.sum() == len(VIDEO.features)
        text = dialogue.tokenizer.decode(ids)
        said = [word for word in NASTY if word in TEXT and word[0] == "<"]
        if record not in ("dialogue", "detailed") or (record == "detailed" and dialogue.name == "meco"):
            assert all(word in text or word.lower() in text for word in said)
            assert "{caption}" in text, "what data says is not filled in again"
        collate([example], dialogue.pad_id)


@pytest.mark.parametrize("record", [name for name in RECORDS if name != "events"])
def test_no_question_takes_text_for_a_token(record, dialogue):
    query = RECORDS[record]
    if dialogue.name == "sentence" and (dialogue.name, record) in REFUSED and record != "grounded_qa":
        return
    prompt = dialogue.prompt(query, VIDEO)
    ids = [*prompt.prefix_ids[~prompt.frame_mask].tolist(), *prompt.suffix_ids.tolist(), *prompt.next_ids]
    allowed = {"<s>": 1, "</s>": 0}
    if record == "segment" and VID in dialogue.localizer.time_tokens:
        allowed[VID] = 2
    assert all(count <= allowed.get(token, 0) for token, count in specials(dialogue, ids).items())
    assert prompt.frame_mask.sum() == len(VIDEO.features)


def test_a_question_in_its_own_words_keeps_what_is_meant_in_it(small_vicuna):
    dialogue = Dialogue(load_tokenizer(str(small_vicuna)), chat_format("vicuna_v1"), StructuralTokens(), "meco")
    asked = Turn("look <video> at <s0> and <ent>, <video>, <vid>?", task="grounding", times={"<s0>": 3.0})
    query = Query("q", "v", "grounding", "x", (Event(1, 2),), (asked,))
    prompt = dialogue.prompt(query, VIDEO)
    assert specials(dialogue, prompt.suffix_ids.tolist()) == {"<vid>": 1}
    assert prompt.moments[:, 0].nan_to_num(-1).max() == 3
    text = dialogue.tokenizer.decode(prompt.suffix_ids)
    assert "and <ent>, <video>, <vid>?" in text


@pytest.mark.parametrize(("name", "token"), [("meco", "<ent>"), ("expert", "<LOC>")])
def test_tokens_of_a_records_events_are_meant(name, token, small_vicuna):
    localizer = LOCALIZERS[name]
    dialogue = Dialogue(load_tokenizer(str(small_vicuna)), chat_format("vicuna_v1"), localizer, STYLES[name])
    turn = Turn("what?", f"It walks <tst>.{token} It stops <{token}s>.{token}", events=EVENTS[:2])
    with pytest.raises(ValueError, match=f"query q: an answer with 3 {token}"):
        dialogue.example(Query("q", "v", "dialogue", turns=(turn,)), VIDEO, Random(0))
    turn = Turn("what?", f"It walks <tst>.{token} It <vid> stops.{token}", events=EVENTS[:2])
    example = dialogue.example(Query("q", "v", "dialogue", turns=(turn,)), VIDEO, Random(0))
    found = specials(dialogue, example.input_ids[~example.frame_mask].tolist())
    assert found[token] == 2
    assert "<vid>" not in found
    assert found.get("<tst>", 0) == (len(example.targets[0].transitions) if name == "meco" else 0)


def test_pieces_that_would_make_a_token_together_do_not(small_vicuna):
    dialogue = Dialogue(load_tokenizer(str(small_vicuna)), chat_format("vicuna_v1"), StructuralTokens(), "meco")
    turn = Turn("what?", "It walks <en<ent>t>.", events=EVENTS[:1])
    example = dialogue.example(Query("q", "v", "dialogue", turns=(turn,)), VIDEO, Random(0))
    assert specials(dialogue, example.input_ids.tolist())["<ent>"] == 1


def test_published_dialogues_keep_their_placeholder_and_their_text(tmp_path, small_vicuna):
    """The readers of VTimeLLM's and LLaVA's files: only the first question holds the video."""
    said = " and ".join(word for word in NASTY if not word.startswith(("<s0", "<e0", "<s7")))
    turns = [("human", "Give a summary.\n<image>"), ("gpt", f"{said} from <s0> to <e0>."), ("human", "<video>?"),
             ("gpt", "<LOC>, <image>")]  # fmt: skip
    sample = {
        "id": "v",
        "conversations": [{"from": role, "value": text} for role, text in turns],
        "meta": {"duration": 12.0, "token": {"<s0>": 3.0, "<e0>": 6.0}},
    }
    (tmp_path / "stage.json").write_text(json.dumps([sample]))
    for name in ("vtimellm", "llava"):
        ((query,), dropped) = reader(name)(tmp_path / "stage.json")
        assert not dropped
        dialogue = Dialogue(load_tokenizer(str(small_vicuna)), chat_format("vicuna_v1"), TemporalExpert())
        example = dialogue.example(query, VIDEO, Random(0))
        found = specials(dialogue, example.input_ids[~example.frame_mask].tolist())
        assert found == {"<s>": 1, "</s>": 2, "<LOC>": 1}
        assert example.frame_mask.sum() == len(VIDEO.features)


def test_answers_that_only_look_like_tokens_are_read_as_text(small_vicuna):
    """A model that learned to write ``<LOC>`` as a word must not be taken to say when."""
    for localizer, token in ((TemporalExpert(), "<LOC>"), (StructuralTokens(), "<ent>"), (FrameMatching(), VID)):
        dialogue = Dialogue(load_tokenizer(str(small_vicuna)), chat_format("vicuna_v1"), localizer)
        answering = Answering(dialogue, Generation())
        word = [number for number, _ in dialogue.encoder.text(f"a {token} b")]
        own = dialogue.tokenizer.convert_tokens_to_ids(token)
        said = answering.said([*word, own, *word[:1]])
        assert said.replace(" ", "") == f"a{token}b{token}a"
        assert said.tokens == (token,)
        before, _ = said.part(token)
        assert before.endswith("b")
        assert (answering.said(word), answering.said(word).tokens) == (f"a {token} b", ())
        query = Query("q", "v", "dense_captioning", events=EVENTS)
        read = Answer(said, tokens=("a",))
        found = localizer.decode(query, read, dialogue._clip(query, VIDEO))
        assert found.answer == said


def test_an_answer_is_handed_on_as_the_model_wrote_it(small_vicuna):
    dialogue = Dialogue(load_tokenizer(str(small_vicuna)), chat_format("vicuna_v1"), TemporalExpert())
    answering = Answering(dialogue, Generation())
    ids = [number for number, _ in dialogue.encoder.text("a <LOC> b")]
    query = Query("q", "v", "grounding", "x", EVENTS[:1])
    generated = Generated(torch.tensor(ids), {}, {}, {}, {})

    class Model:
        head = None

    made = answering.prediction(query, dialogue._clip(query, VIDEO), [answering.read(generated)], Model())
    assert made.answer == "a <LOC> b"
    assert made.spans == ()


def test_tokens_are_known_by_their_place():
    text = Text("say <ent> or ", Token("<ent>"), "", Text(" and ", Token("<s0>"), "</s>"))
    assert text == "say <ent> or <ent> and <s0></s>"
    assert text.pieces == ("say <ent> or ", "<ent>", " and ", "<s0>", "</s>")
    assert text.tokens == ("<ent>", "<s0>")
    assert [part.pieces for part in text.part("<ent>")] == [("say <ent> or ",), (" and ", "<s0>", "</s>")]
    changed = text.change({"<s0>": "5 s", "<ent>": Token("<LOC>")}, str.upper)
    assert (changed, changed.tokens) == ("SAY <ENT> OR <LOC> AND 5 s</S>", ("<LOC>",))
    assert (literal(text, any_of(["</s>"])).tokens, literal("a</s>", any_of(["</s>"])).tokens) == (
        text.tokens,
        ("</s>",),
    )
    for kept in (pickle.loads(pickle.dumps(text)), copy.deepcopy(text)):
        assert (kept, kept.tokens) == (text, text.tokens)


def test_a_pattern_finds_tokens_and_not_what_looks_like_them():
    text = Text("on <s1> it says ", Token("<s0>"), "s - </s1>. Then <s0>. Bye.")
    assert len(text.meant) == len(text)
    assert [found.start() for found in MARKER.finditer(text.meant)] == [text.index("<s0>")]
    assert text.cut(8, -9 + len(text)).tokens == ("<s0>",)
    assert (text.cut(0, 18), text.cut(0, 18).tokens) == ("on <s1> it says <s", ())
    assert text.cut(3).cut(13, 17).pieces == ("<s0>",)
    assert without(re.compile(r"[^.]*<[se]\d+>[^.]*\. ?"), text) == "Then <s0>. Bye."
    assert write_times(text, {"<s0>": 5.0}, "{:.0f}".format) == "on <s1> it says 5 - </s1>. Then <s0>. Bye."


def test_a_time_that_an_answer_only_seems_to_name_is_text():
    """Beside a marker that is meant, in every localizer."""
    asked, times = Text("When?"), {"<s0>": 2.0, "<e0>": 5.0}
    said = Text("A sign says from <s0> to <e0>. It is from ", Token("<s0>"), " to ", Token("<e0>"), " seconds.")
    clip = Clip(12.0, 12, 1.0)
    answers = {name: LOCALIZERS[name].render(Turn(asked, said, times=times), clip, Random(0)).answer
               for name in ("text", "meco", "expert", "matching")}  # fmt: skip
    assert all("A sign says from <s0> to <e0>." in answer for answer in answers.values())
    assert answers["text"].endswith("It is from 17 to 42.")
    assert answers["expert"].endswith("It is during <LOC>.")
    assert answers["matching"].tokens == (VID, VID)
    assert answers["meco"].tokens == ("<tst>", "<ent>", "<tst>")


def test_a_record_means_its_markers_and_the_first_video():
    turn = Turn("<video> or <video>? At <s0>, </s>.", "<ent> to <e0> <video>", times={"<s0>": 1.0, "<e0>": 2.0})
    assert (turn.question.tokens, turn.answer.tokens) == (("<video>", "<s0>"), ("<e0>",))
    assert replace(turn, topic="x") == replace(turn, topic="x", question=str(turn.question))
    filled = Turn(fill("{caption} at <s0>?", {"caption": "<s7> <video>"}), times={"<s0>": 1.0})
    assert (filled.question, filled.question.tokens) == ("<s7> <video> at <s0>?", ("<s0>",))
    with pytest.raises(ValueError, match="marker without a time: .'<s7>'"):
        Turn("<s7>?")
    with pytest.raises(ValueError, match="question and answer must be text, got 3"):
        Turn(3)


def test_a_wording_is_filled_once():
    filled = fill(
        "{question} or {text}? {options} {other}", {"question": "{text}", "text": "{options}", "options": "x"}
    )
    assert filled == "{text} or {options}? x {other}"
