"""What a video, an annotation and an answer are. Times are seconds from the start of the clip.

Shape suffixes: B videos, T frames, P patches, M S-tokens, D feature width.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from string import ascii_uppercase as LETTERS

import numpy as np

from datamodules.events import Event, Part
from datamodules.markup import MARKER, VIDEO, Text, Token, literal

DESCRIBED = ("dense_captioning", "segment_captioning", "events")
"""Tasks about described events."""
CHOICES = ("qa", "grounded_qa")
"""Tasks with options to choose from."""
TOLD = ("grounding", "dense_captioning", "grounded_qa")
"""Tasks whose answers are told from events."""
TASKS = ("grounding", *DESCRIBED, "dialogue", "highlights", *CHOICES)


@dataclass(frozen=True)
class Turn:
    """One question and its answer, before any localizer has written times into them.

    Plain strings are read literally: markers are tokens, and so is ``<video>`` where the question first says it. All
    else in them, and in what is filled into a ``Text``, is text whatever it looks like.

    Raises:
        ValueError: an unknown task, a marker without a time, or a time that is no number.
    """

    question: str
    """Text; times appear as markers, for example ``what happens from <s0> to <e0>?``. The video stands where the first
    question of a dialogue says ``<video>``, or else before it."""
    answer: str | None = None
    """Literal text with markers, and the localizer's token for each of ``events`` if it has one. None: the localizer
    writes the answer from ``events``."""
    task: str = "dialogue"
    events: tuple[Event, ...] = ()
    """What the answer grounds, in the order in which it names them."""
    topic: str = ""
    """What a grounding question asks for."""
    times: Mapping[str, float] = field(default_factory=dict)
    """Marker -> seconds, for the markers of this turn; there may be those of other turns beside them."""

    def __post_init__(self):
        if not isinstance(self.question, str) or not isinstance(self.answer, str | None):
            raise ValueError(f"question and answer must be text, got {self.question!r} and {self.answer!r}")
        if self.task not in TASKS:
            raise ValueError(f"unknown task {self.task!r} of a turn; known: {', '.join(TASKS)}")
        markers = re.compile("|".join([MARKER.pattern, *map(re.escape, self.times)]))
        if not isinstance(self.question, Text):
            before, video, behind = self.question.partition(VIDEO)
            asked = Text(literal(before, markers), Token(video), literal(behind, markers))
            object.__setattr__(self, "question", asked)
        if self.answer is not None:
            object.__setattr__(self, "answer", literal(self.answer, markers))
        if missing := set(filter(MARKER.fullmatch, self._tokens)) - self.times.keys():
            raise ValueError(f"marker without a time: {sorted(missing)}")
        for marker, time_s in self.named_times.items():
            if isinstance(time_s, bool) or not isinstance(time_s, (int, float)) or not math.isfinite(time_s):
                raise ValueError(f"the time of {marker} must be a finite number of seconds, got {time_s!r}")

    @property
    def _tokens(self) -> set[str]:
        return {token for text in (self.question, self.answer or Text()) for token in text.tokens} - {VIDEO}

    @property
    def named_times(self) -> dict[str, float]:
        """Of the times, those that question and answer name, in the order of ``times``."""
        return {marker: time_s for marker, time_s in self.times.items() if marker in self._tokens}


@dataclass(frozen=True)
class Query:
    """One line of an annotation file: something to ask about a video, with its answer.

    ``grounding``: find ``text``; ``events`` are the moments. ``dense_captioning``: describe all ``events``.
    ``segment_captioning``: describe the one event. ``events``: raw material for template dialogues (training only).
    ``dialogue``: the literal ``turns``. ``highlights``: how salient is each clip; ``saliency`` tells. ``qa``: choose
    the answer to ``text`` among ``options``; ``grounded_qa``: and find the ``events`` that show it.

    Raises:
        ValueError: empty id, video or text, unknown task, a field that the task lacks or must not have, or an event
            without length, that begins after ``duration_s`` or ends more than ``TOLERANCE_S`` after it.
    """

    id: str
    video: str
    task: str
    text: str = ""
    events: tuple[Event, ...] = ()
    turns: tuple[Turn, ...] = ()
    """Of a dialogue. In another task at most one: it asks the query in its own words, in place of a template's."""
    duration_s: float | None = None
    """Length of the clip that the times refer to. None: the length stored with the features."""
    options: tuple[str, ...] = ()
    answer: int | None = None
    """Place of the right option, from 0. None: it was not published."""
    saliency: tuple[tuple[float, ...], ...] = ()
    """One row a clip of ``clip_s`` seconds, from the start of the video; one score an annotator."""
    clip_s: float | None = None
    """Seconds of a clip for which a predicted saliency is wanted. None: one a frame will do."""
    source: str = ""
    """The dataset it comes from."""
    absent: bool = False
    """Of a grounding query: it is known that what it asks for does not happen; files say ``"events": []``. A query
    without events that is not absent is one whose events were not published."""
    rejected: tuple[Event, ...] = ()
    """What a worse answer says in place of ``events``, to learn the preference from (``PreferenceTuning``)."""
    part: Part | None = None
    """Where the clip lies in its file, for extraction; all other times count from its start. None: it is a file."""

    annotated = True
    """Whether its answer is known, so that a task about events has some."""
    TOLERANCE_S = 2.0
    """Published annotations overrun their videos by rounding (Charades-STA by 1.5 s); more than this is an error."""
    LENGTH_SHARE = 0.05
    """Files of one video, made anew for different sites, differ in length by this share of it at most."""

    def __post_init__(self):
        for key in ("id", "video"):
            if not isinstance(getattr(self, key), str) or not getattr(self, key):
                raise ValueError(f"{key} must be a non-empty string, got {getattr(self, key)!r}")
        if self.task not in TASKS:
            raise ValueError(f"unknown task {self.task!r}; known: {', '.join(TASKS)}")
        if self.task in ("grounding", *CHOICES) and not self.text.strip():
            raise ValueError(f"a {self.task} query needs a non-empty text")
        for event in (*self.events, *self.rejected):
            if event.start_s == event.end_s:
                raise ValueError(f"end_s must be after start_s, got {event.start_s} for both")
        if self.task == "dialogue" and not self.turns:
            raise ValueError("a dialogue needs at least one turn")
        if self.task != "dialogue" and len(self.turns) > 1:
            raise ValueError(f"task {self.task} takes one turn at most, got {len(self.turns)}")
        if self.task in DESCRIBED and not self.events and self.annotated:
            raise ValueError(f"task {self.task} needs at least one event")
        if self.task in DESCRIBED and any(not event.caption.strip() for event in (*self.events, *self.rejected)):
            raise ValueError(f"task {self.task} needs a non-empty caption for every event")
        if self.rejected and (self.task not in TOLD or self.rejected == self.events or not self.events):
            raise ValueError(f"rejected must be other events than the right ones, of a task of {', '.join(TOLD)}")
        if self.absent and (self.events or self.task != "grounding"):
            raise ValueError("only a grounding query without events can be absent")
        self._check_times()
        if self.options or self.answer is not None or self.task in CHOICES:
            self._check_options()
        if self.saliency or self.clip_s is not None or self.task == "highlights":
            self._check_saliency()
        if self.duration_s is not None:
            if not math.isfinite(self.duration_s) or self.duration_s <= 0:
                raise ValueError(f"duration_s must be positive, got {self.duration_s}")
            self.check_inside(self.duration_s)
        if self.part and abs(self.part.end_s - self.part.start_s - (self.duration_s or 0.0)) > self.TOLERANCE_S:
            raise ValueError(f"duration_s is {self.duration_s}, the part of the file {self.part.start_s}.."
                             f"{self.part.end_s} s")  # fmt: skip

    @property
    def title(self) -> str:
        """What is asked, in words for people."""
        asked = self.turns[-1].question if self.turns and not self.text else self.text
        return asked or {"dense_captioning": "Everything that happens"}.get(self.task, self.task.replace("_", " "))

    def check_inside(self, duration_s: float) -> None:
        """Raise ValueError if an event or a scored clip leaves a video of ``duration_s`` seconds."""
        for event in (*self.events, *self.rejected, *(event for turn in self.turns for event in turn.events)):
            if event.start_s >= duration_s or event.end_s > duration_s + self.TOLERANCE_S:
                raise ValueError(f"event {event.start_s}..{event.end_s} s is outside the video of {duration_s} s")
        for marker, time_s in (item for turn in self.turns for item in turn.named_times.items()):
            if time_s > duration_s + self.TOLERANCE_S:
                raise ValueError(f"time {marker} = {time_s} s is outside the video of {duration_s} s")
        if self.saliency and (len(self.saliency) - 1) * self.clip_s > duration_s + self.TOLERANCE_S:
            raise ValueError(f"{len(self.saliency)} clips of {self.clip_s} s do not fit a video of {duration_s} s")

    @property
    def timed(self) -> bool:
        """Whether it names a time, or asks for one."""
        return self.task not in ("dialogue", "qa") or any(turn.times or turn.events for turn in self.turns)

    def check_length(self, stored_s: float) -> None:
        """Raise ValueError if features of ``stored_s`` seconds are of another cut of the video, or not in seconds."""
        if self.duration_s is not None and self.differs(self.duration_s, stored_s):
            what = f"{self.duration_s:g} s in the annotation and {stored_s:g} s in the features"
            cause = "a part of its file, to be written by --clips" if self.part else "another cut of the video"
            raise ValueError(f"video {self.video!r}: {what}; {cause}, or frames for seconds?")

    @classmethod
    def differs(cls, annotated_s: float | np.ndarray, stored_s: float | np.ndarray) -> bool | np.ndarray:
        """Whether a length in an annotation is not that of a video, also of many at once."""
        return abs(annotated_s - stored_s) > np.maximum(cls.TOLERANCE_S, cls.LENGTH_SHARE * stored_s)

    @property
    def teaches(self) -> bool:
        """Whether the answer is there, so that it can be learned."""
        if self.task in CHOICES:
            return self.answer is not None
        return self.task != "highlights" and (self.task != "grounding" or bool(self.events) or self.absent)

    def clips(self, duration_s: float) -> int:
        """Number of clips for which a saliency is wanted, in a video of ``duration_s`` seconds."""
        return len(self.saliency) or max(int(duration_s // self.clip_s), 1)

    def _check_times(self) -> None:
        """Raise ValueError if a turn names a time before the video, or a window whose end is before its start."""
        for named in (turn.named_times for turn in self.turns):
            for marker, time_s in named.items():
                if time_s < 0:
                    raise ValueError(f"time {marker} = {time_s} s is before the beginning of the video")
                if (end_s := named.get(marker.replace("<s", "<e"), time_s)) < time_s:
                    raise ValueError(f"{marker} is at {time_s} s, and its end before it, at {end_s} s")

    def _check_options(self) -> None:
        """Raise ValueError if options and answer do not fit the task or each other."""
        if len(self.options) > len(LETTERS):
            raise ValueError(f"{len(self.options)} options, and only {len(LETTERS)} have a letter")
        if (self.task in CHOICES) != bool(self.options) or len(self.options) == 1:
            raise ValueError(f"task {self.task} {'needs two options or more' if self.task in CHOICES else 'has none'}, "
                             f"got options {list(self.options)}")  # fmt: skip
        if not all(isinstance(option, str) and option.strip() for option in self.options):
            raise ValueError(f"options must be non-empty strings, got {list(self.options)}")
        if self.answer is not None and not (type(self.answer) is int and 0 <= self.answer < len(self.options)):
            raise ValueError(f"answer must be the place of one of {len(self.options)} options, got {self.answer!r}")
        meant = self.options if self.answer is None else self.options[self.answer : self.answer + 1]
        alike = [option for option in meant if [o.strip() for o in self.options].count(option.strip()) > 1]
        if alike:
            raise ValueError(f"options must differ, and {alike[0]!r} is there twice")

    def _check_saliency(self) -> None:
        """Raise ValueError if saliency is missing, misplaced or no table of numbers."""
        if self.task == "highlights" and not self.saliency:
            raise ValueError("a highlights query needs saliency")
        if (self.saliency or self.clip_s is not None) and self.task not in ("highlights", "grounding"):
            raise ValueError(f"task {self.task} has no saliency")
        if self.saliency and self.clip_s is None:
            raise ValueError("saliency needs clip_s, the seconds of a clip")
        if self.clip_s is not None and not 0 < self.clip_s < math.inf:
            raise ValueError(f"clip_s must be positive, got {self.clip_s}")
        if len({len(scores) for scores in self.saliency}) > 1 or (self.saliency and not self.saliency[0]):
            raise ValueError("saliency must hold the same number of scores, one at least, for each clip")
        if not all(math.isfinite(score) for scores in self.saliency for score in scores):
            raise ValueError("saliency must be finite")


class Question(Query):
    """A query about one's own video: nothing is known of its answer."""

    annotated = False


def _finite(array: np.ndarray) -> bool:
    if array.dtype != np.float16:
        return bool(np.isfinite(array).all())
    return not ((array.view(np.uint16) & 0x7C00) == 0x7C00).any()  # the exponent is all ones; isfinite takes far longer


@dataclass(frozen=True, eq=False)
class Video:
    """Pre-extracted features of one video, or of one image (T = 1).

    Raises:
        ValueError: shapes disagree, a feature is not finite, or frame times do not increase inside the clip.
    """

    id: str
    duration_s: float
    frame_times_s: np.ndarray
    """(T,) seconds of each frame, non-decreasing."""
    features: np.ndarray
    """(T, D) float16."""
    patches: np.ndarray | None = None
    """(T, P, D_patch) float16."""
    cls_attention: np.ndarray | None = None
    """(T, P) float16, attention of the class token to each patch."""
    spatial: np.ndarray | None = None
    """(M, D) float16, S-tokens: the patches of the whole video, compressed (``datamodules.spatial_compression``)."""
    source: str = ""
    """What was decoded, for people."""
    nominal: bool = False
    """Whether ``duration_s`` is made up, because nobody knows it; then no time of the video means anything."""
    reader: str = ""
    """How it was decoded. Empty: made elsewhere, or before this was stored, with times that may be wrong."""
    sound_lead_s: float = 0.0
    """Seconds by which the sound of the file begins before its first picture, at which times begin."""

    def __post_init__(self):
        if self.features.ndim != 2 or self.features.shape[0] == 0:
            raise ValueError(f"video {self.id}: features must be (T, D) with T >= 1, got {self.features.shape}")
        frames = self.features.shape[0]
        for key in ("frame_times_s", "patches", "cls_attention"):
            value = getattr(self, key)
            if value is not None and value.shape[0] != frames:
                raise ValueError(f"video {self.id}: {key} has {value.shape[0]} rows, features have {frames}")
        if self.spatial is not None and (self.spatial.ndim != 2 or self.spatial.shape[0] == 0):
            raise ValueError(f"video {self.id}: spatial must be (M, D) with M >= 1, got {self.spatial.shape}")
        for key in ("features", "patches", "cls_attention", "spatial", "frame_times_s"):
            value = getattr(self, key)
            if value is not None and not _finite(value):
                raise ValueError(f"video {self.id}: {key} holds NaN or infinity")
        if not math.isfinite(self.duration_s) or self.duration_s < 0:
            raise ValueError(f"video {self.id}: duration_s must be finite and not negative, got {self.duration_s}")
        if (np.diff(self.frame_times_s) < 0).any() or self.frame_times_s[0] < 0:
            raise ValueError(f"video {self.id}: frame_times_s must be non-negative and non-decreasing")
