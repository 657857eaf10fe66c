"""Ask a model behind an OpenAI-compatible address (vLLM, transformers serve, a provider) about videos, and score it."""

import platform
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jsonargparse.typing import PositiveFloat, PositiveInt

from command_line.paths import check_there
from command_line.tables import console
from datamodules.names import VideoNames
from datamodules.query_files import read_queries
from datamodules.schema import Query
from datamodules.skips import OnError, SkippedFiles
from evaluation.questions import DecodingError, Look, Question, read_prompts
from evaluation.score import check_output, show, write
from metrics.benchmarks.answers import Parsed, parse_report
from metrics.benchmarks.benchmarks import score
from preparation.captioning.cache import Answer, AnswerCache
from preparation.captioning.endpoint import Client, Endpoint, Unanswered
from preparation.captioning.pipeline import sources_by_id
from preparation.captioning.planning import progress_bar
from preparation.features.decoding import Sampling


def served(
    queries: Path,
    videos: Path,
    url: str | None = None,
    model: str | None = None,
    output: Path = Path("runs/served"),
    sampling: str = "uniform 32",
    size: PositiveInt = 448,
    prompts: Path | None = None,
    options: dict[str, Any] = {"max_tokens": 1024, "temperature": 0.0},  # noqa: B006 (never changed)
    key_variable: str = "OPENAI_API_KEY",
    requests_per_minute: PositiveInt | None = None,
    timeout_s: PositiveFloat = 300.0,
    concurrency: PositiveInt = 4,
    on_error: OnError = "fail",
) -> None:
    """Ask a served model every query of a file, with frames and their true times, and score the answers.

    Every answer is kept as it comes, with all that was asked, in OUTPUT/requests.jsonl: a run that was stopped goes on
    when its command is given again, and asks nothing twice. Meanwhile ``evaluate.py score --benchmark queries
    --partial true --predictions OUTPUT --annotations QUERIES`` scores what is there.

    Args:
        queries: annotation file; grounding, dense_captioning, qa and grounded_qa are asked.
        videos: folder or list of the video files.
        url: base address of the server, ending in /v1; default: OPENAI_BASE_URL, or else OpenAI's own.
        model: name of the model, as its server knows it; default: the only one that the server lists.
        output: folder for predictions.jsonl, metrics.json, rows.csv and requests.jsonl.
        sampling: which frames are shown, "uniform 32" or "1.0 fps", see ``prepare.py features``.
        size: longer side of a frame in pixels.
        prompts: a YAML file with wordings for some tasks, in place of those in evaluation/prompts.yaml.
        options: fields of the request, such as temperature; a model that samples gives other answers in another run.
        key_variable: the environment variable that holds the API key; the key is written nowhere.
        requests_per_minute: rate limit.
        timeout_s: seconds to wait for one answer.
        concurrency: videos asked about at the same time.
        on_error: skip: queries that get no answer are counted as missing, which scores 0; fail: the first one ends it.
    """
    check_there(queries=queries, videos=videos)
    check_output(output)
    endpoint = Endpoint(model or "", url, key_variable, requests_per_minute, timeout_s, options)
    stop = threading.Event()
    client = Client(endpoint, stop)
    if model is None:
        client.endpoint = endpoint = named(client, endpoint)
    asked = list(read_queries(queries))
    output.mkdir(parents=True, exist_ok=True)
    skips = SkippedFiles(on_error, output / "skipped.jsonl")
    groups = questions(asked, videos, endpoint, Sampling.parse(sampling), size, prompts, skips)
    with closing(AnswerCache(output / "requests.jsonl")) as cache:
        run = Run(client, cache, skips, output)
        run.ask(groups, concurrency, stop)
    report = score("queries", output / "predictions.jsonl", queries)
    shown = {"sampling": sampling, "size": size, "times": "in front of each frame, in seconds"}
    report["protocol"] |= protocol(run, groups, {"model": endpoint.model, "options": options, "frames": shown})
    write(report, output)
    show(report, "queries", "sound")


def named(client: Client, endpoint: Endpoint) -> Endpoint:
    """The endpoint with the name of the only model of its server.

    Raises:
        ValueError: it lists none or several.
    """
    names = client.models()
    if len(names) != 1:
        listed = ", ".join(names[:5]) or "none"
        raise ValueError(f"give --model: the server lists {len(names)} models ({listed})")
    return replace(endpoint, model=names[0])


