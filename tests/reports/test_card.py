"""Model cards: what a run is, in words that its files bear out."""

import json
import shutil
from pathlib import Path

import yaml

from datamodules.query_files import read_queries, write_queries
from datamodules.schema import Event, Query
from reports.card import base_licence, validation, write_card


def front_matter(text: str) -> dict:
    return yaml.safe_load(text.split("---\n")[1])


def test_a_card_says_what_the_files_of_the_run_say(runs, llm, world, tmp_path):
    text = write_card(shutil.copytree(runs[2], tmp_path / "my_run")).read_text()
    assert "# my_run" in text and "stage: BoundaryPerception" in text
    assert f"base model: {'/'.join(Path(llm).parts[-2:])} (fingerprint" in text
    assert "TextTimestamps (" in text and "ticks: 100" in text and str(tmp_path) not in text
    queries = list(read_queries(world / "stage2.jsonl"))
    videos = len({query.video for query in queries})
    assert f"| {len(queries)} | {videos} | 1.0 |" in text
    assert 'whenlm.load("' in text and "model.init_args.lora.r: 4" in text
    assert "licence of" in text and front_matter(text)["library_name"] == "peft"


def test_overlap_and_lost_files_are_said(runs, world, tmp_path):
    run = shutil.copytree(runs[2], tmp_path / "run")
    config = yaml.safe_load((run / "config.yaml").read_text())
    seen = [Query("q", "train00000", "grounding", "x", (Event(0, 1),)), Query("r", "new", "grounding", "x")]
    write_queries(tmp_path / "val.jsonl", seen)
    config["data"]["val"] = [{"shards": "s", "queries": str(tmp_path / "val.jsonl")}]
    config["data"]["train"].append({"shards": "s", "queries": str(tmp_path / "gone.jsonl"), "weight": 0.5})
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    text = write_card(run).read_text()
    assert "1 of 2 evaluation videos (50.0%) are in the training data" in text
    assert "gone.jsonl | not there any more | ? | ? | 0.5 |" in text


def test_results_come_with_their_protocol_and_text_is_no_markup(runs, tmp_path):
    run = shutil.copytree(runs[2], tmp_path / "run")
    report = {"metrics": {"grounding/mIoU": 31.21}, "protocol": {"setting": "zero-shot", "base": {"name": "a|[b](c)"}}}
    text = write_card(run, results={"Charades <b>": report}).read_text()
    assert "Charades \\<b\\>:" in text and "| grounding/mIoU | 31.21 |" in text
    assert "* base.name: a\\|\\[b\\](c)" in text


def test_the_last_validation_is_the_one_of_all_logs(tmp_path):
    (tmp_path / "metrics-001.csv").write_text("step,val/a,val/b\n1,1.0,5.0\n2,2.0,\n")
    (tmp_path / "metrics.csv").write_text("step,val/a,train/loss\n3,3.0,9\n4,,8\n")
    assert validation(tmp_path) == {"val/a": 3.0, "val/b": 5.0}
    assert validation(tmp_path / "none") == {}


def test_the_licence_of_the_base_is_that_of_its_card(tmp_path):
    assert base_licence(str(tmp_path)) == base_licence("") == base_licence("no/such-model") == ""
    (tmp_path / "README.md").write_text("---\ntags: [a]\nlicense: apache-2.0\n---\n# x\n")
    assert base_licence(str(tmp_path)) == "apache-2.0"


def test_a_run_without_a_config_has_a_card(runs, tmp_path):
    run = shutil.copytree(runs[2], tmp_path / "run")
    (run / "config.yaml").unlink()
    (run / "model" / "manifest.json").write_text(json.dumps({"stage": "x", "base": None}))
    text = write_card(run).read_text()
    assert "no config.yaml that says it" in text and "base model: not named" in text
