"""Times as tokens of their own, one for each step of the video: Grounded-VideoLLM, Vid2Seq, OmniVid."""

import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from random import Random
from typing import ClassVar, Literal

from torch import nn

from datamodules.clip import Clip
from datamodules.markup import VIDEO, Text, Token, any_of, fill, join, literal
from datamodules.rendered import Rendered, Unsayable
from datamodules.schema import Query, Turn
from datamodules.turns import sentence
from localizers.answer import Answer
from localizers.written_spans import BETWEEN, Found, WrittenSpans, capital

ASKS_WHEN = "<timestamp_grounding>"
"""Of Grounded-VideoLLM: stands in a question whose answer names times."""
TAG = re.compile(r"</?\w+>")
"""Pattern of what stands around an event in a wording."""
COUNTER = "<counter_{}>"
WHEN = ("grounding", "highlights", "grounded_qa", "dense_captioning")
"""Tasks that are answered with times."""


@dataclass(frozen=True)
class TimeTokens(WrittenSpans):
    """A time is ``floor((count - 1) * t / duration)``, a token of that number; it is read as the beginning of its step.

    The defaults are Grounded-VideoLLM's (Wang et al., 2024, section 3.3). Vid2Seq (Yang et al., 2023): count 100, name
    ``<time={}>``, span ``{start} {end}``, event ``{span} {caption}``, mark_questions false, normalise_rows true.
    OmniVid (Wang et al., 2024): count 300, name ``<time_bin_{}>``, span ``{start}{end}``,
    event ``<event>{span}{caption}</event>``, mark_questions false; for its boundaries span ``{start}``.

    Raises:
        ValueError: there are fewer than two tokens, a wording lacks a place, or settings do not go together.
    """

    decoding: ClassVar[tuple[str, ...]] = ("legacy",)
    rule: ClassVar[str] = "time tokens"

    count: int = 301
    """Tokens; the last is the end of the video."""
    name: str = "<{}>"
    """Of a token, with a place for its number."""
    wording: str = "from {start} to {end}"
    """Of a span. Without ``{end}`` an event is told by its start alone: read from a dense caption, it lasts until the
    next one, else for a step."""
    event_wording: str = "{span}, {caption}"
    """Of an event in a dense caption."""
    rounding: Literal["floor", "nearest"] = "floor"
    """As released, both ends are early by up to a step; to the nearest step they are off by half of one."""
    order: Literal["start_end", "centre_length"] = "start_end"
    """What the two tokens of a span are."""
    counters: int = 0
    """Tokens ``<counter_0>``, ``<counter_1>``, .. with which a dense caption says first how many events there are, and
    numbers them (OmniVid); 0: it does not."""
    mark_questions: bool = True
    """Put ``<timestamp_grounding>`` into questions whose answers name times."""
    normalise_rows: bool = False
    """After every step, scale the tokens' rows to the mean length of the others (Vid2Seq)."""
    legacy: Literal["", "grounded_videollm", "vid2seq", "omnivid"] = ""
    """Write and read as the released code does: negative times are no token or another's; Vid2Seq drops spans that are
    empty or reversed; OmniVid begins an empty span a step earlier and rounds to hundredths of a second."""

    def __post_init__(self):
        if self.count < 2:
            raise ValueError(f"count must be 2 or more, so that a video has a beginning and an end; got {self.count}")
        needed = {"name": ("{}",), "wording": ("{start}",), "event_wording": ("{span}", "{caption}")}
        for setting, places in needed.items():
            if missing := [place for place in places if place not in getattr(self, setting)]:
                raise ValueError(f"{setting} {getattr(self, setting)!r} has no {' and no '.join(missing)}")
        if self.points and self.order == "centre_length":
            raise ValueError(f"order centre_length needs two tokens, and wording {self.wording!r} has no {{end}}")
        if self.counters and not TAG.search(self.event_wording):
            raise ValueError(f"counters would belong to captions: event_wording {self.event_wording!r} needs tags")

    @property
    def special_tokens(self) -> tuple[str, ...]:
        """The times, the tags of events, the counters, and what marks questions."""
        more = *TAG.findall(self.event_wording), *map(COUNTER.format, range(self.counters))
        return (*map(self.name.format, range(self.count)), *more, *([ASKS_WHEN] if self.mark_questions else []))

    @property
    def points(self) -> bool:
        """Whether an event is told by its start alone."""
        return "{end}" not in self.wording

    def number(self, time_s: float, duration_s: float) -> int:
        """The number of a time's token.

        Raises:
            ValueError: the video has no length; with ``legacy`` of Vid2Seq, a time two steps behind its end.
        """
        if duration_s <= 0:
            raise ValueError(f"a video of {duration_s} s has no steps to name")
        last = self.count - 1
        steps = min(time_s, duration_s) / duration_s * last if self.legacy == "omnivid" else last * time_s / duration_s
        number = round(steps) if self.rounding == "nearest" else int(steps)
        if self.legacy == "vid2seq":
            if number > self.count:
                raise ValueError(f"time {time_s} s is behind the end of the video of {duration_s} s")
            return number
        if number < 0 and not self.legacy:
            warnings.warn(f"time {time_s} s is before the start of the video; written as its start", stacklevel=2)
            number = 0
        return min(number, last)

    def seconds(self, number: int, duration_s: float) -> float:
        """The time of a token."""
        if self.legacy == "grounded_videollm":
            return duration_s * number / (self.count - 1)
        time_s = number * duration_s / (self.count - 1)
        return round(time_s, 2) if self.legacy == "omnivid" else time_s

    def token(self, time_s: float, clip: Clip) -> Token:
        """The token of a time; with ``legacy``, a name that is no token where there is none."""
        number = self.number(clip.even_s(time_s), clip.duration_s)
        name = self.name.format(number)
        return Token(name) if 0 <= number < self.count else name

    def time(self, time_s: float, clip: Clip) -> Text:
        """One token."""
        return Text(self.token(time_s, clip))

    def span(self, start_s: float, end_s: float, clip: Clip) -> Text:
        """Two tokens: start and end, or centre and length."""
        first, second = start_s, end_s
        if self.order == "centre_length":
            first, second = (start_s + end_s) / 2, end_s - start_s
        return fill(self.wording, {"start": self.token(first, clip), "end": self.token(second, clip)})

    def event(self, span: Text, caption: str) -> Text:
        """As ``event_wording`` says, the caption with a full stop."""
        values = {"{span}": span, "{caption}": sentence(f",{caption}")[1:]}
        pieces = re.split(r"(\{span\}|\{caption\})", self.event_wording)
        return capital(
            Text(
                *(values[piece] if piece in values else literal(piece, any_of(TAG.findall(piece))) for piece in pieces)
            )
        )

    def description(self, spans: Sequence[Text], texts: Sequence[str]) -> Text:
        """Events one after another, with their number in front where they are counted.

        Raises:
            Unsayable: there are more events than counters.
        """
        if not self.counters:
            return super().description(spans, texts)
        if len(spans) >= self.counters:
            raise Unsayable(
                f"turn left out: {self.counters} events or more, and TimeTokens counts to {self.counters - 1}"
            )
        told = map(self.event, spans, texts)
        numbered = (Text(Token(COUNTER.format(number)), event) for number, event in enumerate(told))
        lead = Text("There are ", Token(COUNTER.format(len(spans))), " events in the given video. ")
        return Text(lead, join(" ", numbered))

    def render(self, turn: Turn, clip: Clip, random: Random) -> Rendered:
        """Also marks questions whose answers name times."""
        rendered = super().render(turn, clip, random)
        names = rendered.answer is not None and any(map(self._pattern.fullmatch, rendered.answer.tokens))
        asks = turn.task == "grounding" or (rendered.answer is None and turn.task in WHEN)
        if not (self.mark_questions and (names or asks)):
            return rendered
        before, *behind = rendered.question.part(VIDEO)
        mark = (Text(before, Token(VIDEO), " "), *behind) if behind else (before,)
        question = Text(*mark[:-1], Token(ASKS_WHEN), "" if behind else "\n", mark[-1])
        return replace(rendered, question=question)

    @property
    def _pattern(self) -> re.Pattern:
        return re.compile(re.escape(self.name).replace(re.escape("{}"), r"(\d+)"))

    def find(self, query: Query, answer: Answer, clip: Clip, head: nn.Module | None) -> list[Found]:
        """Each two tokens with nothing but a word between them."""
        if self.legacy == "vid2seq":
            return [*self._released_events(answer.text, clip)]
        tokens = [match for match in self._pattern.finditer(answer.text) if int(match[1]) < self.count]
        if self.points:
            return [*self._points(query, answer.text, tokens, clip)]
        found, number = [], 0
        while number < len(tokens) - 1:
            first, second = tokens[number : number + 2]
            number += 1
            if BETWEEN.fullmatch(answer.text, first.end(), second.start()):
                ends = map(clip.true_s, self.read_span(int(first[1]), int(second[1]), clip.duration_s))
                found.append(Found(first.start(), second.end(), *ends, caption=self._tagged(answer.text, second.end())))
                number += 1
        return found

    def _points(self, query: Query, text: str, tokens: Sequence[re.Match], clip: Clip) -> Iterator[Found]:
        """Of events that are told by their start: until the next one in a dense caption, else one step long."""
        dense, numbers = query.task == "dense_captioning", [int(token[1]) for token in tokens]
        for token, number, behind in zip_longest(tokens, numbers, tokens[1:]):
            last = min((other for other in numbers if other > number), default=self.count - 1) if dense else number + 1
            first = min(number, self.count - 2)  # of the end of the video, the last step
            ends = (clip.true_s(self.seconds(each, clip.duration_s)) for each in (first, last))
            caption = self._tagged(text[: behind.start() if behind else None], token.end())
            yield Found(token.start(), token.end(), *ends, caption=caption)

    def _tagged(self, text: str, begin: int) -> str | None:
        """What stands before the closing tag of an event; None: events have no tags."""
        tags = TAG.findall(self.event_wording)
        return text[begin:].partition(tags[-1])[0].strip() if tags else None

    def read_span(self, first: int, second: int, duration_s: float) -> tuple[float, float]:
        """Start and end of two tokens. Of two that are the same, the step that they name; reversed ones are swapped."""
        if self.order == "centre_length":
            first, second = first - second / 2, first + second / 2
        elif first == second:
            first, second = self._one_step(first)
        ends = [min(max(self.seconds(each, duration_s), 0.0), duration_s) for each in sorted((first, second))]
        return tuple(round(end, 2) for end in ends) if self.legacy == "omnivid" else tuple(ends)

    def _one_step(self, number: int) -> tuple[int, int]:
        if self.legacy == "grounded_videollm":
            return number, number
        if self.legacy == "omnivid":
            return max(number - 1, 0), number
        return min(number, self.count - 2), min(number + 1, self.count - 1)

    def _released_events(self, text: str, clip: Clip) -> Iterator[Found]:
        """Of Vid2Seq: two pieces between blanks that begin with a time, and the words until the next two."""
        pieces = [*re.finditer(r"\S+", text)]
        times = [self._pattern.match(piece[0]) for piece in pieces]
        pairs = [number for number in range(len(pieces) - 1) if times[number] and times[number + 1]]
        for pair, following in zip(pairs, [*pairs[1:], len(pieces)], strict=False):
            start_s, end_s = (self.seconds(int(times[number][1]), clip.duration_s) for number in (pair, pair + 1))
            words = " ".join(piece[0] for piece in pieces[pair + 2 : following])
            if words and end_s > start_s:
                place = pieces[pair].start(), pieces[pair + 1].end()
                yield Found(*place, clip.true_s(start_s), clip.true_s(end_s), caption=words)