def questions(
    asked: Sequence[Query],
    videos: Path,
    endpoint: Endpoint,
    sampling: Sampling,
    size: int,
    own: Path | None,
    skips: SkippedFiles,
) -> list[list[Question]]:
    """The questions about each video.

    Raises:
        ValueError: a query cannot be asked or its video is not there, under the policy ``fail``.
    """
    wordings, sources = read_prompts(own), sources_by_id(videos)
    names, groups = VideoNames(sources), {}
    for query in asked:
        where, found = f"query {query.id!r}", names.find(query.video)
        if query.task not in wordings:
            skips.add(where, "task that is not asked", f"{query.task}; {', '.join(wordings)} are")
        elif found is None:
            skips.add(where, "no video file", names.remedy(query.video, f"{query.video} in {videos}"))
        else:
            look = groups[found][0].look if found in groups else Look(sources[found], sampling, size)
            question = Question(query, wordings[query.task], look, endpoint.model, endpoint.options)
            groups.setdefault(found, []).append(question)
    return list(groups.values())


class Run:
    """Asks questions, and keeps the answers and writes predictions as they come.

    Args:
        client: of the model.
        cache: what it answered so far.
        skips: queries without an answer.
        output: folder for the predictions.
    """

    def __init__(self, client: Client, cache: AnswerCache, skips: SkippedFiles, output: Path):
        from callbacks.predictions import PredictionWriter

        self.client, self.cache, self.skips = client, cache, skips
        self.writer = PredictionWriter(output)
        self.resumed = 0
        """Answers that were there before."""
        self.endings: Counter[str] = Counter()
        """Why the model stopped -> how often; ``length``: at a limit of tokens."""
        self.parsed: list[Parsed] = []
        self._lock = threading.Lock()

    def ask(self, groups: Sequence[Sequence[Question]], concurrency: int, stop: threading.Event) -> None:
        """Ask all, some videos at a time; the first error ends it, and what was answered is kept.

        Raises:
            ValueError: no question can be answered, one was not under the policy ``fail``, or it was interrupted.
        """
        total = sum(map(len, groups))
        self.resumed = sum(bool(self.cache.answers(question.key)) for group in groups for question in group)
        if self.resumed:
            console.print(f"{self.resumed} of {total} queries were answered before; asking the others", markup=False)
        self.writer.open(afresh=True)
        with ThreadPoolExecutor(concurrency) as pool, progress_bar("asking", total) as advance:
            futures = [pool.submit(self._ask_about, group, advance) for group in groups]
            try:
                for future in as_completed(futures):
                    future.result()
            except BaseException as error:
                stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                if isinstance(error, KeyboardInterrupt):
                    raise ValueError(f"interrupted; run again to go on, {self.cache.path} has it all") from None
                raise
        self.writer.finish()

    def _ask_about(self, group: Sequence[Question], advance: Callable[[], None]) -> None:
        """Ask all questions about one video, whose frames are decoded once."""
        for question in group:
            try:
                answer = self._answer(question)
                prediction, parsed = question.read(answer.text)
            except Unanswered as error:
                self._skip(question, error.reason, error.detail)
            except DecodingError as error:
                self._skip(question, "video cannot be decoded", str(error))
            else:
                with self._lock:
                    self.endings[answer.finish_reason] += 1
                    self.parsed += [parsed] if question.query.task != "qa" else []
                    self.writer.add([prediction])
            advance()
        group[0].look.forget()

    def _answer(self, question: Question) -> Answer:
        """The first answer that the model gave: a second one would be a second chance."""
        if known := self.cache.answers(question.key):
            return known[0]
        answer = self.client.ask(question.content())
        self.cache.add(question.key, question.about(), answer)
        return answer

    def _skip(self, question: Question, reason: str, detail: str) -> None:
        with self._lock:
            self.skips.add(f"query {question.query.id!r}", reason, detail)


def protocol(run: Run, asked: Sequence[Sequence[Question]], settings: Mapping) -> dict:
    """What the answers depend on."""
    first = {question.query.task: question.prompt for group in reversed(asked) for question in reversed(group)}
    packages = ("openai", "pillow", "numpy")
    return {
        **settings,
        "prompts": first,
        "resumed": run.resumed,
        "endings": dict(run.endings),
        "parsing": parse_report(run.parsed),
        "unanswered": dict(run.skips.counts),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
    }
