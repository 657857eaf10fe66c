"""What sharing a video saves: python -m benchmarks.shared_video [--frames 100 --queries 8].

Compares, on a small random Llama and in one run, answering queries with one pass over their video against one pass a
query, and training on packed dialogues against training on them one by one. Prints ratios of the median time.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from random import Random

import numpy as np
import torch
from jsonargparse import auto_cli

from datamodules.batch import collate, collate_prompts
from datamodules.chat import chat_format
from datamodules.dialogue import Dialogue
from datamodules.packing import pack
from datamodules.schema import Query, Turn, Video
from localizers import TextTimestamps
from models.adapters import LinearAdapter
from models.checkpoints import load_llm, load_tokenizer
from models.video_llm import VideoLLM
from preparation.world.tiny import save_tiny_lm, tiny_lm, tiny_tokenizer


def median_s(work: Callable[[], object], rounds: int) -> float:
    """Median wall time of ``work`` in seconds, after one round that does not count."""
    times = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def main(frames: int = 100, queries: int = 8, width: int = 256, rounds: int = 5) -> None:
    """Time both ways.

    Args:
        frames: of the video.
        queries: about it.
        width: of the language model (four layers).
        rounds: timed repetitions of each.
    """
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = tiny_tokenizer(["USER ASSISTANT when does a red robot jump from to what is this"])
        save_tiny_lm(folder, tiny_lm(len(tokenizer), width=width), tokenizer)
        dialogue = Dialogue(load_tokenizer(folder), chat_format("vicuna_v1"), TextTimestamps())
        llm = load_llm(folder, torch.float32)
    model = VideoLLM(llm, LinearAdapter(64, width))
    rng = np.random.default_rng(0)
    video = Video("v", 60.0, np.linspace(0, 59, frames), rng.standard_normal((frames, 64)).astype(np.float16))
    asked = [Query(str(i), "v", "grounding", "a red robot jump " * (i % 3 + 1)) for i in range(queries)]
    told = [Query(str(i), "v", "dialogue", turns=(Turn("what is this", "a red robot jump"),)) for i in range(queries)]
    prompts = [dialogue.prompt(query, video) for query in asked]
    examples = [dialogue.example(query, video, Random(0)) for query in told]
    settings = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    work = {
        "answer, one pass a query": lambda: [model.generate(collate_prompts([p], 0), **settings) for p in prompts],
        "answer, one pass a video": lambda: model.generate(collate_prompts(prompts, 0), **settings),
        "train, one sequence a query": lambda: model(collate(examples, 0)).lm_loss.backward(),
        "train, one sequence a video": lambda: model(collate([pack(examples)], 0)).lm_loss.backward(),
    }
    times = {name: median_s(run, rounds) for name, run in work.items()}
    for name, seconds in times.items():
        print(f"{name:30} {seconds:.3f} s")
    (apart, together, single, packed) = times.values()
    print(f"{queries} queries on {frames} frames: answering x{apart / together:.1f}, training x{single / packed:.1f}")


if __name__ == "__main__":
    auto_cli(main)
