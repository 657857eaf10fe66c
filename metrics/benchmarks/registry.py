"""What can be scored, without importing what scores it: names, units, official evaluators, known differences."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module

TIMELENS = "TimeLens evaluation/compute_metrics.py (5d90c06)"
GROUNDING = {
    "timelens": TIMELENS,
    "timechat": "TimeChat metrics/tvg/eval_tvg.py (c60b332)",
    "etchat": "E.T. Chat etchat/eval/eval_grounding.py (445f620)",
    "lighthouse": "lighthouse training/standalone_eval (d095eaa): ranked windows",
    "univtg": "UniVTG eval/eval.py (32659ac): ranked windows",
    "vidchapters": "VidChapters moment_detr/standalone_eval (fa3900c): ranked windows",
    "lmms_eval_charades": "lmms-eval tasks/charades_sta (75571cf); chosen by itself for its --log_samples",
    "lmms_eval_timelens": "lmms-eval tasks/timelens (75571cf); chosen by itself for its --log_samples",
    "lmms_eval_extremewhenbench": "lmms-eval tasks/extremewhenbench (75571cf); chosen by itself for its --log_samples",
    "timelens2": "TimeLens2 evaluation/vlmeval/dataset/timelens.py (a5ce450); chosen by itself for its tables",
    "ego4d": "Ego4D episodic-memory NLQ evaluate_ego4d_nlq.py (5275b95)",
}
"""Evaluators of one window a query."""
MOMENTS = (
    "predictions.jsonl; rows of an id, or video and query, with windows or an answer in text; "
    "{video: {query: {start, end, conf}}}; {'video>>>query>>>span': ..}; {qid: {timestamp, query, vid}}; "
    "lmms-eval --log_samples; VLMEvalKit tables"
)
SETS = "predictions.jsonl; rows of an id with windows or an answer in text; VLMEvalKit tables"
EVENTS = "predictions.jsonl; {video: [{timestamp, sentence}]}; {video: text}; rows of a video with an answer in text"


@dataclass(frozen=True)
class Benchmark:
    """One line of the table of benchmarks."""

    run: str
    """module:function in ``metrics.benchmarks``; it takes a Job and gives a Result."""
    about: str
    """What is scored."""
    unit: str
    files: str
    """What prediction files may look like."""
    evaluators: Mapping[str, str] = field(default_factory=dict)
    """Official evaluators: name -> where it stands. The first is what ``--policy official`` follows."""
    differs: str = ""
    """What is known to differ under ``official``."""
    carries: bool = False
    """Prediction files may carry their annotations."""

    def function(self) -> Callable:
        """What scores it."""
        module, _, name = self.run.partition(":")
        return getattr(import_module(f"metrics.benchmarks.{module}"), name)


def grounding(about: str, first: str = "timelens") -> Benchmark:
    """A benchmark of one window a query."""
    evaluators = {first: GROUNDING[first], **GROUNDING}
    differs = "queries without an answer count 0, where evaluators of one file cannot know of them"
    return Benchmark("grounding:grounding", about, "percent", MOMENTS, evaluators, differs, carries=True)


BENCHMARKS: dict[str, Benchmark] = {
    "queries": Benchmark(
        "queries:queries",
        "this project's predictions against its query files, all tasks",
        "percent",
        "predictions.jsonl, or its folder",
    ),
    "qvhighlights": Benchmark(
        "qvhighlights:qvhighlights",
        "moment retrieval (mAP, R@1) and highlights (mAP, HIT@1)",
        "percent",
        "predictions.jsonl; submissions {qid, pred_relevant_windows, pred_saliency_scores}, also with windows in text",
        {
            "moment_detr": "Moment-DETR standalone_eval (b7e553a)",
            "timechat": "TimeChat metrics/vhd (c60b332): only queries that both files have",
            "univtg": "UniVTG eval/eval.py (32659ac): R@5 and mIoU",
            "lighthouse": "lighthouse training/standalone_eval (d095eaa): one length range",
        },
        "official numbers are rounded to two decimals; submissions at which the official code stops are refused",
    ),
    "charades_sta": grounding("Charades-STA: R@1, mIoU (R@5, mAP of ranked windows)"),
    "activitynet_grounding": grounding("ActivityNet Captions grounding: R@1, mIoU"),
    "timelens_bench": grounding("TimeLens-Bench (its three files), TimeLens-100K, TimeLens2-93K: R@1, mIoU"),
    "tacos": grounding("TACoS: R@1, mIoU (R@5, mAP of ranked windows)", "lighthouse"),
    "ego4d_nlq": grounding("Ego4D NLQ: R@1, R@5, mIoU", "ego4d"),
    "extremewhenbench": grounding("ExtremeWhenBench, hour-long videos: R@1, mIoU", "lmms_eval_extremewhenbench"),
    "moments": grounding("any other file of moments (TVGBench, one's own): R@1, mIoU"),
    "didemo": Benchmark(
        "didemo:didemo",
        "DiDeMo: R@1, R@5, mIoU with the best three annotators",
        "percent",
        "rows {annotation_id, ranked segments}; predictions.jsonl; windows in seconds",
        {"didemo": "LocalizingMoments utils/eval.py (b6a555c)"},
        "a moment that is not ranked comes behind all 21, where the official code stops",
    ),
    "omtg": Benchmark(
        "moment_sets:omtg",
        "OMTG-Bench, several moments a query: tIoU, C-Acc, EtF1",
        "percent",
        SETS,
        {"vlmevalkit_omtg": "VLMEvalKit dataset/omtgbench.py (e8e78f0)"},
        carries=True,
    ),
    "vue_tr": Benchmark(
        "moment_sets:vue_tr",
        "VUE-TR: areas under the curves of IoU, precision, recall",
        "percent",
        SETS,
        {"vidi_v1": "Vidi VUE_TR/qa_eval.py (fc30c87)"},
        "queries without a prediction are left out, as there",
        carries=True,
    ),
    "vue_tr_v2": Benchmark(
        "moment_sets:vue_tr",
        "VUE-TR-V2: areas under the curves of IoU, precision, recall",
        "percent",
        SETS,
        {"vidi_v2": "Vidi VUE_TR_V2/qa_eval.py (fc30c87)"},
        "queries without a prediction are left out, as there",
        carries=True,
    ),
    "momentseeker": Benchmark(
        "moment_sets:momentseeker",
        "MomentSeeker (TimeLens2's tables): IoU of sets of windows",
        "percent (official: fractions)",
        SETS,
        {"timelens2_vue": "TimeLens2 evaluation/vlmeval/dataset/moment_seeker.py (a5ce450), without its judge"},
        carries=True,
    ),
    "nextgqa": Benchmark(
        "questions:nextgqa",
        "NExT-GQA: Acc@GQA, IoP, IoU, Acc@QA",
        "percent",
        "two files, {video_qid: [s, e]} and {video_qid: {answer, prediction}}, or one {ground, qa}; predictions.jsonl",
        {"nextgqa": "NExT-GQA code/TempGQA/eval_ground.py (63772e0)"},
        "official numbers are rounded to one decimal",
    ),
    "rextime": Benchmark(
        "questions:rextime",
        "ReXTime: accuracy, mIoU, R@1, right answers with IoU 0.5",
        "percent",
        "rows {qid, pred_relevant_windows, ans}; predictions.jsonl",
        {"rextime": "ReXTime evaluation/rextime_eval.py (cb9f484)"},
        "accuracy in percent; the official code, which fails on its own range filter, prints fractions",
    ),
    "videomind": Benchmark(
        "questions:videomind",
        "VideoMind's outputs: IoU, IoP of ranked windows, answers",
        "percent",
        "rows {pred, conf, span, response, ans, options}, as VideoMind writes them",
        {"videomind": "VideoMind videomind/eval/eval_auto.py (6721d25)"},
        carries=True,
    ),
    "cgbench": Benchmark(
        "questions:cgbench",
        "CG-Bench in VideoMind's outputs: rec@IoU, acc@IoU, long-acc",
        "percent",
        "rows {pred, span, response, ans, options}, as VideoMind writes them",
        {"videomind": "VideoMind videomind/eval/eval_auto.py --dataset cgbench (6721d25)"},
        carries=True,
    ),
    "activitynet_captions": Benchmark(
        "dense_events:event_captions",
        "ActivityNet Captions: SODA_c, METEOR, CIDEr, P/R/F1",
        "fractions (METEOR .1058 is 10.58 in papers; CIDEr 0-10)",
        EVENTS,
        {
            "vidchapters": "VidChapters dvc_eval (fa3900c), VTimeLLM (c34ae56): leaves videos without prediction out",
            "challenge": "densevid_eval (9d4045a), PDVC evaluate2018/2021 (0b025c8): they count 0",
        },
        "captions that match nothing meet one fixed word, not a random one (below 1e-15)",
    ),
    "vidchapters": Benchmark(
        "dense_events:event_captions",
        "VidChapters-7M, ViTT: SODA_c, METEOR, CIDEr, P/R/F1, boundaries (@5s)",
        "fractions (CIDEr 0-10)",
        EVENTS,
        {"vidchapters": "VidChapters dvc_eval (fa3900c)"},
        "captions that match nothing meet one fixed word, not a random one (below 1e-15)",
    ),
    "youcook2": Benchmark(
        "dense_events:youcook2",
        "YouCook2 in the style of Vid2Seq and TimeChat",
        "fractions (CIDEr 0-10)",
        EVENTS,
        {"timechat": "TimeChat metrics/dvc/eval_dvc.py (c60b332)"},
        "captions that match nothing meet one fixed word, not a random one (below 1e-15)",
    ),
    "vtimellm_log": Benchmark(
        "vtimellm:vtimellm_log",
        "logs of VTimeLLM's evaluation: SODA_c, METEOR, CIDEr, grounding",
        "times 100",
        "lines {video_id, task, query_id, answer, info}; predictions.jsonl",
        {"vtimellm": "VTimeLLM vtimellm/eval/metric.py (c34ae56)"},
    ),
    "etbench": Benchmark(
        "etbench_files:etbench",
        "E.T. Bench: twelve tasks, per source",
        "fractions",
        "records with an answer (a), one JSON file or one line each; {task, source, idx, a}; predictions.jsonl",
        {"etbench": "E.T. Bench evaluation/compute_metrics.py (as in d2vlm 756d340)"},
        "official numbers are rounded to five decimals at every step; SentSim is random there (about 0.002)",
    ),
    "tvsum": Benchmark(
        "labelled_videos:labelled_videos",
        "TVSum: top-5 mAP, also per domain",
        "fractions",
        "{vid, pred_saliency_scores} a line; predictions.jsonl",
        {"lighthouse": "lighthouse training/evaluate.py (d095eaa)"},
        "official numbers are rounded to five decimals; equal scores are ranked by torch's unstable sort",
    ),
    "youtube_highlights": Benchmark(
        "labelled_videos:labelled_videos",
        "YouTube Highlights: mAP, also per domain",
        "fractions",
        "{vid, pred_saliency_scores} a line; predictions.jsonl",
        {"lighthouse": "lighthouse training/evaluate.py (d095eaa)"},
        "official numbers are rounded to five decimals; equal scores are ranked by torch's unstable sort",
    ),
}
"""Name -> what it is. The names are those of ``evaluate.py score --benchmark``."""


def benchmark(name: str) -> Benchmark:
    """One of ``BENCHMARKS``.

    Raises:
        ValueError: there is none of this name.
    """
    if name not in BENCHMARKS:
        raise ValueError(f"unknown benchmark {name!r}; known: {', '.join(BENCHMARKS)}")
    return BENCHMARKS[name]
