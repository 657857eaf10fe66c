"""Everything before training: features, annotations, packing and checking of shards, and stand-ins to try it with.

python prepare.py features --videos DIR_OR_LIST --output SHARDS
python prepare.py annotations activitynet --input val.json --output queries.jsonl --shards SHARDS
python prepare.py pack --features DIR --durations stage2.json --output SHARDS
python prepare.py verify SHARDS
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

from jsonargparse.typing import NonNegativeInt

from command_line import CommandParser, precise
from datamodules.skips import OnError, Skips
from datamodules.tables import print_made, print_skipped, print_table


def features(
    videos: Path,
    output: Path,
    encoder: str = "openai/clip-vit-large-patch14",
    sampling: str = "uniform 100",
    on_error: OnError = "fail",
    patches: bool = False,
    cls_attention: bool = False,
    batch_frames: int = 32,
    device: str = "auto",
    dtype: Literal["float32", "float16", "bfloat16"] = "float32",
    shard_videos: int = 256,
) -> None:
    """Encode videos and images with CLIP into feature shards; run it again after an interruption and it goes on.

    Args:
        videos: folder, video, text list (``path`` or ``id<TAB>path``) or jsonl list (id, path, start_s, end_s).
        output: folder of the shards.
        encoder: hub name or local folder of a CLIP checkpoint.
        sampling: ``uniform 100`` or ``1.0 fps``.
        on_error: stop at the first file that cannot be used, or skip and count it.
        patches: store the patch tokens too.
        cls_attention: store the attention of the class token to the patches too.
        batch_frames: frames decoded and encoded together.
        device: ``auto``, ``cpu``, ``cuda``, ...
        dtype: what the encoder computes in.
        shard_videos: videos in a shard; what a kill can cost.
    """
    from transformers.utils import logging

    from datamodules.decoding import Sampling, find_sources
    from datamodules.extraction import ClipEncoder, extract

    logging.disable_progress_bar()
    rule = Sampling.parse(sampling)
    sources, others = find_sources(videos)
    clip = ClipEncoder(encoder, device, dtype, patches, cls_attention)
    summary = extract(sources, clip, rule, output, on_error, batch_frames, shard_videos)
    _print_summary(output, summary, {"files of other types, left aside": others})


def annotations(
    name: Literal["vtimellm", "activitynet"],
    input: Path,
    output: Path,
    tasks: list[Literal["grounding", "dense_captioning", "events"]] | None = None,
    shards: Path | None = None,
    on_error: OnError = "fail",
) -> None:
    """Convert a published annotation file.

    Args:
        name: layout of the file.
        input: the published file.
        output: queries.jsonl to write.
        tasks: what to make of it (activitynet only; without it grounding and dense_captioning).
        shards: check that the features of every video are in this folder.
        on_error: stop at the first record that cannot be used, or skip and count it.
    """
    from datamodules.annotations import activitynet, vtimellm
    from datamodules.schema import write_queries
    from datamodules.shards import ShardReader

    if name == "vtimellm" and tasks:
        raise ValueError("--tasks is for activitynet; a vtimellm file holds dialogues only")
    reader = {"vtimellm": vtimellm, "activitynet": activitynet}[name]
    queries, counts = reader.read(input, on_error, **({"tasks": tasks} if tasks else {}))
    if shards:
        present, absent = ShardReader(shards), Skips(on_error)
        for query in queries:
            if query.video not in present:
                absent.add(f"{input}, video {query.video!r}", f"video without features in {shards}")
        queries = [query for query in queries if query.video in present]
        counts += absent.counts
    if not queries:
        raise ValueError(f"{input}: nothing usable in it ({dict(counts)})")
    write_queries(output, queries)
    kinds = {f"{task} queries": sum(query.task == task for query in queries) for task in {q.task for q in queries}}
    videos = {"videos": len({query.video for query in queries})}
    print_made("annotations", output, dict(sorted(kinds.items())) | videos | counts)


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
        durations: annotation file (vtimellm, activitynet, our jsonl) that knows how long each video is.
        output: folder of the shards.
        encoder: what made the features.
        sampling: how the frames were chosen, ``uniform 100`` or ``1.0 fps``.
        on_error: stop at the first file that cannot be used, or skip and count it.
    """
    from datamodules.annotations import vtimellm
    from datamodules.decoding import Sampling

    rule = Sampling.parse(sampling)
    summary = vtimellm.pack(features, vtimellm.read_durations(durations), output, encoder, rule, on_error)
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
    from datamodules.templates import FOLDER
    from models.tiny_pretraining import pretrain_tiny_lm

    pretrain_tiny_lm(output, seed, steps, texts=[path.read_text() for path in sorted(FOLDER.glob("*.yaml"))])
    print_made("tiny language model", output, {"steps": steps, "seed": seed})


def _print_summary(output: Path, summary, more: dict[str, int]) -> None:
    print_skipped(summary.skipped)
    counts = {"written": summary.written, "present already": summary.present, "skipped": len(summary.skipped)}
    print_made("features", output, counts | more)


COMMANDS = {command.__name__.replace("_", "-"): command for command in (
    features, annotations, pack, verify, synthetic, clip, tiny_clip, tiny_lm,
)}  # fmt: skip
POSITIONAL = {"annotations": "name", "verify": "shards"}


def main(args: Sequence[str] | None = None) -> int:
    """Run one subcommand and return the exit status."""
    parser = CommandParser(prog="prepare.py", description=__doc__.splitlines()[0])
    subcommands = parser.add_subcommands()
    for name, command in COMMANDS.items():
        positional = POSITIONAL.get(name)
        subparser = CommandParser(description=command.__doc__.splitlines()[0])
        if positional:
            subparser.add_argument(positional, type=get_type_hints(command)[positional])
        subparser.add_function_arguments(command, skip={positional} - {None})
        subcommands.add_subcommand(name, subparser, help=command.__doc__.splitlines()[0])
    config = parser.instantiate(parser.parse_args(args))
    try:
        return COMMANDS[config.subcommand](**config[config.subcommand].as_dict()) or 0
    except (ValueError, OSError) as error:
        print(f"prepare.py: error: {precise(str(error))}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
