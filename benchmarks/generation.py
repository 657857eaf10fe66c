"""What S-tokens and experts cost while an answer is written: python -m benchmarks.generation [--llm FOLDER_OR_NAME].

The five sizes of VideoExpert's Table VIII: prompt length, generated tokens a second and peak memory, one answer at a
time, with the experts beside the weights as in training and in them as in a finished run. Without ``--llm`` the model
is a small random Llama, whose ratios are not those of a large one. Features, experts and adapter are random: they cost
what trained ones do.
"""

import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from jsonargparse import auto_cli
from rich.table import Table

from command_line.tables import console
from datamodules.batch import PromptBatch, collate_prompts
from datamodules.chat import chat_format
from datamodules.dialogue import Dialogue
from datamodules.schema import Query, Video
from datamodules.spatial_compression import Compression
from localizers import TemporalExpert
from models.adapters import LinearAdapter
from models.checkpoints import load_llm, load_tokenizer
from models.routed_lora import add_experts, expert_configs, experts, merge_experts
from models.video_llm import VideoLLM
from models.vocabulary import add_tokens
from preparation.world.tiny import save_tiny_lm, tiny_lm, tiny_tokenizer

SIZES = ("", "4x64", "4x128", "8x64", "8x128")
FEATURES = 768
QUESTION = Query("q", "v", "grounding", "a man opens the door")
STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def main(llm: str | None = None, frames: int = 100, tokens: int = 64, rounds: int = 3, width: int = 256) -> None:
    """Time all sizes, twice.

    Args:
        llm: folder or hub name of a causal language model; None: a small random Llama.
        frames: of the video.
        tokens: of an answer.
        rounds: answers of each kind; the fastest counts.
        width: of the small Llama (four layers).
    """
    with tempfile.TemporaryDirectory() as folder:
        if llm is None:
            llm, tokenizer = folder, tiny_tokenizer(["During which frames a man opens the door happen?"])
            save_tiny_lm(folder, tiny_lm(len(tokenizer), width=width), tokenizer)
        models = {"beside the weights": model(llm, merged=False), "in the weights": model(llm, merged=True)}
        table = Table("experts", "frames + S-tokens", "prompt", "tokens/s", "peak GB")
        for where, made in models.items():
            for size in SIZES:
                prompts = question(llm, frames, size).to(made.words.weight.device)
                rate, peak_gb = measure(made, prompts, tokens, rounds)
                length = prompts.prefix_ids.shape[1] + prompts.suffix_ids.shape[1]
                table.add_row(where, f"{frames} + {size or 0}", str(length), f"{rate:.1f}", f"{peak_gb:.2f}")
    console.print(table)


def model(llm: str, merged: bool) -> VideoLLM:
    """VideoExpert with new experts, on an accelerator in bfloat16 where there is one."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    base = load_llm(llm, torch.bfloat16 if device.type == "cuda" else torch.float32)
    localizer, tokenizer = TemporalExpert(), load_tokenizer(llm)
    tokenizer.add_tokens(list(localizer.special_tokens), special_tokens=True)
    add_tokens(base, tokenizer, list(localizer.special_tokens), *localizer.first_rows)
    width = base.config.hidden_size
    routed = add_experts(base, *expert_configs(64))
    if merged:
        trained = experts(routed)
        routed = merge_experts(routed.unload(), trained)
    made = VideoLLM(routed, LinearAdapter(FEATURES, width), localizer.head(width), localizer.states)
    return made.to(device).eval()


def question(llm: str, frames: int, size: str) -> PromptBatch:
    """One question about a video with that many S-tokens."""
    compression = Compression.parse(size) if size else None
    dialogue = Dialogue(
        load_tokenizer(llm), chat_format("vicuna_v1"), TemporalExpert(), "videoexpert", spatial=compression
    )
    random = np.random.default_rng(0)
    arrays = {"features": random.standard_normal((frames, FEATURES)).astype(np.float16)}
    if compression:
        arrays["spatial"] = random.standard_normal((compression.count, FEATURES)).astype(np.float16)
    video = Video("v", float(frames), np.arange(frames, dtype=float), **arrays)
    return collate_prompts([dialogue.prompt(QUESTION, video)], dialogue.pad_id)


def measure(made: VideoLLM, prompts: PromptBatch, tokens: int, rounds: int) -> tuple[float, float]:
    """Tokens a second of the fastest of several answers, reading the prompt included, and peak memory in GB."""
    settings = {"max_new_tokens": tokens, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    times = []
    reset_peak()
    for _ in range(rounds + 1):  # the first one warms up
        start = time.perf_counter()
        made.generate(prompts, **settings)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return tokens / min(times[1:]), peak_bytes() / 1e9


def reset_peak() -> None:
    """Begin to measure the peak anew; Linux keeps one for the process."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    elif RESET.exists():
        RESET.write_text("5")


def peak_bytes() -> int:
    """On an accelerator what tensors took at most; else what the whole process did."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    if STATUS.exists():
        (line,) = (line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    auto_cli(main)
