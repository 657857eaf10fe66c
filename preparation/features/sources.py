"""Video and image files: which ones there are to extract."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from datamodules.records import member_key
from datamodules.strict_json import brief, decode

VIDEO_TYPES = (
    ".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v", ".mpg", ".mpeg", ".flv", ".wmv", ".ts",
    ".3gp", ".3g2", ".asf", ".m2ts", ".mts", ".ogv", ".vob",
)  # fmt: skip
IMAGE_TYPES = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True)
class Source:
    """One file to extract: the whole of it, or the seconds from ``start_s`` to ``end_s``."""

    id: str
    path: Path
    start_s: float | None = None
    end_s: float | None = None

    def __post_init__(self):
        member_key(self.id)
        for key in ("start_s", "end_s"):
            if not isinstance(getattr(self, key), (int, float, type(None))):
                raise ValueError(f"{key} must be a number of seconds, got {getattr(self, key)!r}")


def find_sources(videos: Path) -> tuple[list[Source], int]:
    """What to extract.

    Args:
        videos: a folder (searched with its subfolders, also those that are links), one video or image, a ``.jsonl``
            list of ``{"id", "path", "start_s", "end_s"}`` (only ``path`` is needed), or a text list of ``path`` or
            ``id<TAB>path``. Paths in a list are relative to it. Without an id, it is the path below the folder (the
            list's), without the ending: ``tacos/s1`` for ``tacos/s1.mp4``; of a file elsewhere, the name alone.

    Returns:
        The sources, and how many files of a folder were left aside because they are neither video nor image. A link
        that leads nowhere is a source, which extraction refuses or counts.

    Raises:
        FileNotFoundError: there is no such folder, list or file.
        ValueError: a bad line (naming it), or nothing found.
    """
    videos = Path(videos)
    if not videos.exists():
        raise FileNotFoundError(f"{videos}: no such folder, list or file")
    others = 0
    if videos.is_dir():
        files = sorted(_files(videos))
        sources = [
            Source(_id(path, videos), path) for path in files if path.suffix.lower() in VIDEO_TYPES + IMAGE_TYPES
        ]
        others = len(files) - len(sources)
    elif videos.suffix.lower() in VIDEO_TYPES + IMAGE_TYPES:
        sources = [Source(videos.stem, videos)]
    else:
        sources = list(_read_list(videos))
    if not sources:
        raise ValueError(f"{videos}: no video or image found ({others} other files); known: {', '.join(VIDEO_TYPES)}")
    return sources, others


def _files(folder: Path, above: tuple[str, ...] = ()) -> Iterator[Path]:
    """All files below a folder; a link to a folder that it lies in is not followed."""
    above = (*above, os.path.realpath(folder))
    for path in folder.iterdir():
        if not path.is_dir():
            yield path
        elif os.path.realpath(path) not in above:
            yield from _files(path, above)


def _id(file: Path, folder: Path) -> str:
    below = Path(os.path.relpath(file, folder)).with_suffix("")
    return below.name if ".." in below.parts else below.as_posix()


def _read_list(path: Path) -> Iterator[Source]:
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1):
        if not line.strip():
            continue
        try:
            if path.suffix == ".jsonl":
                entry = decode(line)
                if not isinstance(entry, dict):
                    raise ValueError(f"must be an object, got {brief(entry)}")
                unknown = set(entry) - {"id", "path", "start_s", "end_s"}
                if unknown or not isinstance(entry.get("path"), str):
                    raise ValueError(f"needs a path, and id, start_s and end_s at most, got {sorted(entry)}")
            else:
                name, tab, file = line.partition("\t")
                entry = {"id": name.strip(), "path": file.strip()} if tab else {"path": line.strip()}
            file = path.parent / entry["path"]
            yield Source(entry.get("id", _id(file, path.parent)), file, entry.get("start_s"), entry.get("end_s"))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}, line {number}: {error}") from None
