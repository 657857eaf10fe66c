"""Everything before training: features, annotations, packing and checking of shards, and stand-ins to try it with.

python prepare.py features --videos DIR_OR_LIST --output SHARDS
python prepare.py annotations activitynet --input val.json --output queries.jsonl --shards SHARDS
python prepare.py overlap train.jsonl test.jsonl
python prepare.py captions details --input queries.jsonl --videos DIR --output FILE --text.model M --vision.model V
python prepare.py captions dialogues --input events.jsonl --output dialogues.jsonl --text.model M
python prepare.py pack --features DIR --durations stage2.json --output SHARDS
python prepare.py verify SHARDS
python prepare.py import-meco --input FOLDER --output RUN
python prepare.py synthetic --output DIR
python prepare.py clip --output FILE.mp4
python prepare.py tiny-clip --output DIR
python prepare.py tiny-lm --output DIR

Exit status: 0 fine, 1 problems found, 2 bad input or usage.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_type_hints

from jsonargparse.typing import NonNegativeInt, PositiveInt

from command_line import CommandParser, precise
from datamodules.annotations import READERS
from datamodules.captioning.endpoint import Endpoint
from datamodules.selection import FILTERS
from datamodules.skips import OnError
from datamodules.tables import ROWS, print_made, print_skipped, print_table


def features(
    videos: Path,
    output: Path,
    encoder: str = "openai/clip-vit-large-patch14",
    sampling: str = "uniform 100",
    on_error: OnError = "fail",
    patches: bool = False,
    cls_attention: bool = False,
    spatial: str | None = None,
    space: Literal["projected", "raw"] = "projected",
    attention_layer: int | None = None,
    batch_frames: PositiveInt = 32,
    decoders: PositiveInt = 2,
    device: str = "auto",
    dtype: Literal["float32", "float16", "bfloat16"] = "float32",
    shard_videos: PositiveInt = 256,
) -> None:
    """Encode videos and images into feature shards; run it again after an interruption and it goes on.

    Under torchrun or ``lightning run`` every process takes its share of the shards; they need a common folder.

    Args:
        videos: folder, video, text list (``path`` or ``id<TAB>path``) or jsonl list (id, path, start_s, end_s).
        output: folder of the shards.
        encoder: hub name or local folder of a CLIP or SigLIP checkpoint; ``timm:NAME`` for a tower of timm.
        sampling: ``uniform 100`` or ``1.0 fps``.
        on_error: stop at the first file that cannot be used, or skip and count it.
        patches: store the patch tokens too (frames x patches x width x 2 bytes a video).
        cls_attention: store the attention of the class token to the patches too.
        spatial: store compressed patch tokens, for example ``4x64``: 4 groups of frames with 64 tokens each.
        space: of features and patches: the image embedding's, or the unprojected hidden states'.
        attention_layer: whose attention is taken; default -2, the penultimate.
        batch_frames: frames decoded and encoded together.
        decoders: files decoded at the same time.
        device: ``auto``, ``cpu``, ``cuda``, ...
        dtype: what the encoder computes in.
        shard_videos: videos in a shard; what a kill can cost, and what a process takes at a time.
    """
    from transformers.utils import logging

    from datamodules.decoding import Sampling, find_sources
    from datamodules.encoders import Outputs, load_encoder
    from datamodules.extraction import extract
    from datamodules.processes import launched_processes
    from models.spatial_compression import Compression

    logging.disable_progress_bar()
    logging.set_verbosity_error()  # a report of unused text towers; missing weights are refused below
    rule, compression = Sampling.parse(sampling), Compression.parse(spatial) if spatial else None
    sources, others = find_sources(videos)
    outputs = Outputs(patches, cls_attention, compression, space, attention_layer)
    tower = load_encoder(encoder, device, dtype, outputs)
    with launched_processes() as processes:
        summary = extract(sources, tower, rule, output, on_error, batch_frames, shard_videos, decoders, processes)
    if processes.leads:
        about = {"processes": processes.world} if processes.world > 1 else {}
        about |= summary.throughput.describe()
        _print_summary(output, summary, {"files of other types, left aside": others} | about)


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
    shards: Path | None = None,
    on_error: OnError = "fail",
) -> None:
    """Convert a published annotation file into queries.

    Args:
        name: dataset.
        input: the published file.
        output: queries.jsonl to write.
        tasks: what to make of described events (activitynet, youcook2, didemo).
        durations: file with the length of each video (charades_sta, didemo, internvid, nextqa).
        grounding: file with the moments (nextgqa).
        subset: training or validation (youcook2).
        prompts: whose questions (et_instruct, etbench).
        filter: a paper's rule for choosing training data.
        shards: hold the queries against the features in this folder: there, as long as annotated, times inside.
        on_error: stop at the first record that cannot be used, or skip and count it.
    """
    from datamodules.conversion import convert
    from datamodules.query_files import write_queries

    options = {"tasks": tasks, "durations": durations, "grounding": grounding, "subset": subset}
    options["prompts"] = prompts
    converted = convert(name, input, on_error, shards, filter, **options)
    write_queries(output, converted.queries)
    print_table(f"{name} annotations", ("written to", str(output)), converted.rows())


def overlap(training: Path, evaluation: Path) -> int:
    """Find the videos that two annotation files share; exit status 1 if there are any.

    Args:
        training: queries.jsonl that a model is trained on.
        evaluation: queries.jsonl that it is evaluated on.
    """
    from datamodules.leakage import overlap as compare
    from datamodules.query_files import read_queries

    found = compare(read_queries(training), read_queries(evaluation))
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


def captions(
    kind: Literal["details", "dialogues"],
    input: Path,
    output: Path,
    text: Endpoint,
    vision: Endpoint | None = None,
    videos: Path | None = None,
    frames: PositiveInt = 8,
    size: PositiveInt = 512,
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
        concurrency: requests on the way at the same time.
        cache: file that keeps every request and answer; without it beside the output, as ``.requests.jsonl``.
        only_estimate: ask for the first few results only, and say what all would take.
        on_error: stop at the first failure, or leave its query out and count it.
    """
    from datamodules.captioning.pipeline import Pipeline

    if (kind == "details") != bool(vision and videos) or bool(vision) != bool(videos):
        raise ValueError("details need --vision.model and --videos; dialogues use neither")
    pipeline = Pipeline(text, cache, concurrency, on_error, only_estimate)
    if kind == "details":
        pipeline.details(input, output, videos, vision, frames, size)
    else:
        pipeline.dialogues(input, output)


