"""Times in lists, objects and tables: JSON as it should be, as models write it, and Markdown."""

import json
import re
from collections.abc import Callable, Iterator, Mapping

from metrics.benchmarks.reading.negations import NOTHING
from metrics.benchmarks.reading.ranges import Found
from metrics.benchmarks.reading.vocabulary import listed

DEEPEST = 20
"""Brackets in brackets; no list of times needs more."""
OPENERS = {"[": "]", "{": "}", "(": ")"}
CLOSERS = {closer: opener for opener, closer in OPENERS.items()}
NOT_A_WORD = re.compile(r"[^a-z]")
STARTS = frozenset(
    listed("""
    start starttime starts starting startsec startsecs startsecond startseconds startms from begin begintime beginning
    beginsec tstart timestart startts onset startminutes startmin startstr startpoint starttimestamp st s t0 t1
""")
)
ENDS = frozenset(
    listed("""
    end endtime ends ending endsec endsecs endsecond endseconds endms to until finish finishtime stop stoptime tend
    timeend endts offset endminutes endmin endstr endpoint endtimestamp ed e
""")
)
LENGTHS = frozenset(listed("duration length durations lengths durationsec durationseconds"))
SKIPPED = frozenset(
    listed("""
    confidence score scores probability id idx index label labels description caption captions reason reasoning
    explanation query question eventid title text name category type fps frames frame videoduration count total number
    thought thinking evidence option choice
""")
)
TIMELY = listed("time span window segment interval moment range answer result stamp prediction event second")
UNIT_ENDINGS = {"ms": 0.001, "minutes": 60.0, "minute": 60.0, "min": 60.0}
QUOTED_KEYS = re.compile(r"([{,]\s*)([a-z_][\w ]{0,30}?)\s*:")
UNQUOTED = re.compile(r"(?<=[\[,:(])\s*(?=[^\s\[\](){},:\"'])([^\[\](){},\"'\n]{1,40}?)\s*(?=[\],})])")
NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?")
CELLS = re.compile(r"\s*[|\t;,]\s*")
RULER = re.compile(r"[\s|:+-]*")

TimeOf = Callable[[str], float | None]
"""Reads a text that is one time, in seconds; None for any other text."""
WindowsOf = Callable[[str], list]
"""Reads the windows of a text."""


def segments(text: str) -> Iterator[str]:
    """The parts of a text between outermost brackets that close, from left to right, in linear time."""
    stack: list[tuple[str, int]] = []
    closed: list[tuple[int, int]] = []
    for i, character in enumerate(text):
        if character in OPENERS:
            stack.append((character, i))
        elif character in CLOSERS:
            while stack and stack[-1][0] != CLOSERS[character] and len(stack) > 1:
                stack.pop()
            if stack and stack[-1][0] == CLOSERS[character]:
                start = stack.pop()[1]
                while closed and closed[-1][0] > start:
                    closed.pop()
                closed.append((start, i + 1))
    return (text[start:end] for start, end in closed)


def deep(text: str) -> bool:
    """True for more nested brackets than any list of times has."""
    depth = deepest = 0
    for character in text:
        depth += (character in OPENERS) - (character in CLOSERS)
        deepest = max(deepest, depth)
    return deepest > DEEPEST


def decoded(segment: str) -> object:
    """The value of a bracketed text, JSON or nearly so.

    Raises:
        ValueError: it is no list or object.
    """
    if deep(segment):
        raise ValueError("nested too deep")
    try:
        return json.loads(segment)
    except ValueError:
        pass
    text = segment.replace("(", "[").replace(")", "]").replace("'", '"')
    text = re.sub(r",(\s*[\]}])", r"\1", text)
    text = QUOTED_KEYS.sub(r'\1"\2":', text)
    text = UNQUOTED.sub(quoted, text)
    return json.loads(text)


def quoted(match: re.Match) -> str:
    """A value as JSON: numbers and null as they are, any other word in quotation marks."""
    word = match[1]
    if word in ("none", "nan", "nil", "null", "undefined"):
        return "null"
    if NUMBER.fullmatch(word):
        return json.dumps(float(word))
    return word if word in ("true", "false") else json.dumps(word)


