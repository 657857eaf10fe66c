"""Commands of ``prepare.py``: annotation files. What they need is imported when they run."""

from pathlib import Path
from typing import Literal

from command_line.tables import print_table, print_written
from datamodules.skips import OnError
from preparation.annotations import READERS
from preparation.annotations.selection import FILTERS
from preparation.summary import ROWS


def annotations(
    name: Literal[tuple(READERS)],
    input: Path,
    output: Path,
    tasks: list[Literal["grounding", "dense_captioning", "events"]] | None = None,
    durations: Path | None = None,
    grounding: Path | None = None,
    subset: str | None = None,
    prompts: Literal["published", "meco"] | None = None,
    filter: Literal[tuple(FILTERS)] | None = None,
    longest_s: float | None = None,
    shards: Path | None = None,
    clips: Path | None = None,
    videos: Path | None = None,
    hold_out: int = 0,
    on_error: OnError = "fail",
    repair: bool = False,
) -> None:
    """Convert a published annotation file into queries, and perhaps into the list of clips to extract.

    Args:
        name: dataset.
        input: the published file.
        output: queries.jsonl to write.
        tasks: what to make of described events (activitynet, youcook2, didemo).
        durations: file with the length of each video (charades_sta, didemo, internvid, nextqa).
        grounding: file with the moments (nextgqa).
        subset: training or validation (youcook2); generic, temporal or consistency (video_chatgpt).
        prompts: whose questions (et_instruct, etbench); ``meco`` asks without a format for times.
        filter: a paper's rule for choosing training data.
        longest_s: cut longer videos into clips of several events (internvid).
        shards: hold the queries against the features in this folder: there, as long as annotated, times inside.
        clips: jsonl to write for ``features --videos``: the file of each video, and which part of it is meant.
        videos: folder or list of the files, for the clips; without it they lie beside the list, or are yet to come.
        hold_out: questions for `data.val`, about videos that are left out of the output; they go into a file beside
            it, `stage2.val.jsonl` for `stage2.jsonl`.
        on_error: stop at the first record that cannot be used, or skip and count it.
        repair: mend windows as MeCo does (swap ends, cut what overruns the video, give those without length a second)
            and count them, in place of refusing them.
    """
    from datamodules.query_files import write_queries
    from preparation.annotations.clips import write_clips
    from preparation.annotations.conversion import convert
    from preparation.annotations.holding_out import hold_out as hold_out_questions

    options = {"tasks": tasks, "durations": durations, "grounding": grounding, "subset": subset}
    options |= {"prompts": prompts, "longest_s": longest_s, "repair": repair or None}
    if videos and not clips:
        raise ValueError("--videos is for --clips, the list of clips to write; features of the videos are --shards")
    converted = convert(name, input, on_error, shards, filter, **options)
    queries, rows = converted.queries, converted.rows()
    if hold_out:
        queries, asked = hold_out_questions(queries, hold_out)
        write_queries(output.with_suffix(".val.jsonl"), asked)
        rows += [("held out: questions for data.val", len(asked)), ("left to train on", len(queries))]
    write_queries(output, queries)
    print_table(f"{name} annotations", ("written to", str(output)), rows)
    if clips:
        counts = write_clips(clips, converted.queries, videos, on_error)
        print_table("clips for features --videos", ("written to", str(clips)), counts.items())
    print_written(output)


def overlap(training: Path, evaluation: Path) -> int:
    """Find the videos that two annotation files share; exit status 1 if there are any.

    Args:
        training: queries.jsonl that a model is trained on.
        evaluation: queries.jsonl that it is evaluated on.
    """
    from datamodules.leakage import overlap as compare
    from datamodules.pairs import Queries

    found = compare(Queries.of_file(training), Queries.of_file(evaluation))
    about = {
        "evaluation videos in the training data": f"{len(found.videos)} of {found.evaluation_videos}",
        "evaluation queries about them": found.evaluation_queries,
        "datasets in both": ", ".join(found.sources) or "none named",
        "a result is": found.setting,
    }
    print_table("overlap", (str(training), str(evaluation)), about.items())
    if found.videos:
        rows = [(", ".join(ids), ", ".join(others)) for ids, others in list(found.videos.values())[:ROWS]]
        rows += [("...", f"{len(found.videos) - ROWS} more")] if len(found.videos) > ROWS else []
        print_table("shared videos", ("in training", "in evaluation"), rows)
    return 1 if found.videos else 0
