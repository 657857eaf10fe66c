"""One's own videos: this project's ``queries.jsonl``, one record a line (here broken for reading), checked.

::

    {"id": "a", "video": "kitchen", "task": "grounding", "text": "a man opens the door",
     "events": [{"start_s": 3.2, "end_s": 7.9}], "duration_s": 60.0}
    {"id": "b", "video": "kitchen", "task": "dense_captioning",
     "events": [{"start_s": 3.2, "end_s": 7.9, "caption": "a man opens the door"}]}
    {"id": "c", "video": "kitchen", "task": "qa", "text": "what is red?", "options": ["a door", "a cup"], "answer": 1}

``video`` is the id of the features (for a file in a folder, its name without the ending, or its path in the folder
where names repeat); all times are seconds; ``duration_s`` may be left out, and then events are held against the
features. ``datamodules.schema.Query`` says which fields each task needs.
"""

from collections import Counter
from pathlib import Path

from datamodules.query_files import query_from_dict
from datamodules.schema import Query
from datamodules.skips import OnError
from preparation.annotations.files import Records


def read(path: Path, on_error: OnError = "fail", repair: bool = False) -> tuple[list[Query], Counter[str]]:
    """Read the whole file.

    Args:
        path: the jsonl.
        on_error: ``fail``, or ``skip`` to leave out lines that are wrong and count them.
        repair: mend windows that are reversed, overrun the video or have no length, and count them.

    Returns:
        The queries, and how many lines were left out for each reason.

    Raises:
        ValueError: the file has another layout, or (``fail``) naming file, line and what is wrong.
    """
    records = Records(path, on_error, 'one JSON object a line, {"id", "video", "task", ..}', repair)
    rows = records.rows(("id", "video", "task"))
    for where, row in rows:
        with records.entry(where):
            events = []
            for event in row.get("events", ()):
                start_s, end_s = records.event((event["start_s"], event["end_s"]), row.get("duration_s")).span
                events.append({**event, "start_s": start_s, "end_s": end_s})
            records.add(query_from_dict({**row, "events": events} if events else row))
    return records.finish()
