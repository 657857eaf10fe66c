"""A language model as judge of dialogues: what it is asked about each answer, and the number it gives.

The five dimensions are those of Video-ChatGPT's benchmark (VTimeLLM, Table 3; VideoExpert, Table IX). Its prompts are
not copied; scores of other judges or wordings are no comparison.
"""

import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from datamodules.prediction import Prediction, said
from datamodules.schema import MARKER, Query, Turn
from metrics.means import mean
from preparation.annotations.video_chatgpt import PAIRS
from preparation.captioning.endpoint import Client
from preparation.captioning.jobs import Job
from preparation.captioning.quality import Malformed
from preparation.captioning.requests import Request

WORDING = yaml.safe_load(Path(__file__).with_name("judge.yaml").read_text(encoding="utf-8"))
DIMENSIONS = tuple(WORDING["grades"])
OF_TURNS = ("correctness", "detail", "context", "temporal")
"""What is looked at in the answer to one question; ``consistency`` needs several."""
OF_SOURCE = {"video_chatgpt/generic": OF_TURNS[:3], "video_chatgpt/temporal": ("temporal",)}
"""The parts of the published benchmark that look at less; every other dialogue is graded in all that it allows."""
HIGHEST = 5
REPLY = re.compile(r"\{[^{}]*\}")
NOTHING = "(nothing)"
"""Stands for an answer without a word."""


@dataclass(frozen=True)
class Exchange:
    """One or several questions that are graded together in one dimension."""

    query_id: str
    """For messages; of a pair, without its number."""
    dimension: str
    turns: tuple[Turn, ...]
    answers: tuple[str | None, ...]
    """One a turn; None: there is no prediction."""

    @property
    def missing(self) -> bool:
        """Whether an answer is missing: then there is nothing to grade, and the score is 0."""
        return None in self.answers

    def prompt(self) -> str:
        """What the judge reads."""
        parts = []
        for number, (turn, answer) in enumerate(zip(self.turns, self.answers, strict=True), 1):
            place = f" {number}" if len(self.turns) > 1 else ""
            lines = {"Question": turn.question, "Reference answer": turn.answer, "Model's answer": answer}
            told = ((f"{what}{place}", spelled(text, turn) or NOTHING) for what, text in lines.items())
            parts.append("\n".join(f"{what}: {text}" for what, text in told))
        grade = WORDING["grades"][self.dimension]
        return WORDING["prompt"].replace("{grade}", grade).replace("{dialogue}", "\n\n".join(parts)).strip()


def spelled(text: str, turn: Turn) -> str:
    """A text with the seconds that its markers stand for, on one line."""
    return " ".join(MARKER.sub(lambda match: f"{turn.times.get(match[0], 0):.1f} s", text).split())


def exchanges(answered: Sequence[tuple[Query, Prediction | None]]) -> list[Exchange]:
    """What is to be graded of dialogues whose reference answers are known."""
    found, pairs = [], defaultdict(list)
    for query, prediction in answered:
        texts = said(prediction)
        answers = tuple(texts[k] if k < len(texts) else None for k in range(len(query.turns)))
        if query.source == f"video_chatgpt/{PAIRS}":
            pairs[query.id.rpartition(".")[0]].append((query.turns[0], answers[0]))
            continue
        for number, (turn, answer) in enumerate(zip(query.turns, answers, strict=True)):
            name = f"{query.id}, question {number + 1}" if len(query.turns) > 1 else query.id
            dimensions = OF_SOURCE.get(query.source, OF_TURNS)
            found += [Exchange(name, dimension, (turn,), (answer,)) for dimension in dimensions]
        if len(query.turns) > 1:
            found.append(Exchange(query.id, "consistency", query.turns, answers))
    found += [Exchange(name, "consistency", *zip(*pair, strict=True)) for name, pair in pairs.items()]
    return found


def judge_job(exchange: Exchange, client: Client) -> Job:
    """Ask for one grade."""
    request = Request("judge", client, exchange.prompt())
    where = f"query {exchange.query_id!r}, {exchange.dimension}"
    return Job(where, {"judge": client}, lambda ask: ask(request, read_score))


def read_score(reply: str) -> float:
    """The number of a judge's reply. Raises Malformed where it gives none from 0 to ``HIGHEST``."""
    found = REPLY.findall(reply)
    try:
        score = json.loads(found[-1])["score"]
    except (IndexError, ValueError, KeyError, TypeError, RecursionError):
        raise Malformed('no {"score": ..} in it') from None
    if isinstance(score, bool) or not isinstance(score, (int, float)) or not 0 <= score <= HIGHEST:
        raise Malformed(f"no score from 0 to {HIGHEST}", repr(score))
    return float(score)


def judged(graded: Sequence[tuple[Exchange, float]]) -> Mapping[str, float]:
    """Mean score of each dimension that was looked at, and the mean of these, from 0 to 5; and how many there were."""
    scores = {name: [score for exchange, score in graded if exchange.dimension == name] for name in DIMENSIONS}
    means = {name: mean(values) for name, values in scores.items() if values}
    counts = {f"n of {name}": len(values) for name, values in scores.items() if values}
    return means | ({"mean": mean(means.values())} if means else {}) | counts
