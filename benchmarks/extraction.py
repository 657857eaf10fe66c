"""What extraction at scale saves: python -m benchmarks.extraction [--videos 8 --files FOLDER].

Compares in one run, on a rendered video or those in a folder and with a small random CLIP: files decoded ahead in
threads against a loop that takes one video after the other (with the same code, and with the checkpoint's own image
processor); and shards against one .npy a video, read in the order of a shuffled epoch, with and without the page cache.
Prints ratios of best times, and what there is to reach: the encoder alone, and the bytes alone.
"""

import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import torch
from jsonargparse import auto_cli
from transformers import CLIPImageProcessorPil, CLIPVisionConfig, CLIPVisionModelWithProjection
from transformers.utils import logging

from benchmarks.stages import row_of, show
from datamodules.records import FeatureHeader
from datamodules.sampling import epoch_order
from datamodules.schema import Video
from datamodules.shard_index import read_places
from datamodules.shards import ShardReader
from preparation.features.decoding import Sampling, Source, decode, find_sources, sample_frames
from preparation.features.encoders import load_encoder
from preparation.features.extraction import extract, extract_video
from preparation.features.shard_writer import ShardWriter


def best_s(
    works: dict[str, Callable[[], object]], rounds: int, before: Callable[[], object] = lambda: None
) -> dict[str, float]:
    """Shortest wall time of each work in seconds; the works take turns, so that a busy machine meets all of them."""
    times = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            before()
            start = time.perf_counter()
            work()
            times[name].append(time.perf_counter() - start)
    return {name: min(seconds) for name, seconds in times.items()}


def render(path: Path, seconds: int, seed: int) -> None:
    """An mp4 of 640 x 360 pixels with moving blocks, 25 frames a second, compressed as on the web (H.264)."""
    noise = np.random.default_rng(seed).integers(0, 255, (9, 16, 3), np.uint8).repeat(40, 0).repeat(40, 1)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = 640, 360, "yuv420p"
        for frame in range(25 * seconds):
            moved = np.roll(noise, (frame, 2 * frame), (0, 1))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(moved, format="rgb24")))
        container.mux(stream.encode())


def save_clip(folder: Path) -> None:
    """A random CLIP for pictures of 224 pixels, small enough that decoding counts."""
    size = {"hidden_size": 192, "intermediate_size": 384, "num_hidden_layers": 4, "num_attention_heads": 4}
    CLIPVisionModelWithProjection(CLIPVisionConfig(**size, patch_size=32, projection_dim=192)).save_pretrained(folder)
    CLIPImageProcessorPil().save_pretrained(folder)


def time_extraction(folder: Path, files: list[Path], videos: int, frames: int, rounds: int) -> dict:
    """A row of the table about ways to extract, see ``stages``; the files are taken in turn."""
    sources = [Source(f"{number:03d}", files[number % len(files)]) for number in range(videos)]
    save_clip(folder / "clip")
    encoder, sampling = load_encoder(str(folder / "clip"), device="cpu"), Sampling(frames=frames)
    processor = CLIPImageProcessorPil.from_pretrained(folder / "clip")
    made = iter(range(10**6))

    def one_by_one() -> None:
        for source in sources:
            np.save(folder / source.id, extract_video(source, encoder, sampling).features)

    @torch.inference_mode()
    def with_processor() -> None:
        for source in sources:
            pixels = sample_frames(source.path, sampling).pixels
            images = processor(list(pixels), return_tensors="pt")["pixel_values"]
            np.save(folder / source.id, encoder.model(images).image_embeds.half().numpy())

    def decoding_alone(source: Source) -> None:
        for _ in decode(source, sampling, 32):
            pass

    cores = os.cpu_count() or 1
    seen = [sample_frames(source.path, sampling).pixels for source in sources]
    times = best_s({
        "encoder alone": lambda: [encoder.encode(pixels) for pixels in seen],
        "image processor, one by one": with_processor,
        "one by one": one_by_one,
        "decoding alone, one by one": lambda: [decoding_alone(source) for source in sources],
        "extract": lambda: extract(sources, encoder, sampling, folder / f"shards{next(made)}", decoders=cores),
    }, rounds)  # fmt: skip
    for name, taken in times.items():
        print(f"{name:30} {videos * frames / taken:8.0f} frames/s")
    summary = extract(sources, encoder, sampling, folder / "shards", decoders=cores)
    print(*(f"  {what}: {number}" for what, number in summary.throughput.describe().items()), sep="\n")
    alone, processed, plain, _, ours = times.values()
    print(f"extract on {cores} cores: x{plain / ours:.1f} of one by one, x{processed / ours:.1f} with image processor")
    of_usual, limit = (videos * frames / taken for taken in (processed, alone))
    return row_of("extracting features", videos * frames / ours, "frames/s", of_usual, limit)


