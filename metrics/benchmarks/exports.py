"""This project's predictions in the files that leaderboards and official evaluators take."""

import io
import json
import math
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from metrics.benchmarks.etbench_files import CAPTION_TASKS, OPTION_TASKS, WINDOW_TASKS, peak
from metrics.benchmarks.formats.files import FileError, by_id, describe, each, need
from metrics.benchmarks.formats.stories import event_window

Rows = Sequence[tuple[Mapping, Mapping | None]]
"""Records of a query file, each with its record of predictions.jsonl, or None where it has no answer."""
CLIP_S = 2.0
"""Seconds of a clip of QVHighlights."""
NOTHING = [0.0, 0.0]
"""A window that overlaps no other, where a format must have one."""


@dataclass(frozen=True)
class Format:
    """One format of predictions."""

    about: str
    files: Callable[[Rows, Counter], dict[str, str]]
    """Rows, and what to count -> the content of each file by its name."""
    benchmark: str
    """The name in ``BENCHMARKS`` that reads it back."""


def windows(answer: Mapping | None) -> list[list[float]]:
    """The predicted windows (start, end, score), best first."""
    return [] if answer is None else [[*span[:2], span[2] if len(span) > 2 else 1.0] for span in answer["spans"]]


def best(answer: Mapping | None, counts: Counter) -> list[float]:
    """The first window; ``NOTHING``, counted, where there is none."""
    found = windows(answer)
    if not found:
        counts["without a window, written as [0, 0]"] += 1
    return found[0][:2] if found else NOTHING


