"""What a model answers to a query, read from its words."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields

from datamodules.record_schema import PREDICTION
from datamodules.strict_json import decode


@dataclass(frozen=True)
class Strip:
    """One number a frame, for pictures: the similarity map of a token, or how likely each frame is inside."""

    label: str
    scores: tuple[float, ...]
    """(T,)."""

    @classmethod
    def rounded(cls, label: str, scores: Sequence[float]) -> "Strip":
        """To a thousandth, which is more than a picture shows."""
        return cls(label, tuple(round(float(score), 3) for score in scores))


@dataclass(frozen=True)
class Prediction:
    """A model's answer to one query; one line of ``predictions.jsonl``."""

    query_id: str
    video: str
    task: str
    answer: str
    """The generated text."""
    spans: tuple[tuple[float, float, float], ...] = ()
    """(start_s, end_s, score), best first."""
    captions: tuple[str, ...] = ()
    """One a span (dense captioning)."""
    saliency: tuple[float, ...] = ()
    """One score a clip of the query's ``clip_s``, or a frame where it has none; empty if the localizer has none."""
    option: int | None = None
    """Place of the option that the answer chose, from 0. None: it named none, or the query has none."""
    rule: str | None = None
    """The reading rule that matched the answer. None: nothing could be read from it."""
    answers: tuple[str, ...] = ()
    """One a question, where several were asked one after the other; ``answer`` has them all."""
    strips: tuple[Strip, ...] = ()
    """What pictures show beside the spans; empty if the localizer has none."""
    confidence: float | None = None
    """Geometric mean of the probabilities of the answer's tokens (of its first turn), where somebody asked for it."""
    tokens: int | None = None
    """How many tokens were generated, over all turns; None: not known."""

    def to_json(self) -> str:
        """One JSON line; ``strips``, ``confidence`` and ``tokens`` are in it where there are any."""
        record = asdict(self)
        for name in ("strips", "confidence", "tokens"):
            if not record[name] and record[name] != 0:
                del record[name]
        return json.dumps(record, ensure_ascii=False)

    @classmethod
    def from_json(cls, line: str) -> "Prediction":
        """The way back; keys that a prediction does not have are left aside.

        Raises:
            ValueError: a line is no prediction.
        """
        record = decode(line)
        PREDICTION.check(record)
        known = {field.name: record[field.name] for field in fields(cls) if field.name in record}
        known["spans"] = tuple(_span(span) for span in record.get("spans", ()))
        for key in ("captions", "answers"):
            known[key] = tuple(record.get(key, ()))
        known["saliency"] = tuple(map(float, record.get("saliency", ())))
        known["strips"] = tuple(Strip(s["label"], tuple(map(float, s["scores"]))) for s in record.get("strips", ()))
        if known["captions"] and len(known["captions"]) != len(known["spans"]):
            raise ValueError(f"{len(known['captions'])} captions for {len(known['spans'])} spans")
        return cls(**known)


def _span(values: list[float]) -> tuple[float, float, float]:
    if len(values) not in (2, 3):
        raise ValueError(f"spans must be [start, end] or [start, end, score], got {values}")
    start, end, score = (*values, 1.0)[:3]
    return float(start), float(end), float(score)


def said(prediction: Prediction | None) -> list[str]:
    """The answers to the questions of a dialogue, in order."""
    return [] if prediction is None else list(prediction.answers or [prediction.answer])