def forget(folder: Path) -> None:
    """Take the files of a folder out of the page cache."""
    for path in folder.iterdir():
        with open(path, "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def time_reading(folder: Path, samples: int, frames: int, width: int, rounds: int) -> list[dict]:
    """Rows of the table about videos a second, out of shards and single files in the order of a shuffled epoch."""
    header = FeatureHeader("random", "image_embeds", "none", f"uniform {frames}", width)
    rng, single = np.random.default_rng(0), folder / "single"
    single.mkdir()
    with ShardWriter(folder / "read", header) as writer:
        for number in range(samples):
            video = Video(
                f"v{number}", 60.0, np.linspace(0, 59, frames), rng.standard_normal((frames, width)).astype("f2")
            )
            writer.add(video)
            np.save(single / f"{video.id}.npy", video.features)
            about = {"duration_s": video.duration_s, "frame_times_s": video.frame_times_s.tolist()}
            (single / f"{video.id}.json").write_text(json.dumps(about))
    reader = ShardReader(folder / "read")
    order = [reader.ids[i] for i in epoch_order([reader.shard_of(name) for name in reader.ids], seed=0, epoch=0)]

    def whole(name: str) -> Video:
        about = json.loads((single / f"{name}.json").read_text())
        return Video(name, about["duration_s"], np.array(about["frame_times_s"]), np.load(single / f"{name}.npy"))

    places = {}
    for tar in sorted((folder / "read").glob("*.tar")):
        descriptor = os.open(tar, os.O_RDONLY)
        for record in read_places(tar, tar.stat().st_size):
            ends = [at + size for at, size in record["members"].values()]
            start = min(at for at, _ in record["members"].values())
            places[record["id"]] = descriptor, bytearray(max(ends) - start), start
    works = {
        "bytes alone": lambda: [os.preadv(file, [room], at) for file, room, at in map(places.__getitem__, order)],
        "npy and json of a video": lambda: [whole(name) for name in order],
        "npy alone, nothing checked": lambda: [np.load(single / f"{name}.npy") for name in order],
        "shards": lambda: [reader.read(name) for name in order],
    }
    rows = []
    for state, before in (("cached", lambda: None), ("not cached", lambda: (forget(single), forget(folder / "read")))):
        times = best_s(works, rounds, before)
        for name, taken in times.items():
            print(f"{name + ', ' + state:40} {samples / taken:8.0f} samples/s")
        limit, both, bare, ours = times.values()
        print(f"shards, {state}: x{both / ours:.1f} of npy and json, x{bare / ours:.1f} of npy alone")
        found = (samples / taken for taken in (both, limit))
        rows.append(row_of(f"reading shards, {state}", samples / ours, "videos/s", *found))
    for file in {file for file, _, _ in places.values()}:
        os.close(file)
    return rows


def measure(
    videos: int = 8,
    files: Path | None = None,
    frames: int = 100,
    samples: int = 2000,
    width: int = 768,
    rounds: int = 3,
) -> list[dict]:
    """Time everything, print it, and give the rows of the table.

    Args:
        videos: to extract.
        files: folder of real ones; None: one of 30 s is rendered.
        frames: of each that are encoded.
        samples: videos to read.
        width: of the features to read.
        rounds: repetitions; the best counts.
    """
    logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        if not files:
            render(Path(folder) / "rendered.mp4", 30, 0)
        found = [source.path for source in find_sources(files or Path(folder) / "rendered.mp4")[0]]
        extracted = time_extraction(Path(folder), found, videos, frames, rounds)
        return [extracted, *time_reading(Path(folder), samples, frames, width, rounds)]


if __name__ == "__main__":
    show({"rows": auto_cli(measure), "limits": {}})
