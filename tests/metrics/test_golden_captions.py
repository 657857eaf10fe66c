"""The official numbers of dense captioning, SODA, the caption scorers and E.T. Bench, from the golden files."""

import numpy as np
import pytest

from metrics.alignment import best_order_preserving_score, order_preserving_pairs
from metrics.benchmarks.etbench import TASKS, etbench_scores
from metrics.benchmarks.event_captions import event_scores
from metrics.benchmarks.formats.stories import Story
from metrics.benchmarks.options import choice_of_rvq
from metrics.benchmarks.timechat import paragraph_scores, timechat_video_scores
from metrics.benchmarks.vtimellm import log_scores
from metrics.captions import Meteor, meteor, tokenizer
from metrics.means import mean
from metrics.ngrams import bleu, cider, rouge_l
from metrics.soda import soda_scores

pytestmark = pytest.mark.golden


def predicted(data: dict) -> dict:
    return {
        video: [(*row["timestamp"], row.get("sentence", row.get("caption"))) for row in rows]
        for video, rows in data.items()
    }


def reference(data: dict) -> dict:
    return {
        video: [(*window, text) for window, text in zip(row["timestamps"], row["sentences"], strict=True)]
        for video, row in data.items()
    }


def test_metrics_scorers_without_java(golden, close):
    data = golden("caption_scorers_pretokenised")
    for case, inputs in data["inputs"].items():
        names = list(inputs["references"])
        hypotheses = [inputs["hypotheses"][name][0] for name in names]
        references = [inputs["references"][name] for name in names]
        scores, expected = cider(hypotheses, references), data["expected"][case]
        close({"score": mean(scores), "per_item": scores}, expected["CIDEr"], 1e-9, case)
        close({"score": bleu(hypotheses, references)}, {"score": expected["BLEU1-4"]["score"]}, 1e-9, case)
        scores = rouge_l(hypotheses, references)
        close({"score": mean(scores), "per_item": scores}, expected["ROUGE_L"], 1e-9, case)


def test_metrics_tokens_and_meteor(golden, close, java):
    data = golden("ptb_and_meteor")
    pairs, expected = data["inputs"]["pairs"], data["expected"]
    tokens = tokenizer()(text for pair in pairs for text in pair)
    assert [tokens[pair[0]] for pair in pairs] == expected["tokens_hypothesis"]
    assert [tokens[pair[1]] for pair in pairs] == expected["tokens_reference"]
    items = [(tokens[pairs[i][0]], tokens[pairs[i][1]]) for i in expected["meteor_items"]]
    scorer: Meteor = meteor()
    forward, swapped = scorer.score([items, [pair[::-1] for pair in items]])
    close(forward, [*expected["meteor_per_item"], expected["meteor_aggregate"]], 1e-6)
    close(swapped, [*expected["meteor_swapped_per_item"], expected["meteor_swapped_aggregate"]], 1e-6)


def test_metrics_soda_matrices(golden, close):
    data = golden("soda_dp_matrices")
    for matrix, expected in zip(data["inputs"]["score_matrices"], data["expected"]["dp"], strict=True):
        close(best_order_preserving_score(np.array(matrix)), expected["max_score"], 1e-12)
        assert [list(pair) for pair in order_preserving_pairs(np.array(matrix), "official")] == expected["pairs"]


def test_metrics_soda_original(golden, close, java):
    data = golden("soda_original_anet")
    stories = predicted(data["inputs"]["predictions"])
    files = [reference(file) for file in data["inputs"]["references"]]
    expected = data["expected"]
    for kind in "abcd":
        close(soda_scores(stories, files[1:], kind, "merged", "official"), expected[f"soda_{kind}_ref2_only"], 1e-6)
    merged = soda_scores(stories, files, "c", "merged", "official")
    close(merged, expected["soda_c_two_refs_merged_default"], 1e-6)
    best = soda_scores(stories, files, "c", "best", "official")
    close(best, expected["soda_c_two_refs_multi_reference_flag"], 1e-6)
    by_cider = soda_scores(stories, files[1:], "c", "merged", "official", "CIDEr")
    close(by_cider, expected["soda_c_cider_ref2_only"], 1e-6)
    empty = predicted(data["inputs"]["predictions_with_empty"])
    video = next(iter(empty))
    story = {video: next(file[video] for file in files if video in file)}
    # the original stops at an empty list; here it counts 0, as in ActivityNet's evaluation
    assert soda_scores(empty, [story], "c", "merged", "official")["f1"] == 0


