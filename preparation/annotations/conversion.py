"""From a published annotation file to the queries that can be used: read, choose, hold against the features."""

import inspect
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from datamodules.schema import Query
from datamodules.shards import ShardReader
from datamodules.skips import OnError, Skips
from preparation.annotations import reader
from preparation.annotations.files import LAYOUT, REPAIRED
from preparation.annotations.meco_prompts import KEPT
from preparation.annotations.selection import select

TWICE = "question kept with a wrong option twice"
NOTES = ("turn dropped", REPAIRED, KEPT, TWICE)
"""Reasons that begin so are about queries that were kept."""


@dataclass(frozen=True)
class Converted:
    """What became of an annotation file."""

    queries: tuple[Query, ...]
    dropped: Counter[str]
    """How much was left out, for each reason; and what became of queries that were kept (``NOTES``)."""

    def rows(self) -> list[tuple[str, int]]:
        """What was read, kept and dropped, for a table."""
        left_out = {reason: count for reason, count in self.dropped.items() if not reason.startswith(NOTES)}
        tasks = Counter(query.task for query in self.queries)
        return [
            ("read", len(self.queries) + sum(left_out.values())),
            ("kept", len(self.queries)),
            *((f"kept: {task} queries", count) for task, count in sorted(tasks.items())),
            ("kept: videos", len({query.video for query in self.queries})),
            *((reason if reason.startswith(NOTES) else f"dropped: {reason}", n) for reason, n in self.dropped.items()),
        ]


def convert(
    name: str,
    path: Path,
    on_error: OnError = "fail",
    shards: Path | None = None,
    rule: str | None = None,
    **options,
) -> Converted:
    """Read an annotation file.

    Args:
        name: dataset, a key of ``annotations.READERS``.
        path: the published file.
        on_error: ``fail`` at the first thing that cannot be used, or ``skip`` it and count.
        shards: folder of features; every video must be in it, last as long as annotated, and hold the times.
        rule: a paper's choice, a key of ``selection.FILTERS``. What it leaves out is counted and never an error.
        options: of the dataset's reader; None counts as not given.

    Raises:
        ValueError: unknown name, rule or option, nothing is left, or (``fail``) naming the place and what is wrong.
    """
    read = reader(name)
    given = {key: value for key, value in options.items() if value is not None}
    known = list(inspect.signature(read).parameters)[2:]
    if unknown := sorted(set(given) - set(known)):
        takes = ", ".join(f"--{option}" for option in known) or "no option of its own"
        raise ValueError(f"--{unknown[0]} is not for {name}, which takes {takes}")
    try:
        queries, dropped = read(path, on_error, **given)
    except LAYOUT as error:
        raise ValueError(f"{path}: not the layout of {name} ({type(error).__name__}: {error})") from error
    queries = [query if query.source else replace(query, source=name) for query in queries]
    if rule:
        queries, counts = select(rule, queries)
        dropped = dropped + counts
    if shards:
        queries, counts = match(queries, ShardReader(shards), on_error)
        dropped = dropped + counts
    if twice := sum(len({option.strip() for option in query.options}) < len(query.options) for query in queries):
        dropped = dropped + Counter({TWICE: twice})
    if not queries:
        reasons = "; ".join(f"{reason}: {count}" for reason, count in dropped.items()) or "no entry"
        raise ValueError(f"{path}: nothing usable in it ({reasons})")
    return Converted(tuple(queries), dropped)


def match(queries: Sequence[Query], shards: ShardReader, on_error: OnError) -> tuple[list[Query], Counter[str]]:
    """The queries whose video is in the shards and whose times fit it, and how many do not for each reason.

    Raises:
        ValueError: (``fail``) naming query, video and what is wrong.
    """
    skips, kept, durations = Skips(on_error), [], {}
    for query in queries:
        where = f"query {query.id!r}, video {query.video!r}"
        if query.video not in shards:
            skips.add(where, f"video without features in {shards.folder}", shards.remedy(query.video))
            continue
        if query.video not in durations:
            durations[query.video] = shards.duration_s(query.video)
        if fault := _fault(query, durations[query.video]):
            skips.add(where, *fault)
        else:
            kept.append(query)
    return kept, skips.counts


def _fault(query: Query, stored_s: float) -> tuple[str, str] | None:
    """Why the times of a query do not fit features of ``stored_s`` seconds, with details."""
    reason = "annotation and features differ in duration" if query.duration_s is not None else "event outside the video"
    try:
        query.check_length(stored_s)
        if query.duration_s is None:
            query.check_inside(stored_s)
    except ValueError as error:
        return reason, str(error)
    return None
