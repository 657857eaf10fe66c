"""Every localizer reads back every task of every reader: the answers it writes from a record give the record's times.

What is read from hidden states is what a perfect model would say about its own targets.
"""

import json
import re
from functools import partial
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
import tutorial

from datamodules.clip import Clip
from datamodules.options import chosen
from datamodules.query_files import write_queries
from datamodules.rendered import Rendered
from datamodules.schema import Event, Query, Turn
from datamodules.turns import TurnWriter
from localizers import (
    DigitTokens,
    EvidenceTokens,
    FrameMatching,
    StructuralTokens,
    TemporalExpert,
    TextSeconds,
    TextTimestamps,
    TimeDistribution,
    TimeTokens,
)
from localizers.answer import Answer
from localizers.base import MARKED_SPAN, Localizer
from localizers.frame_matching import VID
from models.structural_head import StructuralHead
from models.temporal_head import HeadOutput, TemporalHead
from preparation.annotations import reader

CLIP = Clip(100.0, 100, 1.0)
"""A tick is a frame is a second."""


class PerfectTokens(StructuralTokens):
    """Its maps are those of a model that has learned its targets."""

    def maps(self, answer, places, head):
        return answer.frames["maps"]


class PerfectExpert(TemporalExpert):
    """Its head says what it was told to."""

    def _output(self, query, answer, head):
        return answer.frames.get("output")


class Fixed(torch.nn.Module):
    """Its scores are the states."""

    def forward(self, tokens, frames):
        return tokens


def text(rendered: Rendered) -> tuple[Answer, None]:
    return Answer(rendered.answer), None


def tokens(rendered: Rendered) -> tuple[Answer, StructuralHead]:
    order = re.findall("<ent>|<tst>", rendered.answer)
    maps = torch.full((len(order), CLIP.frames), -1.0)
    if rendered.targets:
        stretches = {"<ent>": iter(rendered.targets.events), "<tst>": iter(rendered.targets.transitions)}
        for row, token in zip(maps, order, strict=True):
            first, last = next(stretches[token])
            row[first : last + 1] = 1.0
    return Answer(rendered.answer, tuple(order), {"maps": maps}), StructuralHead(4)


def expert(rendered: Rendered) -> tuple[Answer, TemporalHead]:
    if not rendered.targets:
        return Answer(rendered.answer), TemporalHead(4)
    foreground = torch.from_numpy(np.stack([target.foreground for target in rendered.targets]))
    centres = (torch.arange(CLIP.frames) + 0.5) / CLIP.frames
    windows = torch.from_numpy(np.stack([target.windows for target in rendered.targets]))
    offsets = (windows - centres[:, None]) * torch.tensor([-1.0, 1.0])
    output = HeadOutput(foreground * 20.0 - 10.0, offsets, torch.ones_like(foreground))
    return Answer(rendered.answer, frames={"output": output}), TemporalHead(4)


def matching(rendered: Rendered) -> tuple[Answer, Fixed]:
    count = rendered.answer.count(VID)
    scores = torch.full((count, CLIP.frames), -100.0)
    for row, (place, _) in zip(scores, rendered.moments[len(rendered.moments) - count :], strict=True):
        row[round(place)] = 100.0
    frames = {"before_norm": torch.zeros(CLIP.frames, 1)}
    return Answer(rendered.answer, (VID,) * count, frames, {"before_last_layer": scores}), Fixed()


def distribution(rendered: Rendered) -> tuple[Answer, Fixed]:
    count = rendered.answer.count("<TIME_STAMP>")
    places = torch.tensor(rendered.moments[len(rendered.moments) - count :]).reshape(-1, 2, 1) * TimeDistribution().bins
    logits = (1 - (torch.arange(TimeDistribution().bins + 1) - places).abs()).clamp(min=1e-12).log()
    return Answer(rendered.answer, ("<TIME_STAMP>",) * count, predicting={"after_norm": logits}), Alone()


def evidence(rendered: Rendered) -> tuple[Answer, torch.nn.Module]:
    said = [token for token in rendered.answer.tokens if token == "<evi>"]
    logits = torch.full((len(said), CLIP.frames), -20.0)
    moments = rendered.moments[len(rendered.moments) - len(said) :]
    for row, (first, last) in zip(logits, moments, strict=True):
        row[int(first) : int(last) + 1] = 20.0
    states = {"before_last_layer": logits}
    answer = Answer(rendered.answer, tuple(said), {"before_last_layer": logits.new_zeros(CLIP.frames, 1)}, states)
    return answer, Pairs()


def pointers(rendered: Rendered) -> tuple[Answer, Fixed]:
    count = rendered.answer.count("<moment>")
    scores = torch.full((count, 2, CLIP.frames), -100.0)
    ends = torch.tensor(rendered.moments[len(rendered.moments) - count :]).reshape(count, 2, 1).long()
    states = {"after_norm": scores.scatter(2, ends, 100.0)}
    return Answer(rendered.answer, ("<moment>",) * count, {"after_norm": torch.zeros(CLIP.frames, 1)}, states), Fixed()


