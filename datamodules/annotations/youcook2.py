"""YouCook2: recipes with a sentence for each step.

``youcookii_annotations_trainval.json``: ``{"database": {"xHr8X2Wpmno": {"duration": 206.86, "subset": "validation",
"annotations": [{"segment": [47, 60], "id": 0, "sentence": "pick the ends off"}]}}}``; or ActivityNet Captions' layout.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from datamodules.annotations.activitynet import add_video, check_tasks
from datamodules.annotations.files import Records, read_json
from datamodules.schema import Query
from datamodules.skips import OnError

LAYOUTS = "{database: {video: {duration, annotations: [..]}}}, {video: {duration, timestamps, sentences}}"


def read(
    path: Path,
    on_error: OnError = "fail",
    tasks: Sequence[str] = ("grounding", "dense_captioning"),
    subset: str | None = None,
) -> tuple[list[Query], Counter[str]]:
    """Read the whole file.

    Args:
        path: the published json.
        on_error: ``fail``, or ``skip`` to leave out what is wrong and count it.
        tasks: what to make, as for ActivityNet Captions.
        subset: only these videos of a ``database`` file: ``training`` or ``validation``.

    Returns:
        The queries, and how many events or videos were left out for each reason.

    Raises:
        ValueError: the file has another layout or no such subset, or (``fail``) naming file, video and event.
    """
    check_tasks(tasks)
    records = Records(path, on_error, LAYOUTS)
    content = read_json(path)
    if not isinstance(content, dict):
        raise records.refuse(content)
    database = content.get("database")
    if database is None:
        if not all(isinstance(entry, dict) and "timestamps" in entry for entry in list(content.values())[:1]):
            raise records.refuse(content)
        if subset:
            raise ValueError(f"{path}: --subset is for the 'database' layout; this file does not say subsets")
        database = content
    elif subset and subset not in (found := {entry.get("subset") for entry in database.values()}):
        raise ValueError(f"{path}: no subset {subset!r} in it, only {', '.join(sorted(map(str, found)))}")
    for video, entry in database.items():
        if subset in (None, entry.get("subset")):
            add_video(records, video, _story(entry) if "annotations" in entry else entry, tasks)
    return records.finish()


def _story(entry: dict) -> dict:
    """A ``database`` entry in ActivityNet Captions' words."""
    steps = [step for step in entry["annotations"] if isinstance(step, dict)]
    return {
        "duration": entry.get("duration"),
        "timestamps": [step.get("segment") for step in steps],
        "sentences": [step.get("sentence") for step in steps],
    }
