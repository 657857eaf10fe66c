"""Commands of ``prepare.py``: captions and dialogues by other models. What they need is imported when they run."""

from pathlib import Path
from typing import Literal

from jsonargparse.typing import PositiveInt

from datamodules.skips import OnError
from preparation.captioning.endpoint import Endpoint


def captions(
    kind: Literal["details", "dialogues"],
    input: Path,
    output: Path,
    text: Endpoint,
    vision: Endpoint | None = None,
    videos: Path | None = None,
    frames: PositiveInt = 8,
    size: PositiveInt = 512,
    tasks: list[Literal["grounding", "grounded_qa", "dense_captioning", "events"]] | None = None,
    concurrency: PositiveInt = 8,
    cache: Path | None = None,
    only_estimate: bool = False,
    on_error: OnError = "fail",
) -> None:
    """Let models describe events in detail, or write dialogues about them; run it again after a kill and it goes on.

    Args:
        kind: ``details`` of each event for query-focused captioning, or two ``dialogues`` about the events of a video.
        input: queries.jsonl.
        output: queries.jsonl to write.
        text: the text model.
        vision: the vision-language model (details).
        videos: folder, video or list of the files (details).
        frames: pictures of an event that the vision-language model sees, at most (details).
        size: longer side of a picture in pixels (details).
        tasks: whose events get details, those of the turns of dialogues included; without it all (details).
        concurrency: requests on the way at the same time.
        cache: file that keeps every request and answer; without it beside the output, as ``.requests.jsonl``.
        only_estimate: ask for the first few results only, and say what all would take.
        on_error: stop at the first failure, or leave the event or dialogue out and count it.
    """
    from preparation.captioning.pipeline import Pipeline

    if (kind == "details") != bool(vision and videos) or bool(vision) != bool(videos):
        raise ValueError("details need --vision.model and --videos; dialogues use neither")
    if kind == "dialogues" and tasks:
        raise ValueError("--tasks is for details; dialogues are about events and dense captions")
    pipeline = Pipeline(text, cache, concurrency, on_error, only_estimate)
    if kind == "details":
        pipeline.details(input, output, videos, vision, frames, size, tasks)
    else:
        pipeline.dialogues(input, output)
