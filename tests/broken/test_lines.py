"""Broken lines of annotations and predictions: every reader refuses them with file, line and cause, or counts them."""

import json
import re

import pytest
from corpus import ANSWERS, DIALOGUE, GROUNDING, LINES, PREDICTION, QA, shards
from hypothesis import given, settings
from hypothesis import strategies as st

import prepare
from asking.questions import from_file
from datamodules.opening import open_sources
from datamodules.prediction_files import read_predictions
from datamodules.query_files import read_queries
from datamodules.skips import Skips
from datamodules.sources import Source

GOOD = json.dumps(GROUNDING | {"id": "good"})


@pytest.fixture
def place(tmp_path):
    """Writes a file whose second line is broken."""

    def write(text: str, good: str = GOOD):
        path = tmp_path / "lines.jsonl"
        path.write_text(f"{good}\n{text}\n", encoding="utf-8", errors="surrogatepass")
        return path

    return write


@pytest.mark.parametrize("case", LINES, ids=lambda case: case.name)
class TestQueries:
    def test_the_reader_names_file_line_and_cause(self, case, place):
        path = place(case.text)
        with pytest.raises(ValueError, match=case.words) as error:
            list(read_queries(path))
        assert str(error.value).startswith(f"{path}, line 2: ")
        assert len(str(error.value)) < 600

    def test_a_policy_counts_it(self, case, place):
        skips = Skips("skip")
        assert [query.id for query in read_queries(place(case.text), skips)] == ["good"]
        assert skips.counts == {"line that is no query": 1}

    def test_the_command_ends_in_one_line(self, case, place, tmp_path, capsys):
        path = place(case.text)
        args = ["annotations", "plain", "--input", str(path), "--output", str(tmp_path / "out.jsonl"), "--quiet"]
        assert prepare.main(args) == 2
        said = capsys.readouterr().err
        assert said.startswith("prepare.py: error: ")
        assert str(path) in said
        assert "Traceback" not in said and "traceback in" not in said
        assert prepare.main([*args, "--on_error=skip"]) == 0
        assert [query.id for query in read_queries(tmp_path / "out.jsonl")] == ["good"]

    def test_asking_names_file_and_line(self, case, place):
        path = place(case.text)
        with pytest.raises(ValueError, match=re.escape(str(path))):
            from_file(path, ["v0"])


@pytest.mark.parametrize("case", ANSWERS, ids=lambda case: case.name)
def test_predictions_name_file_line_and_cause(case, place):
    path = place(case.text, json.dumps(PREDICTION | {"query_id": "good"}))
    with pytest.raises(ValueError, match=case.words) as error:
        list(read_predictions(path))
    assert str(error.value).startswith(f"{path}, line 2: ")


@pytest.mark.parametrize(
    "content", [b"\xff\xfe{\x00}\x00", b"\x1f\x8b\x08\x00abc", b"\x80abc"], ids=["utf-16", "gzip", "byte"]
)
@pytest.mark.parametrize("read", [read_queries, read_predictions])
def test_what_is_no_text_names_the_file(read, content, tmp_path):
    (tmp_path / "x.jsonl").write_bytes(content)
    with pytest.raises(ValueError, match="x.jsonl: not UTF-8 text"):
        list(read(tmp_path / "x.jsonl"))


def test_training_leaves_broken_lines_out_and_counts_them_and_evaluation_does_not(tmp_path):
    path = tmp_path / "queries.jsonl"
    path.write_text(f"null\n{GOOD}\n")
    source = Source(str(shards(tmp_path / "shards")), path)

    def reads(header, where):
        return header

    with pytest.raises(ValueError, match="queries.jsonl, line 1: the content must be an object"):
        open_sources([source], reads, "fail")
    ((pair,),), skipped = open_sources([source], reads, "skip")
    assert (pair[1].id, skipped) == ("good", {"line that is no query": 1})
    with pytest.raises(ValueError, match="queries.jsonl, line 1"):
        open_sources([source], reads, "skip", unique=True)


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["<s0>", "</s>", "v0"]),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text(max_size=4), inside, max_size=3),
    max_leaves=6,
)


@st.composite
def mutated(draw, records):
    """A record with anything in some place, or without it; or the same as text with other characters."""
    record = json.loads(json.dumps(draw(st.sampled_from(records))))
    for _ in range(draw(st.integers(1, 2))):
        inside = record
        while True:
            keys = list(inside) if isinstance(inside, dict) else list(range(len(inside)))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            if isinstance(inside[key], (dict, list)) and inside[key] and draw(st.booleans()):
                inside = inside[key]
                continue
            if draw(st.booleans()):
                inside[key] = draw(anything)
            elif isinstance(inside, dict):
                del inside[key]
            break
    text = json.dumps(record)
    if draw(st.integers(0, 3)) == 0:
        at = draw(st.integers(0, len(text)))
        text = text[:at] + draw(st.text(max_size=3)) + text[at + draw(st.integers(0, 3)) :]
    return text


@settings(max_examples=300, deadline=None)
@given(mutated([GROUNDING, QA, DIALOGUE]))
def test_only_errors_about_the_file_come_out_of_read_queries(tmp_path_factory, text):
    check(read_queries, tmp_path_factory, text)


@settings(max_examples=150, deadline=None)
@given(mutated([PREDICTION]))
def test_only_errors_about_the_file_come_out_of_read_predictions(tmp_path_factory, text):
    check(read_predictions, tmp_path_factory, text)


def check(read, tmp_path_factory, text: str) -> None:
    """A reader reads a line, or says which file is at fault."""
    path = tmp_path_factory.getbasetemp() / "fuzzed.jsonl"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    try:
        list(read(path))
    except ValueError as error:
        assert str(path) in str(error)
