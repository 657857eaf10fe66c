"""Running jobs: what the cache knows is not asked, the rest from several threads, with an estimate on the way."""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

from command_line.tables import console
from datamodules.skips import Skips
from preparation.captioning.asking import Asker
from preparation.captioning.endpoint import Unanswered
from preparation.captioning.jobs import Job
from preparation.captioning.planning import plan, print_estimate, print_plan, progress_bar

MEASURED = 8
"""The estimate comes after so many results, or after one for each thread."""


def run_jobs(
    jobs: Sequence[Job],
    asker: Asker,
    skips: Skips,
    stop: threading.Event,
    concurrency: int,
    only_estimate: bool = False,
) -> dict[int, Any]:
    """Number of a job -> its result, where it has one.

    Args:
        jobs: what is wanted.
        asker: asks and remembers.
        skips: refuses or counts a job whose request failed.
        stop: set where the run ends early.
        concurrency: requests on the way at the same time.
        only_estimate: ask for the first results only.

    Raises:
        ValueError: a failure under the policy ``fail``, an endpoint that does not work, or an interruption.
    """
    found = plan(jobs, asker)
    print_plan(jobs, found)
    measured = min(max(MEASURED, concurrency), len(found.todo))
    todo = found.todo[:measured] if only_estimate else found.todo
    started, results = time.monotonic(), found.results
    with ThreadPoolExecutor(concurrency) as pool, progress_bar("asking", len(todo)) as advance:
        futures = {pool.submit(jobs[number].run, asker.ask): number for number in todo}
        try:
            for count, future in enumerate(as_completed(futures), 1):
                number = futures[future]
                try:
                    results[number] = future.result()
                except Unanswered as error:
                    skips.add(jobs[number].where, error.reason, error.detail)
                advance()
                if count == measured:
                    print_estimate(jobs, found, asker, measured, time.monotonic() - started)
        except BaseException as error:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            if isinstance(error, KeyboardInterrupt):
                console.print("waiting for the answers on their way")
                raise ValueError(f"interrupted; run again to go on, {asker.cache.path} has it all") from None
            raise
    return results
