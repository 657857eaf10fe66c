"""The papers' rules for choosing training videos and dialogues, by name."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

from datamodules.schema import Query

Span = tuple[float, float]


@dataclass(frozen=True)
class EventRule:
    """Which videos have events that are worth asking about. All events of a video must fit, or none is taken."""

    min_events: int
    """Events must not overlap; touching is allowed."""
    longest_video_s: float | None = None
    min_event_s: float | None = None
    """Each event is longer than this."""
    mean_share: float | None = None
    """The mean event is longer than this share of the video."""
    coverage: float | None = None
    """All events together are longer than this share of the video."""

    def fault(self, duration_s: float | None, spans: Sequence[Span]) -> str:
        """Why a video is not taken; empty if it is."""
        spans = sorted(spans)
        lengths_s = [end_s - start_s for start_s, end_s in spans]
        if duration_s is None:
            return "duration not known"
        if self.longest_video_s and duration_s > self.longest_video_s:
            return f"video longer than {self.longest_video_s:g} s"
        if len(spans) < self.min_events:
            return f"fewer than {self.min_events} events"
        if any(first[1] > second[0] for first, second in zip(spans, spans[1:], strict=False)):
            return "events overlap"
        if self.min_event_s and min(lengths_s) <= self.min_event_s:
            return f"an event not longer than {self.min_event_s:g} s"
        if self.mean_share and sum(lengths_s) / len(spans) <= self.mean_share * duration_s:
            return f"mean event not longer than {self.mean_share:.0%} of the video"
        if self.coverage and sum(lengths_s) <= self.coverage * duration_s:
            return f"events cover not more than {self.coverage:.0%} of the video"
        return ""

    def __call__(self, queries: Sequence[Query]) -> tuple[list[Query], Counter[str]]:
        """The queries of the videos that are taken, and how many queries were left out for each reason.

        A video's events are the different spans of all its queries.
        """
        spans: dict[str, set[Span]] = defaultdict(set)
        durations_s: dict[str, float] = {}
        for query in queries:
            spans[query.video] |= {event.span for event in _events(query)}
            if query.duration_s is not None:
                durations_s[query.video] = query.duration_s
        faults = {video: self.fault(durations_s.get(video), list(spans[video])) for video in spans}
        kept = [query for query in queries if not faults[query.video]]
        return kept, Counter(faults[query.video] for query in queries if faults[query.video])


def answers(queries: Sequence[Query], words: int) -> tuple[list[Query], Counter[str]]:
    """Videos of 5 to 350 s with answers of ``words`` words at most; and how many queries were left out for each reason.

    Source: the ``train.py`` of E.T. Chat and of MeCo.
    """
    faults = [_answer_fault(query, words) for query in queries]
    kept = [query for query, fault in zip(queries, faults, strict=True) if not fault]
    return kept, Counter(fault for fault in faults if fault)


def _answer_fault(query: Query, words: int) -> str:
    texts = [text for event in _events(query) for text in (event.caption, event.detail)]
    if literal := [turn.answer for turn in query.turns if turn.answer is not None]:
        texts = literal
    if query.duration_s is None:
        return "duration not known"
    if not 5 <= query.duration_s <= 350:
        return "video not within 5 to 350 s"
    return f"answer longer than {words} words" if sum(len(text.split()) for text in texts) > words else ""


def _events(query: Query):
    return (*query.events, *(event for turn in query.turns for event in turn.events))


FILTERS: Mapping[str, Callable[[Sequence[Query]], tuple[list[Query], Counter[str]]]] = MappingProxyType(
    {
        "vtimellm_stage2": EventRule(2, longest_video_s=120, min_event_s=3, mean_share=0.08),
        "vtimellm_stage3_activitynet": EventRule(3, coverage=0.9),
        "vtimellm_stage3_didemo": EventRule(2, coverage=0.4),
        "etchat": partial(answers, words=200),
        "meco": partial(answers, words=500),
    }
)
"""Name -> rule. Sources: VTimeLLM, sections 3.2 and 3.3; the released code and scripts of E.T. Chat and MeCo."""


def select(name: str, queries: Sequence[Query]) -> tuple[list[Query], Counter[str]]:
    """The queries that a paper's rule takes, and how many it left out for each reason (``NAME: reason``).

    Raises:
        ValueError: there is no such rule.
    """
    if name not in FILTERS:
        raise ValueError(f"unknown filter {name!r}; known: {', '.join(FILTERS)}")
    kept, counts = FILTERS[name](queries)
    return kept, Counter({f"{name}: {reason}": count for reason, count in counts.items()})
