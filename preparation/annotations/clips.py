"""Which part of which file each video of an annotation file is: the list that ``prepare.py features`` takes."""

import json
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from datamodules.names import VideoNames
from datamodules.schema import Part, Query
from datamodules.skips import OnError, Skips
from preparation.features.sources import VIDEO_TYPES, find_sources

EXPECTED = ".mp4"
"""Ending of a file that is not there yet."""


def write_clips(path: Path, queries: Sequence[Query], videos: Path | None, on_error: OnError) -> Counter[str]:
    """Write one line for each video of the queries: its id, its file, and where it lies there if it is a part of it.

    Args:
        path: jsonl to write; files are named relative to it.
        queries: what will be asked; see ``Query.part``.
        videos: folder or list of the files; None: they lie, or will lie, beside ``path`` (``NAME.mp4`` then).
        on_error: stop at the first video whose file is not in ``videos``, or leave it out and count it.

    Returns:
        how many clips were written, how many files have yet to come, and what was left out for each reason.

    Raises:
        ValueError: a video is said to be two different parts, or (``fail``) its file is not there.
    """
    path, skips, counts, lines = Path(path), Skips(on_error), Counter(), []
    path.parent.mkdir(parents=True, exist_ok=True)
    files = _files(videos or path.parent, empty=videos is None)
    names = VideoNames(files)
    for video, part in _parts(queries).items():
        name = part.file if part else video
        if (found := names.find(name)) is not None:
            file = Path(os.path.relpath(files[found], path.parent))
        elif videos is None:
            file = Path(name + EXPECTED)
            counts["files not there yet"] += 1
        else:
            skips.add(f"video {video!r}", "video without a file", names.remedy(name, f"no {name} in {videos}"))
            continue
        times = {"start_s": part.start_s, "end_s": part.end_s} if part else {}
        lines.append(json.dumps({"id": video, "path": file.as_posix()} | times, ensure_ascii=False) + "\n")
    path.write_text("".join(lines), encoding="utf-8")
    return Counter({"clips": len(lines)}) + counts + skips.counts


def _files(videos: Path, empty: bool) -> dict[str, Path]:
    """Id -> file of everything that can be decoded there; ``empty``: there may be nothing."""
    if empty and not any(file.suffix.lower() in VIDEO_TYPES for file in videos.rglob("*")):
        return {}
    return {source.id: source.path for source in find_sources(videos)[0]}


def _parts(queries: Sequence[Query]) -> dict[str, Part | None]:
    parts: dict[str, Part | None] = {}
    for query in queries:
        if parts.setdefault(query.video, query.part) != query.part:
            raise ValueError(
                f"query {query.id!r}: video {query.video!r} is {query.part} here and {parts[query.video]} before; "
                "give each part an id of its own"
            )
    return parts