def lines(rows: Sequence[Mapping]) -> str:
    """One JSON object a line."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def qvhighlights(rows: Rows, counts: Counter) -> dict[str, str]:
    """``submission.jsonl``: every query must be there, and its windows have scores."""
    rated = any(answer and answer.get("saliency") for _, answer in rows)
    found = []
    for query, answer in rows:
        if not str(query["id"]).isdecimal():
            raise FileError(f"query {query['id']!r}: a qid of QVHighlights is a number")
        name = {"qid": int(query["id"]), "query": query.get("text", ""), "vid": query["video"]}
        ranked = windows(answer) or [[*best(None, counts), 0.0]]
        found.append({**name, "pred_relevant_windows": ranked})
        if rated:
            length = need(query, ["duration_s"], f"query {query['id']!r}")
            scores = list(answer.get("saliency") or []) if answer else []
            found[-1]["pred_saliency_scores"] = scores or [0.0] * math.ceil(length / CLIP_S)
            counts["without saliency, written as 0"] += not scores
    return {"submission.jsonl": lines(found)}


def nextgqa(rows: Rows, counts: Counter) -> dict[str, str]:
    """``ground.json``: {"video_qid": [s, e]}; ``res.json``: {"video_qid": {answer, prediction}}."""
    ground = {query["id"]: best(answer, counts) for query, answer in rows}
    chosen = {}
    for query, answer in rows:
        option = answer.get("option") if answer else None
        counts["without an option, written as -1"] += option is None
        right = need(query, ["answer"], f"query {query['id']!r}", int)
        chosen[query["id"]] = {"answer": right, "prediction": -1 if option is None else option}
    return {"ground.json": json.dumps(ground), "res.json": json.dumps(chosen)}


def captions(rows: Rows, counts: Counter) -> dict[str, str]:
    """``captions.json``: {"results": {video: [{sentence, timestamp}]}}; videos without events are left out."""
    results = {}
    for query, answer in rows:
        events = list(zip(windows(answer), answer["captions"], strict=True)) if answer else []
        if not events:
            counts["without events, left out"] += 1
            continue
        results[query["video"]] = [{"sentence": text, "timestamp": window[:2]} for window, text in events]
    about = {"used": False, "details": ""}
    return {"captions.json": json.dumps({"version": "VERSION 1.0", "results": results, "external_data": about})}


def timelens(rows: Rows, counts: Counter) -> dict[str, str]:
    """``timelens.json``: {"video>>>query>>>[s, e]": {timestamps, answers}} with the first window."""
    found = {}
    for query, answer in rows:
        for event in query["events"]:
            key = f"{query['video']}>>>{query.get('text', '')}>>>{list(event_window(event, query['id']))}"
            said = {"timestamps": [best(answer, counts)], "answers": answer["answer"] if answer else ""}
            if key in found:
                raise FileError(f"query {query['id']!r}: its video, sentence and window are there twice")
            found[key] = said
    return {"timelens.json": json.dumps(found, ensure_ascii=False)}


def timechat(rows: Rows, counts: Counter) -> dict[str, str]:
    """``tvg.json``: {id: {timestamp, query, vid}} (TimeChat, VTG-LLM, TRACE)."""
    found = {}
    for query, answer in rows:
        about = {"timestamp": [best(answer, counts)], "query": query.get("text", ""), "vid": query["video"]}
        found[query["id"]] = about
    return {"tvg.json": json.dumps(found, ensure_ascii=False)}


def ego4d(rows: Rows, counts: Counter) -> dict[str, str]:
    """``nlq.json`` of the episodic memory challenge; ids are "clip_uid/annotation_uid/place of the query"."""
    results = []
    for query, answer in rows:
        parts = query["id"].split("/")
        if len(parts) != 3 or not parts[2].isdecimal():
            raise FileError(f"query {query['id']!r}: an id for Ego4D is clip_uid/annotation_uid/number")
        times = [window[:2] for window in windows(answer)[:5]] or [best(None, counts)]
        place = {"clip_uid": parts[0], "annotation_uid": parts[1], "query_idx": int(parts[2])}
        results.append({**place, "predicted_times": times})
    return {"nlq.json": json.dumps({"version": "1.0", "challenge": "ego4d_nlq_challenge", "results": results})}


def etbench(rows: Rows, counts: Counter) -> dict[str, str]:
    """``etbench.json``: the published records with ``a``, in sentences that the official code reads."""
    found = []
    for sample, answer in rows:
        said = sentence(sample, answer) if answer else ""
        counts["without an answer, written as empty"] += not said
        found.append({**sample, "a": said})
    return {"etbench.json": json.dumps(found, ensure_ascii=False)}


def sentence(sample: Mapping, answer: Mapping) -> str:
    """The answer to one sample of E.T. Bench in words."""
    task, found = sample["task"], windows(answer)
    spans = [f"{start:.2f} - {end:.2f}" for start, end, _ in found]
    said = ""
    if task in CAPTION_TASKS:
        pairs = zip(spans, answer["captions"], strict=True)
        return "\n".join(f"{span} seconds, {text}." for span, text in pairs)
    if task in OPTION_TASKS:
        said = "" if answer.get("option") is None else f"({chr(ord('A') + answer['option'])})"
    if task == "vhd":
        return f"{peak(found[0][:2], answer, sample['duration']):.2f} seconds" if found else ""
    if task in WINDOW_TASKS and spans:
        said = f"{said} {' and '.join(spans)} seconds".strip()
    return said


FORMATS = {
    "qvhighlights": Format("Moment-DETR's submission.jsonl", qvhighlights, "qvhighlights"),
    "nextgqa": Format("NExT-GQA's two files, windows and options", nextgqa, "nextgqa"),
    "activitynet_captions": Format("the ActivityNet challenge's captions.json", captions, "activitynet_captions"),
    "timelens": Format("TimeLens' and lmms-eval's video>>>query>>>span", timelens, "timelens_bench"),
    "timechat": Format("TimeChat's tvg.json", timechat, "moments"),
    "ego4d": Format("the Ego4D NLQ challenge's nlq.json", ego4d, "ego4d_nlq"),
    "etbench": Format("E.T. Bench's records with a (--queries: the published file)", etbench, "etbench"),
}
"""Name -> what it is."""


def export(name: str, predicted: Path, asked: Path) -> tuple[dict[str, str], dict[str, int]]:
    """Predictions in a format of the field.

    Args:
        name: one of ``FORMATS``.
        predicted: predictions.jsonl of this project, or its folder.
        asked: the queries; for ``etbench`` the published annotation file.

    Returns:
        File name -> content; and counts: queries written, answers to nothing that was asked, and what was put where an
        answer says nothing.

    Raises:
        FileError: files that do not fit, or no query has an answer.
        ValueError: there is no such format.
    """
    if name not in FORMATS:
        raise ValueError(f"unknown format {name!r}; known: {', '.join(FORMATS)}")
    key = "idx" if name == "etbench" else "id"
    queries = by_id(((str(need(row, [key], f"{asked}, record {i}")), row) for i, row in each(asked)), asked)
    answers = by_id((own_row(row, f"{predicted}, record {i}") for i, row in each(predicted)), predicted)
    if not queries.keys() & answers.keys():
        raise FileError(f"{predicted}: none of the {len(queries)} queries of {asked} has an answer in it")
    counts: Counter = Counter()
    try:
        files = FORMATS[name].files([(row, answers.get(query)) for query, row in queries.items()], counts)
    except FileError as error:
        raise FileError(f"{asked}: {error}") from None
    except KeyError as error:
        raise FileError(f"{asked}: not the queries of {name}: a record has no key {error}") from None
    about = {"queries": len(queries), "missing": len(queries.keys() - answers.keys())}
    about["unknown"] = len(answers.keys() - queries.keys())
    return files, about | {what: count for what, count in counts.items() if count}


def own_row(row: Mapping, where: str) -> tuple[str, Mapping]:
    """Query id and record of a line of predictions.jsonl."""
    spans = need(row, ["spans"], where, list)
    if not all(isinstance(span, list) and len(span) in (2, 3) for span in spans):
        raise FileError(f"{where}: spans must be [start, end, score], got {describe(spans)}")
    return need(row, ["query_id"], where, str), row


def zipped(files: Mapping[str, str]) -> bytes:
    """The files as an archive without folders; equal files give equal bytes."""
    with zipfile.ZipFile(buffer := io.BytesIO(), "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()
