"""Answers to take away: JSON lines, a table of moments as csv, subtitles."""

import csv
import io
import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

from reports.results import Moment, Moments

COLUMNS = ("video", "query_id", "task", "asked", "rank", "start_s", "end_s", "score", "caption", "answer")


def write_whole(path: Path, content: str) -> None:
    """Write a text file; it is there when it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(content, encoding="utf-8", errors="backslashreplace", newline="")
    os.replace(partial, path)


def answer_lines(results: Iterable[Moments]) -> str:
    """One JSON line an answer: that of ``predictions.jsonl``, with what was asked and of which file."""
    lines = []
    for result in results:
        file = {} if result.file is None else {"file": str(result.file)}
        about = {"asked": result.query.title, **file, "duration_s": result.duration_s}
        lines.append(json.dumps(json.loads(result.prediction.to_json()) | about, ensure_ascii=False) + "\n")
    return "".join(lines)


def moments_csv(results: Iterable[Moments]) -> str:
    """One row a moment; an answer without any has one row without times."""
    buffer = io.StringIO()
    table = csv.DictWriter(buffer, COLUMNS, lineterminator="\r\n")
    table.writeheader()
    for result in results:
        query = result.query
        about = {"video": query.video, "query_id": query.id, "task": query.task, "asked": query.title}
        about["answer"] = result.text
        rows = [{"rank": rank, **_rounded(asdict(moment))} for rank, moment in enumerate(result, 1)] or [{}]
        table.writerows({key: _plain(value) for key, value in (about | row).items()} for row in rows)
    return buffer.getvalue()


def _rounded(row: dict) -> dict:
    """To a thousandth of a second; predictions in full are in the JSON lines."""
    return {name: round(value, 4 if name == "score" else 3) if isinstance(value, float) else value
            for name, value in row.items()}  # fmt: skip


def _plain(value: object) -> object:
    """Text that a spreadsheet would take for a formula is marked as text."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@") else value


def srt(entries: Sequence[tuple[Moment, str]]) -> str:
    """Subtitles as most players read them."""
    times = [f"{_clock(one.start_s, ',')} --> {_clock(one.end_s, ',')}" for one, _ in entries]
    texts = [_one_block(text) for _, text in entries]
    return "".join(f"{n}\n{time}\n{text}\n\n" for n, (time, text) in enumerate(zip(times, texts, strict=True), 1))


def vtt(entries: Sequence[tuple[Moment, str]]) -> str:
    """Subtitles as browsers read them."""
    escapes = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
    cues = [
        f"{_clock(one.start_s, '.')} --> {_clock(one.end_s, '.')}\n{_one_block(text).translate(str.maketrans(escapes))}"
        for one, text in entries
    ]
    return "\n\n".join(["WEBVTT", *cues]) + "\n"


SUBTITLES: dict[str, Callable[[Sequence[tuple[Moment, str]]], str]] = {"srt": srt, "vtt": vtt}


def subtitles(results: Iterable[Moments], most: int = 1) -> list[tuple[Moment, str]]:
    """What subtitles of one video say: its events, and of every other answer the first ``most`` moments, by time."""
    entries = [(moment, moment.caption or result.query.title) for result in results for moment in result.best(most)]
    return sorted(entries, key=lambda entry: (entry[0].start_s, entry[0].end_s))


def _clock(seconds: float, point: str) -> str:
    whole = round(max(seconds, 0.0) * 1000)
    return f"{whole // 3_600_000:02d}:{whole // 60_000 % 60:02d}:{whole // 1000 % 60:02d}{point}{whole % 1000:03d}"


def _one_block(text: str) -> str:
    """An empty line would end the subtitle."""
    return "\n".join(line.strip() for line in text.splitlines() if line.strip())
