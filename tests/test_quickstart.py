"""``make demo`` with a few steps in a small world."""

import json
from pathlib import Path

import pytest

import quickstart

ROOT = Path(__file__).parent.parent
SMALL = quickstart.Size(images=32, train=32, val=2, test=3, steps=2)


def test_every_system_is_trained_and_asked(tmp_path, monkeypatch, capfd):
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(tmp_path)
    output = Path("runs/demo")  # which its configs name
    quickstart.main(output, SMALL)
    shown = capfd.readouterr().out
    rows = json.loads((output / "metrics.json").read_text())["metrics"]
    assert list(rows)[:5] == list(quickstart.RUNS.values())
    assert all(0 <= scores["grounding/mIoU"] <= 100 for scores in rows.values())
    assert all(name in shown for name in rows)
    for name in ("predictions.jsonl", "timelines.png", "curves.png"):
        assert (output / name).stat().st_size
    assert "Trained weights" in (output / "beside.log").read_text()


def test_a_process_beside_that_fails_is_no_table(tmp_path, monkeypatch):
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(quickstart, "train_and_ask", lambda *_: None)
    monkeypatch.setattr(quickstart, "BESIDE", ("nothing",))
    with pytest.raises(SystemExit, match="beside.log says why"):
        quickstart.main(Path("runs/demo"), SMALL)
    assert "nothing.yaml" in Path("runs/demo/beside.log").read_text()
