"""The work of ask.py: questions and videos in, answers, a page and clips out."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from asking.features import CACHE
from asking.questions import about, description, from_file, moment, question
from asking.videos import Footage, cost, find_videos
from asking.windows import Windows
from command_line import tables
from command_line.progress import Bar
from command_line.tables import console, print_written, shown
from datamodules.schema import Query
from models.generation import GenerationChange
from reports.clips import clip_name, cut
from reports.exports import SUBTITLES, answer_lines, moments_csv, subtitles, write_whole
from reports.page import Shown, write_page
from reports.results import Moments, answers_table


@dataclass(frozen=True)
class Asked:
    """What was asked for on the command line.

    Raises:
        ValueError: nothing is asked, there is no video, or options do not fit each other.
    """

    checkpoint: Path
    videos: Path
    moments: tuple[str, ...] = ()
    questions: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    describe: bool = False
    queries: Path | None = None
    output: Path = Path("runs/ask")
    html: Path | None = None
    embed: bool = False
    reencode: bool = False
    cut: Path | None = None
    subtitles: str | None = None
    top: int = 3
    llm: str | None = None
    encoder: str | None = None
    dtype: str | None = None
    quantization: str | None = None
    generation: GenerationChange = field(default_factory=GenerationChange)
    localizer: dict[str, Any] | None = None
    windows: Windows = field(default_factory=Windows)
    cache: Path | None = CACHE

    def __post_init__(self):
        if self.choices and len(self.choices) != len(self.questions):
            raise ValueError(
                f"{len(self.choices)} --choices for {len(self.questions)} --question: give each question its choices, "
                "'' for none"
            )
        if self.html and self.html.suffix.lower() not in (".html", ".htm"):
            raise ValueError(f"--html {self.html}: the name of a page ends in .html; put --html behind the questions")
        if self.top < 1:
            raise ValueError(f"--top must be at least 1, got {self.top}")

    def asked(self, videos: Sequence[str]) -> dict[str, list[Query]]:
        """The queries about each video.

        Raises:
            ValueError: a question is empty, the file of queries cannot be used, or there is no question at all.
        """
        choices = self.choices or ("",) * len(self.questions)
        plain = [moment(text) for text in self.moments]
        plain += [question(text, options) for text, options in zip(self.questions, choices, strict=True)]
        plain += [description()] if self.describe else []
        queries = about(plain, videos)
        if self.queries:
            for video, found in from_file(self.queries, videos).items():
                queries[video] += found
        if not any(queries.values()):
            raise ValueError("nothing is asked: give a moment to find, --question, --describe, --queries or --chat")
        return queries

    @property
    def page(self) -> Path:
        """Where the page goes."""
        return self.html or self.output / "page.html"

    def model(self):
        """The model that is asked; torch and transformers are imported here and not before."""
        from transformers.utils import logging

        from asking.model import Model

        logging.disable_progress_bar()
        logging.set_verbosity_error()
        warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
        arguments = (self.checkpoint, self.llm, self.encoder, self.dtype, self.generation, self.windows, self.cache)
        with console.status("loading the model"):
            model = Model(*arguments, self.quantization, self.localizer)
            model.load()
        return model


def ask(asked: Asked) -> int:
    """Ask, print and write; see ask.py for the exit status."""
    videos, problems = find_videos(asked.videos, asked.windows)
    queries = asked.asked([video.id for video in videos])
    for problem in problems:
        complain(problem)
    for folder in filter(None, (asked.output, asked.cut)):
        folder.mkdir(parents=True, exist_ok=True)
    model = asked.model()
    for line in cost(videos, model.sampling, max(map(len, queries.values()))):
        console.print(shown(line), markup=False, highlight=False)
    results, failed = answer_all(model, videos, queries)
    if not results:
        return 2
    console.print(answers_table(results, asked.top), markup=False, highlight=False)
    print_written(*write_results(asked, videos, results))
    return 1 if problems or failed else 0


def complain(problem: str) -> None:
    """Say on one line of the error output what was left out."""
    tables.complain("ask.py", f"left out: {problem}")


def answer_all(model, videos: Sequence[Footage], queries: dict[str, list[Query]]) -> tuple[list[Moments], int]:
    """The answers about each video that can be read, and how many could not be."""
    results, failed = [], 0
    with Bar("answering", sum(len(video.windows) for video in videos)) as bar:
        for video in videos:
            if not queries[video.id]:
                bar.advance(len(video.windows))
                continue
            windows = []
            try:
                for answers in model.answer(video, queries[video.id]):
                    windows.append(answers)
                    bar.advance()
            except ValueError as error:
                bar.advance(len(video.windows) - len(windows))
                complain(str(error))
                failed += 1
                continue
            results += model.merge(video, queries[video.id], windows)
    return results, failed


def write_results(asked: Asked, videos: Sequence[Footage], results: Sequence[Moments]) -> list[Path]:
    """Write answers, page, subtitles and clips; gives what was written."""
    write_whole(asked.output / "answers.jsonl", answer_lines(results))
    write_whole(asked.output / "answers.csv", moments_csv(results))
    by_video = {video.id: [result for result in results if result.query.video == video.id] for video in videos}
    seen = [
        Shown(video.id, mine[0].duration_s, tuple((one.query, one.prediction) for one in mine), video.file)
        for video in videos
        if (mine := by_video[video.id])
    ]
    write_page(asked.page, seen, "Answers", {"model": asked.checkpoint}, asked.embed, asked.reencode)
    written = [asked.page, asked.output / "answers.jsonl", asked.output / "answers.csv"]
    if asked.subtitles:
        for video, mine in by_video.items():
            path = asked.output / f"{Path(video).name}.{asked.subtitles}"
            write_whole(path, SUBTITLES[asked.subtitles](subtitles(mine)))
            written.append(path)
    if asked.cut:
        write_clips(asked.cut, results)
        written.append(asked.cut)
    return written


def write_clips(folder: Path, results: Sequence[Moments]) -> None:
    """The best moment of each answer, and all events of a description, as files."""
    wanted = [(result, one) for result in results for one in result.best(1) if one.end_s > one.start_s]
    with Bar("cutting", len(wanted)) as bar:
        for result, one in wanted:
            name = clip_name(result.query.video, one.start_s, one.end_s, one.caption or result.query.title)
            cut(result.file, folder / name, one.start_s, one.end_s)
            bar.advance()
