"""Commands of ``prepare.py``: features of videos. What they need is imported when they run."""

from pathlib import Path
from typing import Literal

from jsonargparse.typing import PositiveFloat, PositiveInt

from command_line.tables import print_table
from datamodules.skips import OnError
from preparation.summary import print_features


def features(
    videos: Path,
    output: Path,
    encoder: str = "openai/clip-vit-large-patch14",
    sampling: str = "uniform 100",
    on_error: OnError = "fail",
    patches: bool = False,
    pool: str | None = None,
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
        encoder: hub name or local folder of a CLIP or SigLIP checkpoint; ``timm:NAME`` for a tower of timm; the file
            ``eva_vit_g.pth``; or the class path of an encoder of one's own (``preparation/features/own_encoder.py``).
        sampling: ``uniform 100``, ``1.0 fps`` or ``1.0 fps max 350``; as Qwen's processors choose,
            ``qwen_vl_utils 2.0 fps`` or ``transformers 2.0 fps``.
        on_error: stop at the first file that cannot be used, or skip and count it.
        patches: store the patch tokens too (frames x patches x width x 2 bytes a video).
        pool: average the patches of a frame to a smaller grid before they are stored, for example ``4x4``.
        cls_attention: store the attention of the class token to the patches too.
        spatial: store compressed patch tokens, for example ``4x64``: 4 groups of frames with 64 tokens each.
        space: of features and patches: the image embedding's, or the unprojected hidden states'.
        attention_layer: whose attention is taken; default -2, the penultimate.
        batch_frames: frames decoded and encoded together.
        decoders: files decoded at the same time.
        device: ``auto``, ``cpu``, ``cuda``, ``mps``, ...
        dtype: what the encoder computes in.
        shard_videos: videos in a shard; what a kill can cost, and what a process takes at a time.
    """
    from transformers.utils import logging

    from preparation.features.decoding import Sampling, find_sources
    from preparation.features.encoders import Outputs, load_encoder
    from preparation.features.extraction import extract
    from preparation.features.processes import launched_processes

    logging.disable_progress_bar()
    logging.set_verbosity_error()  # a report of unused text towers; missing weights are refused below
    rule = Sampling.parse(sampling)
    sources, others = find_sources(videos)
    outputs = Outputs.parse(patches, cls_attention, spatial, space, attention_layer, pool)
    tower = load_encoder(encoder, device, dtype, outputs)
    with launched_processes() as processes:
        summary = extract(sources, tower, rule, output, on_error, batch_frames, shard_videos, decoders, processes)
    if processes.leads:
        about = {"processes": processes.world} if processes.world > 1 else {}
        about |= summary.throughput.describe()
        print_features(output, summary, {"files of other types, left aside": others} | about)


def pack(
    features: Path,
    durations: Path | list[Path],
    output: Path,
    encoder: str = "openai/clip-vit-large-patch14",
    sampling: str = "uniform 100",
    nominal_s: PositiveFloat = 100.0,
    on_error: OnError = "fail",
) -> None:
    """Put published features, one .npy a video, into shards.

    Args:
        features: folder of ``<id>.npy``.
        durations: files that know how long videos are (vtimellm, activitynet, our jsonl, csv, {video: seconds}).
        output: folder of the shards.
        encoder: what made the features.
        sampling: how the frames were chosen, ``uniform 100`` or ``1.0 fps``.
        nominal_s: length of a video of which none is known, where no record in these files names a time of it.
        on_error: stop at the first file that cannot be used, or skip and count it.
    """
    from preparation.annotations import vtimellm
    from preparation.annotations.durations import read_lengths
    from preparation.features.decoding import Sampling

    rule = Sampling.parse(sampling)
    lengths = read_lengths(durations if isinstance(durations, list) else [durations])
    settings = encoder, rule, on_error, lengths.untimed, nominal_s
    summary = vtimellm.pack(features, lengths.known, output, *settings)
    print_features(output, summary, {f"lengths not known, no times, called {nominal_s:g} s": summary.nominal})


def verify(shards: Path) -> int:
    """Check a folder of shards: counts, checksums, every record, every time.

    Args:
        shards: the folder.
    """
    from preparation.features.verification import verify as check

    report = check(shards)
    if report.problems:
        rows = [(problem.file, problem.id, problem.what, problem.remedy) for problem in report.problems]
        print_table("problems", ("file", "video", "what", "remedy"), rows)
    header = report.header
    about = {"shards": report.shards, "videos": report.records, "problems": len(report.problems)}
    if report.unknown_times:
        about["videos without a reader, whose times may be wrong (docs/time.md)"] = report.unknown_times
    about |= {"encoder": header.encoder, "output": header.output, "sampling": header.sampling, "width": header.width}
    about |= {"patches": f"{header.patches}, pooled to {header.pool}"} if header.pool else {}
    print_table("verified", ("folder", str(shards)), about.items())
    return 1 if report.problems else 0
