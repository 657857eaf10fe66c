"""YouCook2: recipes with a sentence for each step.

``youcookii_annotations_trainval.json``: ``{"database": {"xHr8X2Wpmno": {"duration": 206.86, "subset": "validation",
"annotations": [{"segment": [47, 60], "id": 0, "sentence": "pick the ends off"}]}}}``; or ActivityNet Captions' layout.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from datamodules.schema import Query
from datamodules.skips import OnError
from preparation.annotations.activitynet import add_video, check_tasks, is_story
from preparation.annotations.files import Records

LAYOUTS = (
    "{database: {video: {duration, annotations: [{segment, sentence}]}}}, {video: {duration, timestamps, sentences}}"
)


def read(
    path: Path,
    on_error: OnError = "fail",
    tasks: Sequence[str] = ("grounding", "dense_captioning"),
    subset: str | None = None,
    repair: bool = False,
) -> tuple[list[Query], Counter[str]]:
    """Read the whole file.

    Args:
        path: the published json.
        on_error: ``fail``, or ``skip`` to leave out what is wrong and count it.
        tasks: what to make, as for ActivityNet Captions.
        subset: only these videos of a ``database`` file: ``training`` or ``validation``.
        repair: mend windows that are reversed, overrun the video or have no length, and count them.

    Returns:
        The queries, and how many events or videos were left out for each reason.

    Raises:
        ValueError: the file has another layout or no such subset, or (``fail``) naming file, video and event.
    """
    check_tasks(tasks)
    records = Records(path, on_error, LAYOUTS, repair)
    content = records.json()
    database = content.get("database", content) if isinstance(content, dict) else None
    stories = {video: _story(entry) for video, entry in database.items()} if isinstance(database, dict) else {}
    if not any(map(is_story, stories.values())):
        raise records.refuse(content)
    found = {entry.get("subset") for entry in database.values() if isinstance(entry, dict)}
    if subset and "database" not in content:
        raise ValueError(f"{path}: --subset is for the 'database' layout; this file does not say subsets")
    if subset and subset not in found:
        raise ValueError(f"{path}: no subset {subset!r} in it, only {', '.join(sorted(map(str, found)))}")
    for video, story in stories.items():
        if not subset or (isinstance(story, dict) and subset == story.get("subset")):
            add_video(records, video, story, tasks)
    return records.finish()


def _story(entry):
    """A ``database`` entry in ActivityNet Captions' words; anything else as it is."""
    steps = entry.get("annotations") if isinstance(entry, dict) else None
    if not isinstance(steps, list) or not any(isinstance(step, dict) and "sentence" in step for step in steps):
        return entry
    steps = [step for step in steps if isinstance(step, dict)]
    times, sentences = ([step.get(key) for step in steps] for key in ("segment", "sentence"))
    return entry | {"timestamps": times, "sentences": sentences}
