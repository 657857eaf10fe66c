"""Logs of evaluation harnesses: lmms-eval's ``--log_samples`` and the tables of VLMEvalKit.

They carry the annotations that were asked, so they can be scored without another file.
"""

import ast
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from metrics.benchmarks.formats.files import FileError, first_of, need
from metrics.spans import is_number

SEPARATOR = ">>>"
TASKS = {
    "charades_sta_": "lmms_eval_charades",
    "timelens_": "lmms_eval_timelens",
    "ewb_": "lmms_eval_extremewhenbench",
}
"""How the metrics of a task of lmms-eval begin -> the evaluator that scores it."""


def is_lmms_log(content: object) -> bool:
    """True for the lines that lmms-eval writes with ``--log_samples``."""
    first = content[0] if isinstance(content, list) and content else None
    return isinstance(first, dict) and "doc_id" in first and ("filtered_resps" in first or "resps" in first)


def is_table(content: object) -> bool:
    """True for the rows of a result table of VLMEvalKit."""
    first = content[0] if isinstance(content, list) and content else None
    return isinstance(first, dict) and {"index", "video", "prediction"} <= first.keys()


def is_log(content: object) -> bool:
    """True for either."""
    return is_lmms_log(content) or is_table(content)


def evaluator_of(content: object) -> str | None:
    """The evaluator that the harness itself uses for a log; None for other files.

    Raises:
        FileError: a log of a task that is not known.
    """
    if is_lmms_log(content):
        for start, name in TASKS.items():
            if any(key.startswith(start) for key in content[0]):
                return name
        raise FileError(f"a log of an lmms-eval task that is not known; known metrics begin with {', '.join(TASKS)}")
    if is_table(content):
        if "gt" in content[0]:
            return "timelens2_vue"
        return "timelens2" if "gt_start" in content[0] or content[0].get("task_mode") == "miou" else "vlmevalkit_omtg"
    return None


def log_answers(content: list, path: Path | str) -> Iterator[dict]:
    """The fields of an ``Answer`` for each row of a log."""
    read = lmms_answer if is_lmms_log(content) else table_answer
    for number, row in enumerate(content, 1):
        yield read(row, f"{path}, record {number}")


def lmms_answer(row: Mapping, where: str) -> dict:
    """A line of ``--log_samples``: the question is told by the keys of its metrics, by ``doc`` or by ``target``."""
    said = need(row, ["filtered_resps", "resps"], where)
    while isinstance(said, list) and said:
        said = said[0]
    fields = {"where": where, "id": str(need(row, ["doc_id"], where)), "said": said if isinstance(said, str) else ""}
    for value in row.values():
        if isinstance(value, dict) and len(value) == 1 and SEPARATOR in next(iter(value)):
            video, *text, target = next(iter(value)).split(SEPARATOR)
            fields["said"] = str(next(iter(value.values())))
            return fields | {"video": video, "text": SEPARATOR.join(text), "target": literal(target, where)}
    record = next((value for value in row.values() if isinstance(value, dict) and "gt" in value), None)
    if record is not None:  # extremewhenbench
        fields |= {"id": str(record.get("qid", fields["id"])), "target": record["gt"], "said": str(record["pred_raw"])}
        return fields | {"video": str(record.get("video_id", "")), "text": str(record.get("qid", ""))}
    doc = row.get("doc") if isinstance(row.get("doc"), dict) else {}
    target = literal(str(need(row, ["target"], where)), where)
    video, text = first_of(doc, ("video", "video_path", "video_id")), first_of(doc, ("query", "caption", "question"))
    return fields | {"video": video, "text": text, "target": target}


def table_answer(row: Mapping, where: str) -> dict:
    """A row of a table: ``video``, ``question``, ``answer`` (or ``gt``), ``prediction``."""
    said = row.get("prediction")
    length = row.get("duration")
    return {
        "where": where,
        "id": str(need(row, ["index"], where)),
        "video": str(need(row, ["video"], where)),
        "text": str(first_of(row, ("question", "query"), "")),
        "said": None if said is None else str(said),
        "target": first_of(row, ("gt", "answer")),
        "duration_s": float(length) if is_number(length) else None,
    }


def literal(text: str, where: str) -> object:
    """The value of a target that Python or JSON wrote as text.

    Raises:
        FileError: it is none.
    """
    for read in (json.loads, ast.literal_eval):
        try:
            return read(text)
        except (ValueError, SyntaxError, RecursionError):
            continue
    raise FileError(f"{where}: no target window in {text!r:.60}")