class ListReader:
    """Makes windows of a decoded value.

    Args:
        time_of: reads one time from text.
        windows_of: reads windows from text.
    """

    def __init__(self, time_of: TimeOf, windows_of: WindowsOf):
        self.time_of, self.windows_of = time_of, windows_of
        self.points: list[float] = []
        self.empty = False
        """An empty list or a null stands where times should be."""

    def time(self, value: object) -> float | None:
        """A number or a text that is one time, in seconds."""
        if isinstance(value, bool):
            return None
        if isinstance(value, (int, float)):
            return float(value) if abs(value) < 1e9 else None
        return self.time_of(value) if isinstance(value, str) and len(value) < 60 else None

    def windows(self, value: object, named: bool = False) -> list[tuple[float, float]]:
        """The windows of a value, in order.

        Args:
            value: a decoded list, object, text or number.
            named: it stands under a name that is not known to hold times.
        """
        if isinstance(value, Mapping):
            return self.of_object(value)
        if isinstance(value, list):
            return self.of_list(value)
        if value is None or isinstance(value, str) and NOTHING.fullmatch(value):
            self.empty = True
        if isinstance(value, str) and not named:
            return self.windows_of(value)
        if not named and (time := self.time(value)) is not None:
            self.points.append(time)
        return []

    def of_list(self, value: list) -> list[tuple[float, float]]:
        """A pair of times, a flat list of pairs, or a list of windows."""
        if not value:
            self.empty = True
            return []
        if any(isinstance(item, (list, Mapping)) for item in value):
            inner = (item for item in value if isinstance(item, (list, Mapping)))
            return [window for item in inner for window in self.windows(item)]
        times = [self.time(item) for item in value]
        if all(item is None for item in value):
            self.empty = True
            return []
        scored = len(value) == 3 and times[2] is not None and 0 <= times[2] <= 1 and not isinstance(value[2], str)
        if len(value) > 2 and None not in times[:2] and (scored or times[2] is None):
            times = times[:2]  # start, end, and a score or a caption
        if None not in times and len(times) % 2 == 0:
            return [(times[i], times[i + 1]) for i in range(0, len(times), 2)]
        texts = [window for item in value if isinstance(item, str) for window in self.windows_of(item)]
        if not texts and len(times) == 1 and times[0] is not None:
            self.points.append(times[0])
        return texts

    def of_object(self, value: Mapping) -> list[tuple[float, float]]:
        """Start and end by their names; else the windows of what it holds."""
        if not value:
            self.empty = True
        parts: dict[str, object] = {}
        for name, item in value.items():
            kind, factor = role(name)
            if kind and kind not in parts and not isinstance(item, (list, Mapping)):
                time = self.time(item)
                parts[kind] = time * factor if time is not None and not isinstance(item, str) else time
        start, end = parts.get("start"), parts.get("end")
        if start is not None and end is None and parts.get("length") is not None:
            end = start + parts["length"]
        if start is not None and end is not None:
            return [(start, end)]
        if start is not None and "end" not in parts:
            self.points.append(start)
        self.empty |= "start" in parts and start is None
        inner = ((name, item) for name, item in value.items() if plain_name(name) not in SKIPPED)
        found = [window for name, item in inner for window in self.windows(item, is_named(name))]
        if not found and not self.points:
            found = [window for name in value for window in self.windows_of(str(name))]
        return found


def plain_name(name: object) -> str:
    """A key in small letters, without marks and digits."""
    return NOT_A_WORD.sub("", str(name).lower())


def is_named(name: object) -> bool:
    """True for a key that is not about time, so that a text or a number under it is not read."""
    plain = plain_name(name)
    return bool(plain) and not any(word in plain for word in TIMELY)


def role(name: object) -> tuple[str | None, float]:
    """start, end or length, and the seconds of its unit, from a key such as ``start_ms``."""
    pieces = [piece for piece in re.split(r"[^a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", str(name)).lower()) if piece]
    factor = UNIT_ENDINGS.get(pieces[-1], 1.0) if len(pieces) > 1 else 1.0
    plain = plain_name(name)
    shorter = "".join(pieces[:-1]) if factor != 1.0 else plain
    for kind, names in (("start", STARTS), ("end", ENDS), ("length", LENGTHS)):
        if plain in names or shorter in names:
            return kind, factor
    return None, factor


def read_lists(text: str, reader: ListReader) -> Found:
    """The windows of all lists and objects in a text, in order."""
    windows = []
    for segment in segments(text):
        try:
            value = decoded(segment)
        except (ValueError, RecursionError):
            continue
        if segment[0] == "(" and not (isinstance(value, list) and any(character in segment for character in ",;")):
            continue
        windows += reader.windows(value)
    return Found(windows, "json", list(reader.points)) if windows else Found(points=list(reader.points))


def read_table(text: str, time_of: TimeOf) -> Found:
    """The rows of a table whose head names a start and an end column."""
    windows: list[tuple[float, float]] = []
    columns: tuple[int, int] | None = None
    for line in text.split("\n"):
        cells = CELLS.split(line.strip().strip("|").strip()) if len(line) < 2000 else []
        if len(cells) < 2 or RULER.fullmatch(line):
            continue
        if columns is None:
            kinds = [role(re.sub(r"\(.*?\)", "", cell))[0] for cell in cells]
            if kinds.count("start") == 1 and kinds.count("end") == 1 and not re.search(r"\d", line):
                columns = kinds.index("start"), kinds.index("end")
            continue
        times = [time_of(cells[i]) if i < len(cells) else None for i in columns]
        if None not in times:
            windows.append((times[0], times[1]))
    return Found(windows, "table") if windows else Found()
