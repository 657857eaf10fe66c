"""What a run will take and what it took: requests, tokens, time and money."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from rich.progress import Progress

from command_line.tables import console, print_table
from preparation.captioning.asking import Asker, NotAsked
from preparation.captioning.endpoint import Client, Endpoint, Unanswered
from preparation.captioning.jobs import Job


@dataclass
class Plan:
    """What the cache knows already, and what must be asked."""

    results: dict[int, Any] = field(default_factory=dict)
    """Number of a job -> its result."""
    todo: list[int] = field(default_factory=list)
    requests: Counter[str] = field(default_factory=Counter)
    """Still to be sent, by step; malformed answers and retries come on top."""
    pictures: int = 0
    """That go with them, at most."""


@contextmanager
def progress_bar(what: str, total: int) -> Iterator[Callable[[], None]]:
    """A bar that moves by one when what is yielded is called.

    ``rich.progress.track`` is no choice here: a loop that an error leaves keeps its generator alive until the garbage
    collector closes it, perhaps in the thread that draws another bar, which then waits for ever.
    """
    with Progress(console=console, disable=not total) as progress:
        task = progress.add_task(what, total=total)
        yield lambda: progress.advance(task)


def plan(jobs: Sequence[Job], asker: Asker) -> Plan:
    """Run all jobs from the cache, without asking anybody."""
    found, counted = Plan(), set()
    with progress_bar("planning", len(jobs)) as advance:
        for number, job in enumerate(jobs):
            _look_up(number, job, asker, found, counted)
            advance()
    return found


def _look_up(number: int, job: Job, asker: Asker, found: Plan, counted: set[str]) -> None:
    try:
        found.results[number] = job.run(asker.recall)
    except Unanswered:
        found.todo.append(number)  # fails again, where failures are counted
    except NotAsked as end:
        found.todo.append(number)
        steps = list(job.steps)
        found.requests.update(steps[steps.index(end.request.step) + 1 :])
        if end.request.key not in counted:
            counted.add(end.request.key)
            found.requests[end.request.step] += 1
            found.pictures += end.request.clip.frames if end.request.clip else 0


def _clients(jobs: Sequence[Job]) -> dict[str, Client]:
    return {step: client for job in jobs[:1] for step, client in job.steps.items()}


def print_plan(jobs: Sequence[Job], plan: Plan) -> None:
    """Say what will be sent before anything is."""
    print_table(
        f"{len(jobs)} results wanted, {len(plan.results)} of them from earlier answers; "
        f"{plan.pictures} pictures to send at most",
        ("request", "model", "to send"),
        [(step, client.endpoint.model, plan.requests[step]) for step, client in _clients(jobs).items()],
    )


def print_estimate(jobs: Sequence[Job], plan: Plan, asker: Asker, count: int, elapsed_s: float) -> None:
    """Say what the whole run takes, from what its first results took.

    Args:
        jobs: all of them.
        plan: which of them had to be asked, and how many requests that means.
        asker: knows the answers so far.
        count: results so far.
        elapsed_s: time that they took.
    """
    rows = []
    for step, client in _clients(jobs).items():
        answers, requests = asker.sent[step], plan.requests[step]
        scale = requests / max(len(answers), 1)
        read = round(scale * sum(answer.tokens_in for answer in answers))
        written = round(scale * sum(answer.tokens_out for answer in answers))
        rows.append((step, requests, f"{read:,}", f"{written:,}", _dollars(client.endpoint, read, written)))
    whole_s = elapsed_s / count * len(plan.todo)
    console.print(f"{count} of {len(plan.todo)} results took {_time(elapsed_s)}; all will take about {_time(whole_s)}")
    columns = ("request", "requests", "tokens read", "tokens written", "US dollars")
    print_table("estimate for all of them", columns, rows)


def spent(asker: Asker, clients: Iterable[Client]) -> dict[str, int | str]:
    """What a run sent and got."""
    counts = Counter()
    for step, answers in asker.sent.items():
        counts[f"{step} requests answered"] += len(answers)
        counts["tokens read"] += sum(answer.tokens_in for answer in answers)
        counts["tokens written"] += sum(answer.tokens_out for answer in answers)
    for (step, reason), number in sorted(asker.malformed.items()):
        counts[f"malformed answers ({step})"] += number
        counts[f"malformed answers ({step}): {reason}"] = number
    return counts | {"tries after a failure": sum(client.retried for client in clients)}


def _dollars(endpoint: Endpoint, tokens_in: int, tokens_out: int) -> str:
    dollars = (tokens_in * endpoint.price_in + tokens_out * endpoint.price_out) / 1e6
    return f"{dollars:.2f}" if endpoint.price_in or endpoint.price_out else "price not given"


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