class Pairs(torch.nn.Module):
    """Its scores are the states."""

    def forward(self, tokens, frames):
        return tokens, tokens


class Alone(torch.nn.Module):
    """Its scores are the states."""

    def forward(self, states):
        return states


WAYS = {
    "text": (TextTimestamps, text),
    "tokens": (PerfectTokens, tokens),
    "expert": (PerfectExpert, expert),
    "matching": (FrameMatching, matching),
    "time_tokens": (TimeTokens, text),
    "digit_tokens": (DigitTokens, text),
    "evidence_tokens": (EvidenceTokens, evidence),
    "time_distribution": (TimeDistribution, distribution),
    "text_seconds": (TextSeconds, text),
    "tutorial": (tutorial.module().FramePointers, pointers),
    "text_seconds_json": (partial(TextSeconds, answers="json"), text),
    "unitime": (partial(TextSeconds, group=1, lead="", snap=True,
                        wording="from {start} seconds to {end} seconds"), text),
    "vid2seq": (partial(TimeTokens, count=101, name="<time={}>", wording="{start} {end}",
                        event_wording="{span} {caption}", mark_questions=False), text),
    "omnivid": (partial(TimeTokens, name="<time_bin_{}>", wording="{start}{end}",
                        event_wording="<event>{span}{caption}</event>", mark_questions=False), text),
}  # fmt: skip
CAPTIONS = ("query_focused", "query", "none")


def et(task: str, said: str, asked: str = "Do it.", **times) -> dict:
    return {"task": task, "source": "made up", "video": f"{task}.mp4", "duration": 100.0, "tgt": [], **times,
            "conversations": [{"from": "human", "value": f"<image>\n{asked}"},
                              {"from": "gpt", "value": said}]}  # fmt: skip


def et_instruct(tokens: bool) -> list[dict]:
    """One sample of each task, with times as ``<vid>`` or as text."""

    def written(text: str, times: list[float]) -> str:
        pieces = text.split("@")
        marks = [VID if tokens else f"{time_s:.1f}" for time_s in times]
        return pieces[0] + "".join(mark + piece for mark, piece in zip(marks, pieces[1:], strict=True))

    def row(task: str, said: str, tgt=(), asked: str = "Do it.", src=()) -> dict:
        return et(task, written(said, tgt), written(asked, src), tgt=list(tgt), **({"src": list(src)} if src else {}))

    return [
        row("tvg", "The event happens in @ - @ seconds.", [5.2, 11.7], "Find 'a man opens the door'."),
        row("epm", "@ - @ seconds", [40, 52.5]),
        row("tal", "The action happens in @ - @, @ - @ and @ - @ seconds.", [1, 5, 20, 30, 60, 61.5]),
        row("evs", "The summary locates in @ - @, @ - @ seconds.", [10, 20, 70, 90]),
        row("vhd", "The highlight moment happens at @ seconds.", [33]),
        row("gvq", "@ - @ seconds. Therefore, the answer is (B).", [41, 50]),
        row("dvc", "@ - @ seconds, he cuts 2 onions. @ - @ seconds, he eats.", [0, 6, 6, 19]),
        row("slc", "@ - @ seconds, cut it. @ - @ seconds, eat.", [10, 16, 70, 90]),
        row("tvc", "@ seconds, he cuts. @ seconds, he eats.", [4, 30]),
        row("rvc", "He eats 3 eggs.", asked="What happens in @ - @ seconds?", src=[30, 45]),
    ]


def etbench() -> list[dict]:
    base = {"version": 1.0, "source": "made up", "video": "a.mp4", "duration": 100.0, "q": "Find 'a man' in it."}
    options = {"o": ["a dog", "a cat", "a cow"], "p": 1}
    rows = [
        {"task": "tvg", "tgt": [15.0, 31.0]}, {"task": "epm", "tgt": [15.0, 31.0]},
        {"task": "tal", "tgt": [[1, 4], [50, 60]]}, {"task": "evs", "tgt": [[1, 4], [50, 60]]},
        {"task": "vhd", "tgt": [[[1, 4]], [[50, 60]]]}, {"task": "tem", "tgt": [[1, 4]], "src": [5, 9],
                                                        "q": "What is like <vid> - <vid> seconds?"},
        {"task": "dvc", "tgt": [[1, 4], [50, 60]], "g": ["he cuts", "he eats"]},
        {"task": "slc", "tgt": [[1, 4], [50, 60]], "g": ["he cuts", "he eats"]},
        {"task": "rar", "tgt": [], "src": [7.5], "q": "What is at <vid> seconds?", **options},
        {"task": "eca", "tgt": [], **options}, {"task": "rvq", "tgt": [], **options},
        {"task": "gvq", "tgt": [[20, 31]], **options},
    ]  # fmt: skip
    return [{**base, "idx": number, **row} for number, row in enumerate(rows)]


