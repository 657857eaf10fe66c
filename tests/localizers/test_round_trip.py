"""Annotation -> rendered answer -> decoded spans, under every localizer: the times come back within one frame or tick.

Where a localizer reads hidden states, they are replaced by what a perfect model would say about its own targets.
"""

import re
from dataclasses import dataclass
from itertools import pairwise
from random import Random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules.clip import Clip
from datamodules.prediction import Prediction
from datamodules.schema import Event, Query, Turn
from lightning_modules.scoring import compute_metrics, new_metrics, update_metrics
from localizers import StructuralTokens, TemporalExpert, TextTimestamps
from localizers.answer import Answer
from metrics.spans import iou
from models.structural_head import StructuralHead
from models.temporal_head import HeadOutput, TemporalHead
from preparation.annotations import reader

REAL = [
    ("charades_sta", "charades_sta_test.json"),
    ("activitynet", "activitynet_captions_val_2.json"),
    ("youcook2", "youcook2_val.json"),
    ("qvhighlights", "qvhighlights_val.jsonl"),
]
FRAMES = 100


@dataclass(frozen=True)
class PerfectTokens(StructuralTokens):
    """Its maps are those of a model that has learned its targets."""

    def maps(self, answer, places, head):
        return answer.frames["maps"]


@dataclass(frozen=True)
class PerfectExpert(TemporalExpert):
    """Its head says what it was told to."""

    def _output(self, query, answer, head):
        return answer.frames["output"]


def text_spans(query: Query, turn: Turn, clip: Clip):
    localizer = TextTimestamps()
    answer = localizer.render(turn, clip, Random(0)).answer
    # The end tick of a dense caption belongs to the event, as released: half a tick of rounding and one more.
    steps = 1.5 if query.task == "dense_captioning" else 1.0
    return localizer.decode(query, Answer(answer), clip).spans, steps * clip.duration_s / localizer.ticks


def token_spans(query: Query, turn: Turn, clip: Clip):
    # With the released thresholds, short gaps belong to no token; where events share frames, one of them wins.
    apart = all(a.end_s <= b.start_s for a, b in pairwise(sorted(turn.events, key=lambda event: event.span)))
    localizer = PerfectTokens(transitions="partition", rule="argmax" if apart else "qvhighlights")
    return perfect(localizer, query, turn, clip).spans, 1 / clip.frames_per_s


def perfect(localizer: PerfectTokens, query: Query, turn: Turn, clip: Clip) -> Prediction:
    rendered = localizer.render(turn, clip, Random(0))
    order = re.findall("<ent>|<tst>", rendered.answer)
    stretches = {"<ent>": iter(rendered.targets.events), "<tst>": iter(rendered.targets.transitions)}
    maps = torch.full((len(order), clip.frames), -1.0)
    for row, token in zip(maps, order, strict=True):
        first, last = next(stretches[token])
        row[first : last + 1] = 1.0
    answer = Answer(rendered.answer, tuple(order), {"maps": maps})
    return localizer.decode(query, answer, clip, StructuralHead(4))


def expert_spans(query: Query, turn: Turn, clip: Clip):
    localizer = PerfectExpert(top=clip.frames, nms_iou=1.0)
    targets = localizer.render(turn, clip, Random(0)).targets
    foreground = torch.from_numpy(np.stack([t.foreground for t in targets]))
    centres = (torch.arange(clip.frames) + 0.5) / clip.frames
    windows = torch.from_numpy(np.stack([t.windows for t in targets]))
    offsets = (windows - centres[:, None]) * torch.tensor([-1.0, 1.0])
    output = HeadOutput(foreground * 20.0 - 10.0, offsets, torch.ones_like(foreground))
    answer = Answer("During <LOC>." * len(targets), frames={"output": output})
    return localizer.decode(query, answer, clip, TemporalHead(4)).spans, clip.duration_s / clip.frames


WAYS = {"text": text_spans, "tokens": token_spans, "expert": expert_spans}


def check(way: str, query: Query) -> int:
    duration_s = query.duration_s or max(event.end_s for event in query.events)
    clip = Clip(duration_s, FRAMES, FRAMES / duration_s)
    found, step_s = WAYS[way](query, Turn("?", task=query.task, events=query.events), clip)
    for event in query.events:
        others = [other.span for other in query.events if other != event]
        if way == "tokens" and others and iou([event.span], others).max() > 0.65:
            continue  # one of the two is suppressed
        end_s = min(event.end_s, duration_s)
        off = min(max(abs(start - event.start_s), abs(end - end_s)) for start, end, _ in found)
        # An event shorter than a frame becomes one frame around its middle, or the two that this one touches.
        short_s = max(0.0, step_s - (end_s - event.start_s))
        assert off <= step_s + short_s + 1e-6, (query.id, event, found)
    return len(query.events)


@pytest.mark.parametrize(("name", "file", "miou"), [(*REAL[0], 86.5), (*REAL[1], 92.0)])
def test_the_default_rule_loses_what_the_frame_rate_loses(real, name, file, miou):
    """Perfect maps at one frame a second: what can be reached at most, and every answer is read."""
    localizer, answered = PerfectTokens(), []
    found, _ = reader(name)(real(f"annotations/{file}"))
    moments = [query for query in found if query.task == "grounding" and query.events]
    for query in Random(0).sample(moments, 400):
        duration_s = query.duration_s or max(event.end_s for event in query.events)
        clip = Clip(duration_s, max(int(duration_s), 2), 1.0)
        answered.append((query, perfect(localizer, query, Turn("?", task="grounding", events=query.events), clip)))
    metrics = new_metrics()
    update_metrics(metrics, answered)
    scores = compute_metrics(metrics)
    assert scores["grounding/unparsed"] == 0
    assert scores["grounding/mIoU"] > miou


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("name", "file"), REAL)
def test_the_events_of_a_published_file_come_back(real, way, name, file):
    queries, _ = reader(name)(real(f"annotations/{file}"))
    described = [q for q in queries if q.task in ("grounding", "dense_captioning") and q.events]
    assert sum(check(way, query) for query in Random(0).sample(described, 150)) >= 150


spans = st.tuples(st.floats(0, 90), st.floats(0.1, 60)).map(lambda t: (t[0], min(t[0] + t[1], 100.0)))


@pytest.mark.parametrize("way", WAYS)
@settings(max_examples=60, deadline=None)
@given(span=spans)
def test_any_moment_comes_back(way, span):
    check(way, Query("q", "v", "grounding", "x", events=(Event(*span, "x"),), duration_s=100.0))
