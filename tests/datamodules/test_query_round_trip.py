"""Raw file -> Query -> jsonl -> Query: nothing changes on the way."""

import json

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datamodules.query_files import query_from_dict, query_to_dict, read_queries, write_queries
from datamodules.schema import Event, Query, Turn
from preparation.annotations import reader

times = st.floats(0, 500, allow_nan=False).map(lambda value: round(value, 2))
spans = st.tuples(times, st.floats(0.5, 90).map(lambda value: round(value, 2))).map(lambda t: (t[0], t[0] + t[1]))
texts = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S", "Zs")), min_size=1).filter(
    lambda text: text.strip().removesuffix(".").strip()
)
stories = st.dictionaries(st.text("abcXYZ019_-", min_size=1), st.lists(st.tuples(spans, texts), min_size=1, max_size=4))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(stories.filter(bool))
def test_raw_to_query_to_jsonl_and_back(tmp_path, content):
    """Whatever a published file says in its layout comes back from queries.jsonl, span for span and word for word."""
    raw = {
        video: {"duration": 600, "timestamps": [span for span, _ in story], "sentences": [text for _, text in story]}
        for video, story in content.items()
    }
    (tmp_path / "a.json").write_text(json.dumps(raw))
    queries, dropped = reader("activitynet")(tmp_path / "a.json")
    assert not dropped
    write_queries(tmp_path / "queries.jsonl", queries)
    again = list(read_queries(tmp_path / "queries.jsonl"))
    assert again == queries
    found = {query.video: query.events for query in again if query.task == "dense_captioning"}
    for video, story in content.items():
        assert [event.span for event in found[video]] == [span for span, _ in story]
        assert [event.caption for event in found[video]] == [text.strip().removesuffix(".") for _, text in story]


events = st.builds(lambda span, caption, detail: Event(*span, caption, detail), spans, texts, st.text())
marks = st.dictionaries(st.sampled_from(["<s0>", "<e0>", "<s1>"]), times)
turns = st.builds(
    Turn, st.text(), st.none() | st.text(), st.just("dialogue"), st.lists(events, max_size=2).map(tuple), times=marks
)
scores = st.lists(st.tuples(st.floats(-5, 5), st.integers(0, 4)), min_size=1, max_size=3).map(tuple)
names = st.text(min_size=1)
choices = st.lists(texts, min_size=2, max_size=5, unique_by=str.strip).map(tuple)
queries_of_any_kind = st.one_of(
    st.builds(Query, names, names, st.just("grounding"), texts, st.lists(events, max_size=2).map(tuple),
              st.lists(turns, max_size=1).map(tuple), st.none() | st.just(600.0), source=st.text()),
    st.builds(Query, names, names, st.just("dialogue"), turns=st.lists(turns, min_size=1, max_size=2).map(tuple)),
    st.builds(Query, names, names, st.just("highlights"), st.text(), saliency=scores, clip_s=st.floats(0.5, 5)),
    st.builds(Query, names, names, st.just("qa"), texts, options=choices,
              answer=st.none() | st.integers(0, 1)),
)  # fmt: skip


@settings(max_examples=80, deadline=None)
@given(queries_of_any_kind)
def test_a_query_survives_json_whatever_it_holds(query):
    assert query_from_dict(json.loads(json.dumps(query_to_dict(query)))) == query
