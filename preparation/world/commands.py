"""Commands of ``prepare.py``: made-up things to try the others with. What they need is imported when they run."""

from pathlib import Path

from jsonargparse.typing import NonNegativeInt

from command_line.tables import print_made


def synthetic(
    output: Path,
    seed: int = 0,
    difficulty: float = 0.3,
    images: NonNegativeInt = 3000,
    train: NonNegativeInt = 3000,
    val: NonNegativeInt = 20,
    test: NonNegativeInt = 100,
    frames: int = 32,
    uneven: float = 0.0,
    spatial: str | None = None,
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
        uneven: how much the gaps between frames differ, 0 to 1: standard deviation of their logarithm.
        spatial: also the videos with S-tokens, for example ``2x4``, and questions that only these answer.
    """
    from datamodules.spatial_compression import Compression
    from preparation.world.bystanders import write_bystanders
    from preparation.world.synthetic import World, write_world

    compression = Compression.parse(spatial) if spatial else None
    sizes = {"images": images, "train": train, "val": val, "test": test}
    world = World(seed=seed, difficulty=difficulty, frames=frames, uneven=uneven)
    write_world(output, world, **sizes)
    if compression:
        write_bystanders(output, world, compression)
    print_made("synthetic world", output, sizes)


def clip(output: Path) -> None:
    """Render a silent mp4 of 12 s with three coloured scenes, to try the commands that read videos.

    Args:
        output: file to write; its annotation goes beside it, as .jsonl.
    """
    from preparation.world.rendering import SCENES, render_clip

    render_clip(output)
    print_made("clip", output, {name: f"{start_s} to {end_s} s" for name, _, start_s, end_s in SCENES})


def tiny_clip(output: Path, width: int = 64, seed: int = 0) -> None:
    """Save a tiny CLIP with random weights; it stands in where the real one cannot be downloaded.

    Args:
        output: folder of the checkpoint, for ``features --encoder``.
        width: of the features.
        seed: of the weights.
    """
    from preparation.world.tiny import tiny_clip as save

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
    from preparation.world.tiny_pretraining import pretrain_tiny_lm

    tasks, styles = ("grounding", "dense_captioning", "segment_captioning"), ("quickstart", "quickstart_eval")
    wording = [question for task in tasks for style in styles for question in questions(task, style)]
    pretrain_tiny_lm(output, seed, steps, wording)
    print_made("tiny language model", output, {"steps": steps, "seed": seed})
