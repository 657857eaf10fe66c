"""The video files that are asked about."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from asking.features import Part
from asking.windows import Windows
from command_line.progress import spoken
from preparation.features.sampling import Sampling
from preparation.features.sources import IMAGE_TYPES, find_sources
from reports.media import probe


@dataclass(frozen=True)
class Footage:
    """A video file, and the windows that the model sees of it."""

    id: str
    file: Path
    duration_s: float
    """As its container says."""
    windows: tuple[tuple[float, float], ...]

    @property
    def parts(self) -> list[Part]:
        """What is read for each window: all of the video where there is only one."""
        return [None] if len(self.windows) == 1 else list(self.windows)


def footage(file: Path, name: str, windows: Windows) -> Footage:
    """A video file, looked at but not read yet.

    Raises:
        ValueError: the file is missing or no video.
    """
    duration_s = probe(file).duration_s
    if duration_s <= 0:
        raise ValueError(f"{file} does not say how long it is; write it again with ffmpeg -i FILE -c copy OTHER.mkv")
    return Footage(name, file, duration_s, tuple(windows.cut(duration_s)))


def find_videos(videos: Path, windows: Windows) -> tuple[list[Footage], list[str]]:
    """The videos of a folder, a list or a file, and what is wrong with those that cannot be read.

    Raises:
        ValueError: there is no video at all, or none that can be read.
    """
    sources, _ = find_sources(videos)
    found, problems = [], []
    for source in sources:
        if source.path.suffix.lower() in IMAGE_TYPES:
            continue
        try:
            if source.start_s is not None or source.end_s is not None:
                raise ValueError(f"{source.path}: start_s and end_s are for feature extraction; cut the video first")
            found.append(footage(source.path, source.id, windows))
        except ValueError as error:
            problems.append(str(error))
    if not found:
        raise ValueError(problems[0] if problems else f"{videos}: only images; a moment needs a video")
    return found, problems


def cost(videos: Sequence[Footage], sampling: Sampling, questions: int) -> list[str]:
    """What long videos will take, a line each; nothing for those that are seen whole."""
    lines = []
    for video in videos:
        if (count := len(video.windows)) > 1:
            length_s = video.windows[0][1] - video.windows[0][0]
            frames = count * (sampling.frames or round(length_s * sampling.fps))
            lines.append(
                f"{video.id} is {spoken(video.duration_s)} long: seen in {count} windows of {spoken(length_s)}, "
                f"{frames} pictures to encode and {count} answers to write for each of {questions} questions"
            )
    return lines
