"""Logs of harnesses: made-up annotations and answers, logged by the harness's writer and scored by its scorer.

``harness_logs/expected.json`` holds what lmms-eval (75571cf), VLMEvalKit (e8e78f0) and TimeLens2 (a5ce450, which prints
four decimals) made of these very files.
"""

import json
from pathlib import Path

import pytest

from metrics.benchmarks.benchmarks import score
from metrics.benchmarks.formats.files import FileError

LOGS = Path(__file__).parent / "harness_logs"
EXPECTED = json.loads((LOGS / "expected.json").read_text())
BENCHMARKS = {
    "lmms_eval_charades_sta": ("charades_sta", "lmms_eval_charades"),
    "lmms_eval_timelens": ("timelens_bench", "lmms_eval_timelens"),
    "lmms_eval_extremewhenbench": ("extremewhenbench", "lmms_eval_extremewhenbench"),
    "vlmevalkit_omtg": ("omtg", "vlmevalkit_omtg"),
    "timelens2": ("timelens_bench", "timelens2"),
}


def path_of(name: str) -> Path:
    (path,) = (path for path in LOGS.glob(f"{name}.*"))
    return path


@pytest.mark.parametrize("name", EXPECTED)
def test_the_harness_s_own_numbers(name):
    benchmark, evaluator = BENCHMARKS[name]
    expected = EXPECTED[name].get("TimeLens", EXPECTED[name])
    report = score(benchmark, path_of(name), policy="official")
    assert report["protocol"]["evaluator"].startswith(f"{evaluator}: ")
    tolerance = 5.1e-5 if name == "timelens2" else 1e-9
    wanted = {key.removeprefix("charades_sta_").removeprefix("timelens_"): value for key, value in expected.items()}
    wanted = {key: value for key, value in wanted.items() if not key.endswith("_count")}
    assert report["metrics"] == pytest.approx(wanted, abs=tolerance)


@pytest.mark.parametrize("name", EXPECTED)
def test_what_differs_is_said(name):
    """Under sound the same answers are read by our reader: what it read, and what it could not, is counted."""
    report = score(BENCHMARKS[name][0], path_of(name))
    protocol = report["protocol"]
    rules = protocol["parsing"]["rules"]
    assert protocol["n"] == sum(rules.values()) + protocol["missing"] + protocol.get("empty", 0)
    assert rules["unreadable"] and protocol["unparsed"] >= rules["unreadable"]
    assert protocol["missing"] == 0


def test_rows_say_which_queries_differ():
    """A sentence with "to" in "24.3s to 30.4s": nothing is cut off."""
    rows = {policy: score("timelens_bench", path_of("lmms_eval_timelens"), policy=policy)["rows"] for policy in
            ("sound", "official")}  # fmt: skip
    worse = [name for name in rows["sound"] if rows["sound"][name]["mIoU"] < rows["official"][name]["mIoU"] - 1e-9]
    better = [name for name in rows["sound"] if rows["sound"][name]["mIoU"] > rows["official"][name]["mIoU"] + 1e-9]
    assert len(better) > 2 * len(worse)


def test_a_log_of_another_task_is_refused(tmp_path):
    row = json.loads(path_of("lmms_eval_timelens").read_text().splitlines()[0])
    row = {key: value for key, value in row.items() if not key.startswith("timelens_")} | {"mmlu_acc": 1.0}
    (tmp_path / "log.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(FileError, match="lmms-eval task that is not known"):
        score("timelens_bench", tmp_path / "log.jsonl", policy="official")