def vtimellm() -> list[dict]:
    def sample(*texts: str, **times: float) -> dict:
        turns = [{"from": ("human", "gpt")[k % 2], "value": text} for k, text in enumerate(texts)]
        token = {f"<{name}>": time_s for name, time_s in times.items()}
        return {"id": "v", "conversations": turns, "meta": {"duration": 100.0, "token": token}}

    return [
        sample("<video>\nWhen does he run?", "From <s0> to <e0>.", "What from <s1> to <e1>?", "He eats.",
               s0=3.0, e0=17.2, s1=50.0, e1=60.0),
        sample("<video>\nWhat happens?", "From <s0> to <e0>, he runs. He eats, from <s1> to <e1>.",
               s0=3.0, e0=17.2, s1=50.0, e1=60.0),
        sample("<video>\nWhen?", "It is between <s0> and <e0>, or <s1> - <e1> seconds.",
               s0=3.0, e0=17.2, s1=50.0, e1=60.0),
    ]  # fmt: skip


EVENTS = (Event(3.0, 9.5, "a man runs", "The man in red runs fast"), Event(30.0, 41.0, "he sits", "He sits down."))
PLAIN = [
    Query("events", "v", "events", events=EVENTS, duration_s=100.0),
    Query("grounding", "v", "grounding", "a man", EVENTS[:1], duration_s=100.0),
    Query("moments", "v", "grounding", "a man", (Event(3, 9), Event(50, 60)), duration_s=100.0),
    Query("dense", "v", "dense_captioning", events=EVENTS, duration_s=100.0),
    Query("segment", "v", "segment_captioning", events=EVENTS[:1], duration_s=100.0),
    Query("gqa", "v", "grounded_qa", "who runs?", EVENTS[:1], duration_s=100.0, options=("a", "b", "c"), answer=2),
    Query("qa", "v", "qa", "who runs?", duration_s=100.0, options=("a", "b", "c"), answer=2),
]


def records(name: str, folder: Path) -> list[Query]:
    """What a reader makes of a small file of its own layout."""
    if name == "plain":
        write_queries(folder / "a.jsonl", PLAIN)
        return reader("plain")(folder / "a.jsonl")[0]
    rows = {"etbench": etbench, "vtimellm": vtimellm}.get(name)
    (folder / "a.json").write_text(json.dumps(rows() if rows else et_instruct(name == "et_instruct_vid")))
    queries, dropped = reader(name.removesuffix("_vid").removesuffix("_txt"))(folder / "a.json")
    assert not dropped
    return queries


def expected(turn: Turn) -> list[Event]:
    """The events whose times an answer must give."""
    if turn.events:
        return list(turn.events)
    found = re.finditer(MARKED_SPAN, turn.answer or "")
    return [Event(turn.times[f"<s{m['span']}>"], turn.times[f"<e{m['span']}>"]) for m in found]


def check(localizer: Localizer, perfect, turn: Turn, where: str) -> None:
    rendered = localizer.render(turn, CLIP, Random(0))
    assert not re.search(r"\d\d seconds|\d.\ds seconds", f"{rendered.question} {rendered.answer}"), where
    answer, head = perfect(rendered)
    task = "grounding" if turn.task in ("dialogue", "grounded_qa", "segment_captioning", "qa") else turn.task
    query = Query("q", "v", task, "x", events=turn.events if task == "dense_captioning" else ())
    found, events = localizer.decode(query, answer, CLIP, head), expected(turn)
    if turn.task == "segment_captioning" and not isinstance(localizer, StructuralTokens):
        assert not found.spans, where
        events = []
    for event in events:
        end_s = max(event.end_s, event.start_s + 1)
        off = min(max(abs(start - event.start_s), abs(end - end_s)) for start, end, _ in found.spans)
        assert off <= (2.0 if turn.task == "dense_captioning" else 1.0), (where, rendered.answer, event, found.spans)
    if turn.task == "dense_captioning":
        said = [caption.lower() for caption in found.captions]
        assert all(any(event.caption.lower() in one for one in said) for event in events), (where, said)
    if turn.task == "segment_captioning":
        assert turn.events == () or turn.events[0].caption.lower() in answer.text.lower(), where
    if turn.answer and (option := chosen(turn.answer, 3)) is not None:
        assert chosen(answer.text, 3) == option, where


@pytest.mark.parametrize("captions", CAPTIONS)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["et_instruct_vid", "et_instruct_txt", "etbench", "vtimellm", "plain"])
def test_every_task_comes_back(tmp_path, name, way, captions):
    kind, perfect = WAYS[way]
    settings = {"rule": "argmax"} if kind is PerfectTokens else {}
    localizer = kind(captions=captions, **settings)
    writer, seen = TurnWriter("meco"), 0
    for query in records(name, tmp_path):
        for seed in range(3):
            for turn in writer.turns(query, Random(seed)):
                check(localizer, perfect, turn, f"{name} {query.id} {turn}")
                seen += 1
        for asked in () if query.task in ("events", "dialogue") else writer.asked(query):
            assert localizer.render(asked, CLIP, Random(0)).answer is None
    assert seen
