"""Charades-STA: one sentence, one moment. The text file knows no durations; ``Charades_v1_*.csv`` give them."""

import re
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from datamodules.schema import Query
from datamodules.skips import OnError
from preparation.annotations.durations import read_durations
from preparation.annotations.files import Records, read_text

LAYOUTS = (
    "text lines '3MSZA 24.3 30.4##person turn a light on.'; {database: {video: {duration, annotations: [{label, "
    "segment}]}}}; {video: {duration, timestamps, sentences}}; rows {vid, query, duration, gt} (relevant_windows, "
    "timestamp), alone or under annotations; or lists [video, duration, [start, end], sentence]"
)
LINE = re.compile(r"(\S+) (\S+) (\S+)\s*##(.*)")


class Moment(NamedTuple):
    """One sentence of a file, not checked yet."""

    where: str
    id: str | None
    """None: by its place among the sentences of the video."""
    video: Any
    duration_s: Any
    spans: Any
    """One span, or a list of them."""
    text: Any


def read(
    path: Path, on_error: OnError = "fail", durations: Path | None = None, repair: bool = False
) -> tuple[list[Query], Counter[str]]:
    """Read the whole file.

    Args:
        path: the published text, or a json of one of ``LAYOUTS``.
        on_error: ``fail``, or ``skip`` to leave out what is wrong and count it.
        durations: file with the length of each video; what it says goes before the annotation file.
        repair: mend windows that are reversed, overrun the video or have no length, and count them.

    Returns:
        One ``grounding`` query a sentence, and how many were left out for each reason.

    Raises:
        ValueError: the file has another layout, or (``fail``) naming file, place and what is wrong.
    """
    records = Records(path, on_error, LAYOUTS, repair)
    lengths = read_durations(durations) if durations else {}
    counts: Counter[str] = Counter()
    for where, name, video, duration_s, spans, text in _moments(records):
        with records.entry(where):
            if not video or not text:
                raise ValueError(f"no video or no sentence: {video!r}, {text!r}")
            length_s = lengths.get(video, duration_s)
            if durations and length_s is None:
                raise ValueError(f"video without a duration: {video!r} is not in {durations}")
            counts[video] += 1
            several = spans if spans and isinstance(spans[0], (list, tuple)) else [spans]
            events = tuple(records.event(span, length_s) for span in several)
            name = name or f"{video}/grounding/{counts[video] - 1}"
            records.add(Query(name, video, "grounding", text.strip(), events, (), length_s))
    return records.finish()


def _moments(records: Records) -> list[Moment]:
    """Everything in the file, whatever its layout."""
    if records.path.suffix == ".txt":
        return _lines(records)
    if records.path.suffix == ".jsonl":
        return _rows(records, [row for _, row in records.rows(())])
    content = records.json()
    if isinstance(content, dict) and isinstance(content.get("annotations"), list):
        return _rows(records, content["annotations"])
    if isinstance(content, list) and content and isinstance(content[0], dict):
        return _rows(records, content)
    if isinstance(content, list) and content and isinstance(content[0], list) and len(content[0]) == 4:
        return [Moment(f"record {place}", None, *_four(row)) for place, row in enumerate(content)]
    videos = content.get("database", content) if isinstance(content, dict) else None
    if not isinstance(videos, dict) or not videos:
        raise records.refuse(content)
    return [moment for video, story in videos.items() for moment in _video(records, content, video, story)]


def _lines(records: Records) -> list[Moment]:
    found = []
    for place, line in enumerate(read_text(records.path).split("\n"), 1):
        if line.strip():
            with records.entry(f"line {place}"):
                if not (match := LINE.fullmatch(line.strip())):
                    raise ValueError(f"not 'VIDEO start end##sentence': {line[:60]!r}")
                span = float(match[2]), float(match[3])
                found.append(Moment(f"line {place}", None, match[1], None, span, match[4]))
    return found


def _rows(records: Records, rows: list) -> list[Moment]:
    """Rows as others converted them; their ids are those that the evaluator gives."""
    found = []
    for place, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            records.skips.add(f"{records.path}, record {place}", "entry of another layout", repr(row)[:60])
            continue
        spans = row.get("gt", row.get("relevant_windows", row.get("timestamp")))
        video = row.get("vid", row.get("video", row.get("video_id", row.get("image_id"))))
        text = row.get("query", row.get("sentence", row.get("text", row.get("caption"))))
        if None in (video, text) and not found:
            raise records.refuse(rows)
        name = str(row.get("id", row.get("qid", place)))
        found.append(Moment(f"record {place}", name, video and Path(str(video)).stem, row.get("duration"), spans, text))
    return found


def _four(row) -> list:
    """Video, duration, span and sentence of a list; nothing of anything else, which is refused later."""
    return row if isinstance(row, list) and len(row) == 4 else [None] * 4


def _video(records: Records, content: dict, video: str, story) -> list[Moment]:
    where = f"video {video!r}"
    if isinstance(story, dict) and isinstance(story.get("annotations"), list):
        pairs = [(item.get("segment"), item.get("label")) for item in story["annotations"]]
    elif isinstance(story, dict) and {"timestamps", "sentences"} <= set(story):
        spans, sentences = story["timestamps"], story["sentences"]
        if len(spans) != len(sentences):
            detail = f"{len(spans)} timestamps for {len(sentences)} sentences"
            records.skips.add(f"{records.path}, {where}", "video with another number of times", detail)
            return []
        pairs = list(zip(spans, sentences, strict=True))
    else:
        raise records.refuse(content)
    return [Moment(f"{where}, event {k}", None, video, story.get("duration"), *pair) for k, pair in enumerate(pairs)]
