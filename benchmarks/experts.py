"""What two routed experts cost beside one LoRA: python -m benchmarks.experts [--width 768 --tokens 450].

A training step of a small random Llama (forward, backward) with its base frozen, with one LoRA of rank 64, and with two
experts of rank 32; and one token of an answer behind a read prompt, for which a finished run has the spatial expert in
its weights. All in one run, as ratios of process time.
"""

import copy
import statistics
import time
from collections.abc import Callable

import torch
from jsonargparse import auto_cli
from rich.table import Table
from torch import Tensor, nn
from transformers import DynamicCache

from command_line.tables import console
from models.checkpoints import add_lora, lora_config
from models.routed_lora import add_experts, expert_configs, experts, merge_experts, route
from models.video_llm import cache_argument
from preparation.world.tiny import tiny_lm

WORDS, DROPOUT = 1000, 0.05


def cpu_s(work: Callable[[], object]) -> float:
    """Process time of one call in seconds."""
    start = time.process_time()
    work()
    return time.process_time() - start


def main(width: int = 768, layers: int = 4, tokens: int = 450, frames: int = 100, rounds: int = 5) -> None:
    """Time all kinds of a step in turn, several times; the median of each counts.

    Args:
        width: of the language model.
        layers: of it.
        tokens: of a sequence.
        frames: of them.
        rounds: repetitions.
    """
    torch.set_num_threads(1)
    inputs = torch.randn(1, tokens, width, generator=torch.Generator().manual_seed(0))
    is_frame = (torch.arange(tokens) < frames)[None]
    models = build(width, layers)
    steps = {name: lambda m=model: step(m, inputs, is_frame) for name, model in models.items() if name != "in weights"}
    caches = {name: read(model, inputs, is_frame) for name, model in models.items()}
    decodes = {name: lambda n=name: decode(models[n].eval(), inputs[:, -1:], caches[n]) for name in models}
    table = Table("", "training step, CPU s", "to one LoRA", "token of an answer, CPU s", "to one LoRA")
    trained, written = times(steps, rounds), times(decodes, rounds)
    for name in models:
        row = (trained.get(name), written[name])
        cells = [cell for value, of in zip(row, (trained, written), strict=True) for cell in _cells(value, of)]
        table.add_row(name, *cells)
    console.print(table)


def _cells(value: float | None, of: dict[str, float]) -> tuple[str, str]:
    return ("-", "-") if value is None else (f"{value:.4f}", f"{value / of['one LoRA']:.2f}x")


def times(work: dict[str, Callable], rounds: int) -> dict[str, float]:
    """Median seconds of each, taken in turn after one round that does not count."""
    seconds = [{name: cpu_s(run) for name, run in work.items()} for _ in range(rounds + 1)][1:]
    return {name: statistics.median(one[name] for one in seconds) for name in work}


def build(width: int, layers: int) -> dict[str, nn.Module]:
    """The same frozen base with nothing, with one LoRA, with two experts, and with these as a finished run has them."""
    made = lambda: tiny_lm(WORDS, width=width, layers=layers, heads=width // 64 or 1).requires_grad_(False)  # noqa: E731
    routed = add_experts(made(), *expert_configs(64, dropout=DROPOUT))
    merged = merge_experts(made(), experts(routed))
    joint = add_lora(made(), lora_config(64, 128, DROPOUT))
    return {"base alone": made(), "one LoRA": joint, "experts": routed, "in weights": merged}


def step(model: nn.Module, inputs: Tensor, is_frame: Tensor) -> None:
    """One forward and backward pass."""
    model.train()
    with route(model, is_frame):
        states = model.get_decoder()(inputs_embeds=inputs.clone().requires_grad_(), use_cache=False).last_hidden_state
    states.square().mean().backward()


@torch.inference_mode()
def read(model: nn.Module, inputs: Tensor, is_frame: Tensor) -> DynamicCache:
    """The prompt, kept for its answer."""
    decoder, cache = model.eval().get_decoder(), DynamicCache(config=model.config)
    with route(model, is_frame):
        decoder(inputs_embeds=inputs, use_cache=True, **cache_argument(decoder, cache))
    return cache


@torch.inference_mode()
def decode(model: nn.Module, token: Tensor, cache: DynamicCache) -> None:
    """One token behind the prompt."""
    decoder = model.get_decoder()
    decoder(inputs_embeds=token, use_cache=True, **cache_argument(decoder, copy.deepcopy(cache)))


if __name__ == "__main__":
    auto_cli(main)
