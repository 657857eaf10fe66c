"""What docs/metrics.md and docs/benchmarks.md show is so."""

import doctest
import re
from pathlib import Path

import metrics
from metrics.benchmarks.exports import FORMATS
from metrics.benchmarks.registry import BENCHMARKS

DOCS = Path(__file__).parents[2] / "docs"


def test_examples_run():
    result = doctest.testfile(str(DOCS / "metrics.md"), module_relative=False)
    assert result.attempted > 50 and not result.failed


def test_every_name_has_an_example():
    text = (DOCS / "metrics.md").read_text()
    missing = [name for name in metrics.__all__ if not re.search(rf"\b{name}\b", text)]
    assert missing == ["Parsed"] or not missing


def test_every_benchmark_and_every_format_is_in_the_table():
    text = (DOCS / "benchmarks.md").read_text()
    assert not [name for name in (*BENCHMARKS, *FORMATS) if f"`{name}`" not in text]
    units = {name: kind.unit.split(" ")[0].rstrip(",") for name, kind in BENCHMARKS.items()}
    for line in text.splitlines():
        if line.startswith("| `") and line.count("|") == 7:
            names, unit = re.findall(r"`(\w+)`", line.split("|")[1]), line.split("|")[4].strip()
            assert all(unit.startswith(units[name]) for name in names), line