def pack(
    features: Path,
    durations: Path,
    output: Path,
    encoder: str = "openai/clip-vit-large-patch14",
    sampling: str = "uniform 100",
    on_error: OnError = "fail",
) -> None:
    """Put published features, one .npy a video, into shards.

    Args:
        features: folder of ``<id>.npy``.
        durations: file that knows how long each video is (vtimellm, activitynet, our jsonl, csv, {video: seconds}).
        output: folder of the shards.
        encoder: what made the features.
        sampling: how the frames were chosen, ``uniform 100`` or ``1.0 fps``.
        on_error: stop at the first file that cannot be used, or skip and count it.
    """
    from datamodules.annotations import vtimellm
    from datamodules.annotations.durations import read_durations
    from datamodules.decoding import Sampling

    rule = Sampling.parse(sampling)
    summary = vtimellm.pack(features, read_durations(durations), output, encoder, rule, on_error)
    _print_summary(output, summary, {})


def verify(shards: Path) -> int:
    """Check a folder of shards: counts, checksums, every record, every time.

    Args:
        shards: the folder.
    """
    from datamodules.verification import verify as check

    report = check(shards)
    if report.problems:
        rows = [(problem.file, problem.id, problem.what, problem.remedy) for problem in report.problems]
        print_table("problems", ("file", "video", "what", "remedy"), rows)
    header = report.header
    about = {"shards": report.shards, "videos": report.records, "problems": len(report.problems)}
    about |= {"encoder": header.encoder, "output": header.output, "sampling": header.sampling, "width": header.width}
    print_table("verified", ("folder", str(shards)), about.items())
    return 1 if report.problems else 0


def import_meco(
    input: Path, output: Path, tokenizer: str = "google-bert/bert-base-uncased", base: Path | None = None
) -> None:
    """Take a model of MeCo or E.T. Chat apart, into a base checkpoint and a run that evaluate.py takes.

    Args:
        input: folder with config.json, tokenizer and safetensors: merged, or a LoRA and what else was trained.
        output: new run folder; it also gets keys.json, which says what became of every key.
        tokenizer: BERT's, for the questions: folder or hub name.
        base: the merged folder that the LoRA was trained on; only where the input is not merged.
    """
    from collections import Counter

    from models.adapters import Compressor
    from models.merged_checkpoints import import_merged

    places = import_merged(input, output, Compressor(tokenizer=tokenizer), base)
    print_made("imported model", output, Counter(places.values()))


