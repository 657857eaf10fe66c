"""From an annotation file to one with details of events, or with dialogues: plan, estimate, ask, write."""

import os
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from command_line.tables import print_made
from datamodules.names import VideoNames
from datamodules.query_files import read_queries, write_queries
from datamodules.schema import Query
from datamodules.skips import OnError, SkippedFiles
from preparation.captioning.asking import Asker
from preparation.captioning.cache import AnswerCache
from preparation.captioning.endpoint import Client, Endpoint
from preparation.captioning.jobs import Job, detail_job, dialogue_jobs, moments, with_details
from preparation.captioning.planning import spent
from preparation.captioning.running import run_jobs
from preparation.features.decoding import Source, find_sources
from preparation.summary import print_skipped


@dataclass(frozen=True)
class Pipeline:
    """How a file of annotations is written anew with what models say.

    Args:
        text: the text model.
        cache: file with all requests and answers.
        concurrency: requests on the way at the same time.
        on_error: stop at the first event or dialogue that failed, or leave it out and count it.
        only_estimate: ask for the first results only, and say what all would take.
    """

    text: Endpoint
    cache: Path | None = None
    concurrency: int = 8
    on_error: OnError = "fail"
    only_estimate: bool = False

    def details(
        self,
        input: Path,
        output: Path,
        videos: Path,
        vision: Endpoint,
        frames: int,
        size: int,
        tasks: Collection[str] | None = None,
    ) -> None:
        """Give every event of a file, those of dialogues included, a detailed description of its clip.

        An event that failed keeps its caption alone; a query is left out where all of its events failed.

        Args:
            input: queries.jsonl.
            output: the same queries with ``detail``.
            videos: folder or list of the video files.
            vision: the vision-language model.
            frames: pictures of a clip, at most.
            size: longer side of a picture in pixels.
            tasks: of queries and of the turns of dialogues; None: all. The others are written as they are.

        Raises:
            ValueError: bad input, or a failure under the policy ``fail``.
        """
        sources = sources_by_id(videos)
        names = VideoNames(sources)

        def jobs(queries: list[Query], skips: SkippedFiles, text: Client, stop) -> dict[tuple[int, int], Job]:
            client, made = Client(vision, stop), {}
            for q, query in enumerate(queries):
                if not (missing := _missing(query, tasks)):
                    continue
                video = names.find(query.video)
                if video is None or not sources[video].path.is_file():
                    remedy = names.remedy(query.video, f"{query.video} in {videos}")
                    skips.add(f"query {query.id!r}", "no video file", remedy if video is None else sources[video].path)
                    continue
                for k in missing:
                    if moments(query)[k].known:
                        made[q, k] = detail_job(query, k, sources[video], client, text, frames, size)
                    else:
                        skips.add(f"query {query.id!r}, event {k}", "neither text nor caption: nothing is looked for")
            return made

        def assemble(queries: list[Query], results: dict[tuple[int, int], str]) -> Iterator[Query]:
            for q, query in enumerate(queries):
                missing = _missing(query, tasks)
                if not missing or any((q, k) in results for k in missing):
                    old = [moment.event.detail for moment in moments(query)]
                    yield with_details(query, [results.get((q, k), detail) for k, detail in enumerate(old)])

        self._write(input, output, jobs, assemble)

    def dialogues(self, input: Path, output: Path) -> None:
        """Write two dialogues about each record of several captioned events (``events``, ``dense_captioning``).

        Args:
            input: queries.jsonl.
            output: ``dialogue`` records.

        Raises:
            ValueError: bad input, or a failure under the policy ``fail``.
        """

        def jobs(queries: list[Query], skips: SkippedFiles, text: Client, stop) -> dict[tuple[int, int], Job]:
            wanted = [(q, query) for q, query in enumerate(queries) if query.task in ("events", "dense_captioning")]
            return {(q, k): job for q, query in wanted for k, job in enumerate(dialogue_jobs(query, text))}

        def assemble(queries: list[Query], results: dict[tuple[int, int], tuple]) -> list[Query]:
            for (q, k), turns in sorted(results.items()):
                name = f"{queries[q].id}.talk{k}"
                yield Query(name, queries[q].video, "dialogue", turns=turns, duration_s=queries[q].duration_s)

        self._write(input, output, jobs, assemble)

    def _write(self, input: Path, output: Path, make_jobs: Callable, assemble: Callable) -> None:
        if output.resolve() == input.resolve():
            raise ValueError(f"{output}: is the input; give another output")
        queries = list(read_queries(input))
        output.parent.mkdir(parents=True, exist_ok=True)
        stop, skips = threading.Event(), SkippedFiles(self.on_error, output.with_suffix(".skipped.jsonl"))
        text = Client(self.text, stop)
        jobs = make_jobs(queries, skips, text, stop)
        with closing(AnswerCache(self.cache or output.with_suffix(".requests.jsonl"))) as cache:
            asker = Asker(cache)
            results = run_jobs(list(jobs.values()), asker, skips, stop, self.concurrency, self.only_estimate)
        print_skipped(skips.entries)
        if self.only_estimate:
            return
        numbers = list(jobs)
        written = list(assemble(queries, {numbers[number]: result for number, result in results.items()}))
        if not written:
            raise ValueError(f"{input}: nothing came out of it ({dict(skips.counts) or 'no query asks for anything'})")
        part = output.with_name(output.name + ".part")
        write_queries(part, written)
        os.replace(part, output)
        clients = [client for job in jobs.values() for client in job.steps.values()]
        about = {"queries read": len(queries), "queries written": len(written), "made by models": len(results)}
        about |= spent(asker, {id(client): client for client in clients}.values())
        print_made("captions", output, about | skips.counts | {"requests and answers": cache.path})


def _missing(query: Query, tasks: Collection[str] | None) -> list[int]:
    """Which of a query's moments want a detail and have none."""
    found = enumerate(moments(query))
    return [k for k, moment in found if not moment.event.detail and (tasks is None or moment.task in tasks)]


def sources_by_id(videos: Path) -> dict[str, Source]:
    """Video id -> its file. Raises ValueError where two files have one id."""
    found: dict[str, Source] = {}
    for source in find_sources(videos)[0]:
        if (first := found.setdefault(source.id, source)) is not source:
            raise ValueError(f"{videos}: {first.path} and {source.path} both have the id {source.id!r}")
    return found
