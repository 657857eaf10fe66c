"""A conversation about videos in the terminal."""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from rich.text import Text

from asking.model import Model, Said
from asking.questions import description, moment, question
from asking.videos import Footage
from command_line.tables import console, shown
from datamodules.schema import Query
from reports.exports import answer_lines, write_whole
from reports.page import Shown, write_page
from reports.results import Moments

REMEMBERED = 10
"""Questions before the present one that the model is told, with their answers; older ones would fill its context."""
HELP = """\
Ask anything about the video; earlier questions and answers are remembered.
/find TEXT      when does this happen?
/describe       all events with their times
/videos         the videos of this conversation
/video N        talk about video N from here on
/new            forget what was said about this video
/save FILE      write the answers so far: FILE.html plays them, FILE.jsonl holds them
/quit           the end (or Ctrl-D)"""


@dataclass
class Conversation:
    """What was said about each video.

    Args:
        model: that is asked.
        videos: it can be asked about; at least one.
    """

    model: Model
    videos: Sequence[Footage]
    current: int = 0
    results: list[Moments] = field(default_factory=list)
    """Every answer so far, in order."""
    said: dict[str, list[Said]] = field(default_factory=dict)
    """What was asked and answered in free words about each video since the last ``/new``."""

    @property
    def video(self) -> Footage:
        """That is talked about now."""
        return self.videos[self.current]

    def ask(self, text: str) -> Moments:
        """The answer to a question in one's own words, which may refer to what was said before.

        Raises:
            ValueError: the video cannot be read.
        """
        said = self.said.setdefault(self.video.id, [])
        query = replace(question(text), id=self._id, video=self.video.id)
        windows = list(self.model.answer(self.video, [query], said[-REMEMBERED:]))
        said.append((text, [answers[0].answer for answers in windows]))
        self.results += self.model.merge(self.video, [query], windows)
        return self.results[-1]

    def find(self, text: str) -> Moments:
        """The moments of a sentence."""
        return self._keep(moment(text))

    def describe(self) -> Moments:
        """All events."""
        return self._keep(description())

    @property
    def _id(self) -> str:
        return f"turn{len(self.results) + 1}"

    def _keep(self, query: Query) -> Moments:
        self.results += self.model.results(self.video, [replace(query, id=self._id, video=self.video.id)])
        return self.results[-1]

    def save(self, path: Path) -> None:
        """Write what was said as a page or as JSON lines.

        Raises:
            ValueError: nothing was said yet, or the name has another ending.
        """
        if not self.results:
            raise ValueError("nothing was said yet")
        if path.suffix == ".jsonl":
            write_whole(path, answer_lines(self.results))
        elif path.suffix == ".html":
            write_page(path, list(self._shown()), "A conversation", {"model": self.model.run})
        else:
            raise ValueError(f"/save takes a name that ends in .html or .jsonl, got {path.name!r}")

    def _shown(self) -> Iterator[Shown]:
        for video in self.videos:
            mine = [result for result in self.results if result.query.video == video.id]
            if mine:
                answers = tuple((result.query, result.prediction) for result in mine)
                yield Shown(video.id, mine[0].duration_s, answers, video.file)


def talk(conversation: Conversation, read: Callable[[str], str] = input) -> int:
    """Read lines until the end; gives the exit status.

    Args:
        conversation: newly begun.
        read: asks for a line; raises EOFError at the end.
    """
    if sys.stdin.isatty():
        import readline  # noqa: F401 (history and editing of the line)
    console.print(f"About {shown(conversation.video.id)}. /help says what else can be done.", markup=False)
    while True:
        try:
            line = read("> ").strip()
        except (EOFError, KeyboardInterrupt):
            console.print()
            return 0
        if line in ("/quit", "/exit"):
            return 0
        try:
            answer(conversation, line)
        except ValueError as error:
            console.print(f"! {shown(error)}", markup=False, highlight=False)


def answer(conversation: Conversation, line: str) -> None:
    """Do what one line says, and print what comes of it."""
    command, _, rest = line.partition(" ")
    rest = rest.strip()
    if not line:
        return
    if not line.startswith("/"):
        say(conversation.ask(line))
    elif command == "/find":
        say(conversation.find(rest))
    elif command == "/describe":
        say(conversation.describe())
    elif command == "/videos":
        for number, video in enumerate(conversation.videos, 1):
            mark = "*" if video is conversation.video else " "
            console.print(f"{mark} {number}  {shown(video.id)}, {video.duration_s:.1f} s", markup=False)
    elif command == "/video":
        if not rest.isdecimal() or not 1 <= int(rest) <= len(conversation.videos):
            raise ValueError(f"/video takes a number from 1 to {len(conversation.videos)}; /videos lists them")
        conversation.current = int(rest) - 1
        console.print(f"About {shown(conversation.video.id)}.", markup=False)
    elif command == "/new":
        conversation.said.pop(conversation.video.id, None)
        console.print("What was said before is forgotten.")
    elif command == "/save":
        conversation.save(Path(rest))
        console.print(f"Written: {shown(rest)}", markup=False, highlight=False)
    else:
        console.print(HELP, markup=False, highlight=False)


def say(result: Moments) -> None:
    """An answer, and its times; a click on one opens the video there, in terminals that know links."""
    console.print(shown(result.text) or "(nothing)", markup=False, highlight=False)
    for one in result.best(3):
        style = f"link {result.file.resolve().as_uri()}#t={one.start_s:.1f},{one.end_s:.1f}" if result.file else ""
        times = Text(f"  {one.start_s:.1f} to {one.end_s:.1f} s", style=style)
        console.print(times.append(f"  {shown(one.caption)}" if one.caption else ""), highlight=False)