def synthetic(
    output: Path,
    seed: int = 0,
    difficulty: float = 0.3,
    images: NonNegativeInt = 3000,
    train: NonNegativeInt = 3000,
    val: NonNegativeInt = 20,
    test: NonNegativeInt = 100,
    frames: int = 32,
) -> None:
    """Write the made-up world of the quickstart: shards of features and annotation files.

    Args:
        output: new folder.
        seed: everything derives from it.
        difficulty: 0 to 1.
        images: pictures for stage 1.
        train: training videos.
        val: validation videos.
        test: test videos.
        frames: frames of a video.
    """
    from datamodules.synthetic import World, write_world

    sizes = {"images": images, "train": train, "val": val, "test": test}
    write_world(output, World(seed=seed, difficulty=difficulty, frames=frames), **sizes)
    print_made("synthetic world", output, sizes)


def clip(output: Path) -> None:
    """Render a silent mp4 of 12 s with three coloured scenes, to try the commands that read videos.

    Args:
        output: file to write; its annotation goes beside it, as .jsonl.
    """
    from datamodules.rendering import SCENES, render_clip

    render_clip(output)
    print_made("clip", output, {name: f"{start_s} to {end_s} s" for name, _, start_s, end_s in SCENES})


def tiny_clip(output: Path, width: int = 64, seed: int = 0) -> None:
    """Save a tiny CLIP with random weights; it stands in where the real one cannot be downloaded.

    Args:
        output: folder of the checkpoint, for ``features --encoder``.
        width: of the features.
        seed: of the weights.
    """
    from models.tiny import tiny_clip as save

    save(output, width, seed)
    print_made("tiny CLIP", output, {"width": width, "weights": "random: a stand-in, its features mean nothing"})


def tiny_lm(output: Path, steps: int = 3000, seed: int = 0) -> None:
    """Pre-train the quickstart's tiny language model on the world's own language (about ten minutes on one core).

    Args:
        output: folder of the checkpoint.
        steps: optimiser steps.
        seed: of weights and tasks.
    """
    from datamodules.templates import questions
    from models.tiny_pretraining import pretrain_tiny_lm

    tasks, styles = ("grounding", "dense_captioning", "segment_captioning"), ("quickstart", "quickstart_eval")
    wording = [question for task in tasks for style in styles for question in questions(task, style)]
    pretrain_tiny_lm(output, seed, steps, wording)
    print_made("tiny language model", output, {"steps": steps, "seed": seed})


def _print_summary(output: Path, summary, more: dict) -> None:
    print_skipped(summary.skipped)
    counts = {"written": summary.written, "present already": summary.present, "skipped": len(summary.skipped)}
    print_made("features", output, counts | more)


COMMANDS = {command.__name__.replace("_", "-"): command for command in (
    features, annotations, overlap, captions, pack, verify, import_meco, synthetic, clip, tiny_clip, tiny_lm,
)}  # fmt: skip
POSITIONAL = {
    "annotations": ["name"], "captions": ["kind"], "verify": ["shards"], "overlap": ["training", "evaluation"],
}  # fmt: skip


def main(args: Sequence[str] | None = None) -> int:
    """Run one subcommand and return the exit status."""
    parser = CommandParser(prog="prepare.py", description=__doc__.splitlines()[0])
    subcommands = parser.add_subcommands()
    for name, command in COMMANDS.items():
        positional = POSITIONAL.get(name, [])
        subparser = CommandParser(description=command.__doc__.splitlines()[0])
        for argument in positional:
            subparser.add_argument(argument, type=get_type_hints(command)[argument])
        subparser.add_function_arguments(command, skip=set(positional))
        subcommands.add_subcommand(name, subparser, help=command.__doc__.splitlines()[0])
    config = parser.instantiate(parser.parse_args(args))
    try:
        return COMMANDS[config.subcommand](**config[config.subcommand].as_dict()) or 0
    except (ValueError, OSError) as error:
        print(f"prepare.py: error: {precise(str(error))}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
