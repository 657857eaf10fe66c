"""Results as the table of a paper: seeds together, published values beside, protocols below."""

import csv
import io
import json

import pytest
import yaml

from metrics.benchmarks.benchmarks import BENCHMARKS
from reports.measured import read_rows
from reports.paper_table import PUBLISHED, paper_table, published


def result(folder, metrics, run=None, seed=0, config=None, **protocol):
    """A result folder as evaluate.py writes it."""
    folder.mkdir(parents=True)
    facts = {"setting": "zero-shot: 0 of 9", "base": {"name": "lmsys/vicuna-7b-v1.5"}, "policy": "default: exact IoU"}
    facts |= {"features": {"encoder": "openai/clip-vit-large-patch14", "sampling": "uniform 100"}, "seed": seed}
    if run:
        run.mkdir(parents=True, exist_ok=True)
        settings = {"seed_everything": seed, "output": str(run), "model": {"init_args": {"lr": 1} | (config or {})}}
        (run / "config.yaml").write_text(yaml.safe_dump(settings))
        facts["checkpoint"] = {"folder": str(run), "stage": "x"}
    (folder / "metrics.json").write_text(json.dumps({"metrics": metrics, "protocol": facts | protocol}))
    return str(folder)


def scores(value: float) -> dict:
    return {"grounding/R1@0.5": value, "grounding/mIoU": value + 1, "grounding/n": 3720.0}


def test_seeds_are_one_row_and_other_settings_are_others(tmp_path):
    given = [result(tmp_path / f"s{seed}", scores(20 + seed), tmp_path / f"run{seed}", seed) for seed in (0, 1, 2)]
    given.append(result(tmp_path / "other", scores(30), tmp_path / "run9", 0, {"lr": 2}))
    rows = read_rows(given)
    assert [row.values("R1@0.5") for row in rows] == [[20, 21, 22], [30]]
    table = paper_table(rows, "charades_sta")
    assert table.columns == ("model", "R1@0.3", "R1@0.5", "R1@0.7", "mIoU")
    assert table.rows[0][1:] == ("-", "21.0 ± 1.0", "-", "22.0 ± 1.0")
    assert table.rows[1][2] == "30.0"


def test_published_values_are_marked_and_differences_named(tmp_path):
    ours = result(tmp_path / "mine", scores(27.0), base={"name": "tiny-lm"})
    table = paper_table(read_rows([f"Ours={ours}"]), "charades_sta")
    (paper,) = [row for row in table.rows if row[0].startswith("VTimeLLM-7B *paper*")]
    assert paper[1:] == ("51.0", "27.5", "11.4", "31.2")
    mark = table.rows[0][0].removeprefix("Ours ")
    (note,) = [note for note in table.footnotes if note.startswith(mark)]
    assert (
        "Differs from VTimeLLM-7B in base (tiny-lm, there vicuna-7b-v1.5), scoring (default: exact IoU, there" in note
    )
    assert "features (" not in note
    assert len([note for note in table.footnotes if "source: VTimeLLM (CVPR 2024), Table 1" in note]) == 2


def test_one_label_does_not_hide_two_protocols(tmp_path):
    given = [result(tmp_path / "a", scores(1)), result(tmp_path / "b", scores(2), policy="official")]
    with pytest.raises(ValueError, match="measured differently: scoring: default: exact IoU, not official"):
        read_rows([f"Ours={one}" for one in given])
    assert len(read_rows(given)) == 2


def test_sweeps_are_rows_by_setting(tmp_path):
    points = [
        {"parameters": {"seed_everything": seed, "model.rule": rule}, "metrics": {"val/grounding/mIoU": 10.0 * seed}}
        for rule in ("a", "b")
        for seed in (1, 2)
    ]
    (tmp_path / "results.json").write_text(json.dumps(points))
    rows = read_rows([str(tmp_path)])
    assert [row.label for row in rows] == [f"{tmp_path.name} rule a", f"{tmp_path.name} rule b"]
    assert paper_table(rows).rows[0][1] == "15.0 ± 7.1"


def test_all_three_forms_hold_the_table(tmp_path):
    table = paper_table(read_rows([f"a|<b>={result(tmp_path / 'x', scores(5))}"]), "charades_sta")
    assert table.markdown().splitlines()[2].startswith("| model | R1@0.3 |") and "a\\|<b>" in table.markdown()
    assert list(csv.reader(io.StringIO(table.csv())))[1][2] == "5.0"
    assert "|<b>" not in table.html() and "a|&lt;b&gt;" in table.html() and "Differs from" in table.html()


@pytest.mark.parametrize("content", ["", "[]", '{"metrics": 3}', '{"metrics": {}}'])
def test_a_file_that_is_no_result_is_named(tmp_path, content):
    (tmp_path / "metrics.json").write_text(content)
    with pytest.raises(ValueError, match="metrics.json is no result of evaluate.py"):
        read_rows([str(tmp_path)])


def test_what_is_not_there_is_said(tmp_path):
    with pytest.raises(ValueError, match="holds neither metrics.json"):
        read_rows([str(tmp_path)])
    with pytest.raises(ValueError, match="no published numbers for 'x'; there are those of charades_sta"):
        published("x")
    rows = read_rows([result(tmp_path / "x", scores(5))])
    with pytest.raises(ValueError, match="no result has any of SODA_c, CIDEr, METEOR; those there are: R1@0.5, mIoU"):
        paper_table(rows, "activitynet_captions")


def test_published_numbers_are_whole():
    for name, known in yaml.safe_load(PUBLISHED.read_text()).items():
        assert name in BENCHMARKS
        for row in known["rows"]:
            assert len(row["values"]) == len(known["columns"]), row["system"]
            assert {"system", "source", "setting", "base", "features", "scoring"} <= row.keys()


def test_published_numbers_are_those_of_the_reference(real):
    """Two tables, read once more from the papers' own text."""
    text = (real("annotations").parent.parent / "reference" / "papers" / "vtimellm.txt").read_text()
    rows = {row["system"]: row["values"] for row in published("charades_sta")["rows"]}
    flat = " ".join(text.split())
    for system in ("VTimeLLM-7B", "VTimeLLM-13B"):
        assert all(f"{value:.1f}" in flat for value in rows[system]), system
