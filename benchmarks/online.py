"""What encoding while training costs: python -m benchmarks.online [--videos 8 --frames 32 --files FOLDER].

Compares, in one run and with a small random CLIP and a small random Llama, an epoch on shards with one on video files:
of which all features are kept from an epoch before, of which half are, and of which none are. Once the videos are only
read, once each is followed by a step of training. Prints ratios of best times, and what lies on disk.
"""

import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from random import Random

import torch
from jsonargparse import auto_cli
from torch.utils.data import DataLoader
from transformers.utils import logging

from benchmarks.extraction import best_s, render, save_clip
from datamodules.batch import collate
from datamodules.chat import chat_format
from datamodules.dialogue import Dialogue
from datamodules.schema import Query, Turn, Video
from datamodules.shards import ShardReader
from datamodules.video_reader import VideoReader
from localizers import TextTimestamps
from models.adapters import LinearAdapter
from models.checkpoints import load_llm, load_tokenizer
from models.video_llm import VideoLLM
from preparation.features.decoding import Sampling, find_sources
from preparation.features.encoders import load_encoder
from preparation.features.extraction import extract
from preparation.features.online import Encoding
from preparation.world.tiny import save_tiny_lm, tiny_lm, tiny_tokenizer


class Epoch:
    """The videos of a reader, one after the other."""

    def __init__(self, reader: VideoReader, ids: list[str]):
        self.reader, self.ids = reader, ids

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, place: int) -> Video:
        return self.reader.read(self.ids[place])

    def run(self, workers: int, step: Callable[[Video], object]) -> None:
        """Read all of them in workers, and do something with each."""
        for video in DataLoader(self, batch_size=None, num_workers=workers):
            step(video)


def training_step(folder: Path, feature_width: int, width: int) -> Callable[[Video], object]:
    """Forward and backward pass of a model of four layers on a dialogue about a video."""
    tokenizer = tiny_tokenizer(["USER ASSISTANT when does a red robot jump from to what is this"])
    save_tiny_lm(folder, tiny_lm(len(tokenizer), width=width), tokenizer)
    dialogue = Dialogue(load_tokenizer(str(folder)), chat_format("vicuna_v1"), TextTimestamps())
    model = VideoLLM(load_llm(str(folder), torch.float32), LinearAdapter(feature_width, width))
    query = Query("q", "v", "dialogue", turns=(Turn("what is this", "a red robot jump"),))

    def step(video: Video) -> None:
        model(collate([dialogue.example(query, video, Random(0))], 0)).lm_loss.backward()

    return step


def size(folder: Path) -> int:
    """Bytes of the files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def main(
    videos: int = 8, files: Path | None = None, frames: int = 32, workers: int = 2, width: int = 256, rounds: int = 3
) -> None:
    """Time all ways.

    Args:
        videos: of an epoch.
        files: folder of real ones; None: they are rendered, 10 s each.
        frames: of each.
        workers: reading processes.
        width: of the language model.
        rounds: repetitions; the best counts.
    """
    logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as name, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = Path(name)
        if not files:
            files = folder / "videos"
            files.mkdir()
            for number in range(videos):
                render(files / f"{number}.mp4", 10, number)
        save_clip(folder / "clip")
        sources = find_sources(files)[0][:videos]
        ids = [source.id for source in sources]
        encoder = load_encoder(str(folder / "clip"), "cpu")
        extract(sources, encoder, Sampling(frames=frames), folder / "shards")
        stored = size(folder / "shards")
        settings = {"encoder": str(folder / "clip"), "device": "cpu", "sampling": f"uniform {frames}"}
        readers = {"shards": ShardReader(folder / "shards")}
        for name, most in (("all kept", 10**9), ("half kept", 0.55 * stored)):
            readers[name] = Encoding(**settings, cache=folder / name, cache_gb=most / 1e9).open(files)
        readers["none kept"] = Encoding(**settings).open(files)
        step, epochs = training_step(folder / "llm", encoder.width, width), {}
        for name, reader in readers.items():
            epochs[name] = Epoch(reader, ids)
            epochs[name].run(0, lambda video: None)  # fills the caches
        print(f"{videos} videos of {frames} frames: shards {stored / 1e3:.0f} kB", end="")
        print(f", all kept {size(folder / 'all kept') / 1e3:.0f} kB, half {size(folder / 'half kept') / 1e3:.0f} kB")
        for what, work in (("reading", lambda video: None), ("training", step)):
            times = best_s({n: lambda e=e, w=work: e.run(workers, w) for n, e in epochs.items()}, rounds)
            for name, seconds in times.items():
                ratio = seconds / times["shards"]
                print(f"{what}, {name:10} {1e3 * seconds / len(ids):8.1f} ms a video, x{ratio:.2f} of shards")


if __name__ == "__main__":
    auto_cli(main)