def test_metrics_dense_captioning(golden, close, java):
    data = golden("dvc_anet")
    stories = predicted(data["inputs"]["predictions"])
    files = [reference(file) for file in data["inputs"]["references"]]
    expected = data["expected"]
    close(event_scores(stories, files, policy="official"), expected["eval_dvc_two_refs"], 1e-6)
    close(event_scores(stories, files[1:], policy="official"), expected["eval_dvc_one_ref"], 1e-6)
    localisation = event_scores(stories, files, policy="official", captions=False)
    close(localisation, expected["eval_dvc_localisation_only"], 1e-6)
    for number, name in ((files, "two_refs"), (files[1:], "one_ref")):
        soda = soda_scores(stories, number, "c", "average", "official")["f1"]
        close(soda, expected[f"eval_soda_{name}"]["soda_c"], 1e-6)


def test_metrics_dense_captioning_edge_cases(golden, close, java):
    data = golden("dvc_edge_cases")
    for case, inputs in data["inputs"].items():
        stories = predicted(inputs["predictions"])
        files = [reference(file) for file in inputs["references"]]
        expected = data["expected"][case]
        close(event_scores(stories, files, policy="official"), expected["eval_dvc"], 1e-6, case)
        soda = soda_scores(stories, files, "c", "average", "official")["f1"]
        close(soda, expected["eval_soda"]["soda_c"], 1e-6, case)


def test_metrics_timechat(golden, close, java):
    data = golden("timechat_dvc_youcook2")
    references = {
        row["image_id"]: [
            (*window, text + ".") for window, text in zip(row["segments"], row["pure_cap"].split(". "), strict=True)
        ]
        for row in data["inputs"]["annotations"]
    }
    stories = predicted(data["inputs"]["predictions"])
    expected, per_video = data["expected"]["means"], data["expected"]["per_video"]
    official = timechat_video_scores(stories, references, "official")
    means = {key: mean(row[key] for row in official.values()) for key in next(iter(official.values()))}
    soda = next(key for key in expected if key.startswith("SODA_c") and expected[key] != -1)
    close(means, {key: value for key, value in expected.items() if not key.startswith("SODA")}, 1e-6)
    close(means["SODA_c"], expected[soda], 1e-6)
    for key in per_video.keys() - {"key"}:
        name = "SODA_c" if key.startswith("SODA_c") else key
        close([official[video][name] for video in per_video["key"]], per_video[key], 1e-6, key)
    numeric = data["expected"][f"{soda}_if_columns_were_in_numeric_order"]
    sound = timechat_video_scores(stories, references)
    close([sound[video]["SODA_c"] for video in per_video["key"]], numeric["per_video"], 1e-6)
    printed = data["expected"]["printed_percent_1_decimal"]
    for name, value in paragraph_scores(stories, references, "official").items():
        assert round(100 * value, 1) == printed[name]


@pytest.mark.parametrize("name", ["vtimellm_captioning_logs", "vtimellm_repo_example"])
def test_metrics_vtimellm_logs(golden, close, java, name):
    data = golden(name)
    durations = {video: row["duration"] for video, row in data["inputs"]["annotations"].items()}
    stories = {
        video: Story(tuple(events), durations[video])
        for video, events in reference(data["inputs"]["annotations"]).items()
    }
    scores, _ = log_scores(data["inputs"]["logs"], stories, "official")
    close(scores, {**data["expected"]["captioning"], **data["expected"]["grounding"]}, 1e-4)


def test_metrics_etbench_edge_cases(golden, close, java, encoder):
    data = golden("etbench_edge_cases")
    for case, inputs in data["inputs"].items():
        task = inputs["function"].split("_")[0]
        close(TASKS[task](inputs["samples"], "official"), data["expected"][case]["unrounded"], 1e-6, case)


def test_metrics_etbench_all_tasks(golden, close, java, encoder):
    data = golden("etbench_all_tasks")
    expected = data["expected"]["unrounded"]
    scores = etbench_scores(data["inputs"]["samples"], "official")
    spread = data["expected"]["SentSim_over_8_random_seeds"]
    for task, sources in expected["per_task_source"].items():
        for source, numbers in sources.items():
            random = numbers.pop("SentSim", None)  # one draw; the mean over seeds is compared instead
            close(scores["per_task_source"][task][source], numbers, 1e-6, f"{task}/{source}")
            if random is not None:
                similarity = scores["per_task_source"][task][source]["SentSim"]
                close(similarity, spread[f"{task}/{source}"]["mean"], 5e-3, f"{task}/{source}")
    exact = {key: value for key, value in expected["task_means"].items() if not key.endswith("Sim")}
    close(scores["task_means"], exact, 1e-6)
    close(scores["task_means"], expected["task_means"], 1e-2)
    for task, sources in data["expected"]["strict_rvq_variant_unrounded"].items():
        rows = [sample for sample in data["inputs"]["samples"] if sample["task"] == task]
        chosen = [choice_of_rvq(row["a"], row["o"], row["p"], final=True) for row in rows]
        accuracy = mean(choice.option == row["p"] for choice, row in zip(chosen, rows, strict=True))
        failed = sum(not choice.letter for choice in chosen)
        close({"Acc": accuracy, "Failed": failed, "Total": len(rows)}, next(iter(sources.values())), 1e-6, task)
