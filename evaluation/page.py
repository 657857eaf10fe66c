"""Predictions as a page that plays them."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from command_line.tables import print_written
from datamodules.names import VideoNames
from datamodules.prediction import Prediction
from datamodules.prediction_files import read_predictions
from datamodules.query_files import read_queries
from datamodules.schema import Query
from datamodules.shards import ShardReader
from preparation.features.sources import IMAGE_TYPES, find_sources
from reports.media import probe
from reports.page import Shown, write_page


def page(
    predictions: Path,
    queries: Path,
    output: Path,
    videos: Path | None = None,
    shards: Path | None = None,
    embed: bool = False,
    reencode: bool = False,
) -> None:
    """Write a page that shows predictions beside their videos and annotations, to sort, filter and play.

    Args:
        predictions: predictions.jsonl.
        queries: annotation file that was asked.
        output: the page, FILE.html.
        videos: folder or list of the video files; without it there are timelines and no player.
        shards: features of the videos, for lengths that neither queries nor video files say.
        embed: put videos of up to 20 MB inside the page.
        reencode: write videos that browsers do not play once more, as H.264.
    """
    if output.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"--output {output}: the name of a page ends in .html")
    answers = {prediction.query_id: prediction for prediction in read_predictions(predictions)}
    answered = [(query, answers.get(query.id)) for query in read_queries(queries)]
    if not any(answer for _, answer in answered):
        raise ValueError(f"{predictions} answers no query of {queries}")
    reader = ShardReader(shards) if shards else None
    shown = shown_videos(answered, video_files(videos) if videos else {}, reader)
    facts = {"predictions": predictions, "queries": queries}
    write_page(output, shown, predictions.parent.name or "predictions", facts, embed, reencode)
    print_written(output)


def video_files(videos: Path) -> dict[str, Path]:
    """Video files by id."""
    return {one.id: one.path for one in find_sources(videos)[0] if one.path.suffix.lower() not in IMAGE_TYPES}


def shown_videos(
    answered: Iterable[tuple[Query, Prediction | None]], files: dict[str, Path], reader: ShardReader | None
) -> Sequence[Shown]:
    """Queries and answers by video, in the order in which videos are named first.

    Raises:
        ValueError: the length of a video is not known from anywhere.
    """
    by_video: dict[str, list[tuple[Query, Prediction | None]]] = {}
    for query, prediction in answered:
        by_video.setdefault(query.video, []).append((query, prediction))
    names = VideoNames(files)
    shown = []
    for video, rows in by_video.items():
        file = files.get(names.find(video) or "")
        shown.append(Shown(video, _length_s(video, rows, file, reader), tuple(rows), file))
    return shown


def _length_s(video: str, rows: Sequence, file: Path | None, reader: ShardReader | None) -> float:
    if lengths := [query.duration_s for query, _ in rows if query.duration_s]:
        return max(lengths)
    if reader is not None and video in reader:
        return reader.duration_s(video)
    if file is not None:
        return probe(file).duration_s
    spans = [span[1] for query, answer in rows for span in (answer.spans if answer else ())]
    ends = [*spans, *(event.end_s for query, _ in rows for event in query.events)]
    if not ends:
        raise ValueError(f"nothing says how long video {video!r} is: give --videos or --shards")
    return max(ends)
