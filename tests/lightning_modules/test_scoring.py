"""Each task's answers reach the metric that is theirs."""

import json
from dataclasses import replace
from random import Random

import pytest

from datamodules.prediction import Prediction
from datamodules.schema import Event, Query
from lightning_modules.scoring import compute_metrics, new_metrics, update_metrics
from metrics.benchmarks.benchmarks import score
from preparation.annotations import reader

MOMENTS = (Event(2, 6), Event(10, 12))


def scored(*answered):
    metrics = new_metrics()
    update_metrics(metrics, answered)
    return compute_metrics(metrics)


def prediction(query, spans=(), saliency=()):
    return Prediction(query.id, query.video, query.task, "", tuple(spans), saliency=tuple(saliency), rule="some")


def test_ranked_moments_give_recall_and_precision():
    query = Query("q", "v", "grounding", "a dog", MOMENTS)
    scores = scored((query, prediction(query, [(2, 6, 0.9), (20, 22, 0.8), (10, 12, 0.7)])))
    assert scores["grounding/R1@0.7"] == 100
    assert scores["moments/MR-full-mAP"] == pytest.approx(100 * (1 + 2 / 3) / 2)
    assert not any(name.startswith(("highlights", "dense", "grounded_qa", "tvsum")) for name in scores)


def test_one_query_without_an_answer_stays_in_every_denominator():
    queries = [Query(name, "v", "grounding", "a dog", MOMENTS[:1]) for name in "ab"]
    scores = scored((queries[0], prediction(queries[0], [(2, 6, 1.0)])), (queries[1], None))
    assert (scores["grounding/mIoU"], scores["moments/MR-full-mAP"]) == (50, 50)


def test_a_moment_that_was_not_published_is_not_scored():
    query = Query("q", "v", "grounding", "a dog")
    assert scored((query, prediction(query, [(2, 6, 1.0)]))) == {}


def test_saliency_is_scored_where_it_is_annotated():
    ratings = ((0.0, 0.0, 0.0), (4.0, 4.0, 4.0), (1.0, 1.0, 4.0))
    query = Query("q", "v", "grounding", "a dog", MOMENTS[:1], saliency=ratings, clip_s=2.0)
    scores = scored((query, prediction(query, [(2, 4, 1.0)], (0.1, 0.9, 0.5))))
    assert scores["highlights/HL-min-VeryGood-Hit1"] == 100
    assert scores["highlights/HL-min-VeryGood-mAP"] == 100
    none = scored((query, prediction(query, [(2, 4, 1.0)])))
    assert (none["highlights/HL-min-VeryGood-Hit1"], none["highlights/missing"]) == (0, 1)


def test_labelled_videos_are_scored_by_their_own_benchmark():
    labels = ((0.0,), (1.0,), (1.0,), (0.0,))
    query = Query("v", "v", "highlights", "surfing", saliency=labels, clip_s=2.0, source="youtube_highlights")
    scores = scored((query, prediction(query, saliency=(0.1, 0.9, 0.8, 0.2))))
    assert scores["youtube_highlights/mAP"] == 1
    assert "highlights/n" not in scores


def test_the_evidence_of_an_answer_is_scored():
    query = Query("v_1", "v", "grounded_qa", "why?", MOMENTS, options=("a", "b"), answer=0)
    scores = scored((query, replace(prediction(query, [(3, 6, 0.9)]), option=0)))
    assert scores["grounded_qa/mIoP"] == 100
    assert scores["grounded_qa/mIoU"] == 75
    assert scores["grounded_qa/Acc@GQA"] == 100
    wrong = scored((query, replace(prediction(query, [(3, 6, 0.9)]), option=1)))
    assert (wrong["grounded_qa/Acc@GQA"], wrong["grounded_qa/mIoP"]) == (0, 100)


def test_chosen_options_are_counted():
    queries = [Query(name, "v", "qa", "why?", options=("a", "b"), answer=1) for name in "xyz"]
    answers = [replace(prediction(query), option=option) for query, option in zip(queries, (1, 0, None), strict=True)]
    scores = scored(*zip(queries, answers, strict=True))
    assert scores == {"qa/Acc": pytest.approx(100 / 3), "qa/n": 3, "qa/unparsed": 1}


def test_a_benchmark_run_and_the_score_command_agree(tmp_path):
    """QVHighlights from its published file, as queries and as annotations."""
    rows = [
        {"qid": n, "query": "a dog", "vid": f"v{n}", "duration": 20, "relevant_windows": [[2 * n, 2 * n + 6]],
         "relevant_clip_ids": [n, n + 1, n + 2], "saliency_scores": [[n % 5, 3, 4], [4, 4, 4], [2, 0, 1]]}
        for n in range(6)
    ]  # fmt: skip
    truth = tmp_path / "val.jsonl"
    truth.write_text("".join(json.dumps(row) + "\n" for row in rows))
    queries, _ = reader("qvhighlights")(truth)
    random = Random(0)
    answers = []
    for query in queries:
        starts = [random.uniform(0, 14) for _ in range(12)]
        spans = sorted(((a, a + random.uniform(1, 6), random.random()) for a in starts), key=lambda span: -span[2])
        answers.append((query, prediction(query, spans, (random.random() for _ in range(query.clips(20.0))))))
    (tmp_path / "predictions.jsonl").write_text("".join(answer.to_json() + "\n" for _, answer in answers))
    official = score("qvhighlights", tmp_path / "predictions.jsonl", truth)["metrics"]
    scores = {name.partition("/")[2]: value for name, value in scored(*answers).items()}
    shared = scores.keys() & official.keys()
    assert len(shared) == 9
    assert {name: scores[name] for name in shared} == pytest.approx({name: official[name] for name in shared})


def test_queries_without_moments_have_numbers_of_their_own():
    queries = [
        Query("a", "v", "grounding", "a dog", absent=True),
        Query("b", "v", "grounding", "a cat", absent=True),
        Query("c", "v", "grounding", "a red box", (Event(0, 4),)),
        Query("d", "v", "grounding", "not published"),
        Query("e", "v", "grounded_qa", "why?", options=("x", "y"), answer=1),
    ]
    said = [
        Prediction("a", "v", "grounding", "no", rule="none"),
        Prediction("b", "v", "grounding", "From 0 to 4.", ((0, 4, 1.0),), rule="range"),
        Prediction("c", "v", "grounding", "no", rule="none"),
        Prediction("d", "v", "grounding", "?", rule=None),
        Prediction("e", "v", "grounded_qa", "B", option=1),
    ]
    metrics = new_metrics()
    update_metrics(metrics, list(zip(queries, said, strict=True)))
    scores = compute_metrics(metrics)
    assert scores["sets/RefusalAcc"] == 50 and scores["sets/FalseAlarm"] == 50 and scores["sets/FalseRefusal"] == 100
    assert scores["grounding/n"] == 1 and scores["grounding/mIoU"] == 0 and scores["grounding/unparsed"] == 0
    assert scores["grounded_qa/Acc@QA"] == 100  # no window to find, no crash
