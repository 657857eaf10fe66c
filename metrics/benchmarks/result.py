"""What scoring a file gives: the values of each query, and how the numbers follow from them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from metrics.benchmarks.formats.files import Collector
from metrics.means import Row, column_means

Summary = Callable[[Mapping[str, float]], dict[str, float]]


@dataclass(frozen=True)
class Job:
    """What is to be scored, and how."""

    benchmark: str
    predicted: Path
    annotated: Sequence[Path]
    """Empty where the predictions carry their annotations."""
    policy: str = "sound"
    evaluator: str | None = None
    """Whose numbers under ``official``; None: the benchmark's first, or that of the harness that wrote the file."""
    collector: Collector = field(default_factory=Collector)
    """What becomes of bad annotation records."""

    more: Sequence[Path] = ()
    """Further prediction files, where a benchmark has two."""

    @property
    def predictions(self) -> list[Path]:
        """All prediction files."""
        return [self.predicted, *self.more]

    @property
    def official(self) -> bool:
        """True under the policy ``official``."""
        return self.policy == "official"


@dataclass
class Result:
    """The values of each query and the numbers that follow from them."""

    rows: dict[str, Row]
    """Query (video, sample) -> values in the unit of the benchmark. Every query of the denominator is there."""
    counts: dict = field(default_factory=dict)
    """For the protocol: n, missing, unparsed, invalid and so on."""
    summary: Summary = dict
    """Means of the columns of the rows -> the metrics. Plain means, unless a metric is made of several of them."""
    whole: dict[str, float] = field(default_factory=dict)
    """Numbers of the data set as a whole, which are no means over queries."""
    answered: set[str] | None = None
    """The queries that have an answer, for numbers over these alone; None: all of them."""
    strata: Mapping[str, str] | None = None
    """Query -> group; a bootstrap draws within groups. None: there is one."""
    evaluator: str | None = None
    """The evaluator that ``official`` followed."""

    def metrics(self) -> dict[str, float]:
        """The numbers of the data set."""
        return {**self.summary(column_means(self.rows.values())), **self.whole}

    def partial(self) -> "Result":
        """The same over the queries that have an answer."""
        if self.answered is None:
            return self
        rows = {name: row for name, row in self.rows.items() if name in self.answered}
        counts = {**self.counts, "n": len(rows), "partial": f"{len(rows)} of {len(self.rows)} queries"}
        return Result(rows, counts, self.summary, {}, self.answered, self.strata, self.evaluator)
