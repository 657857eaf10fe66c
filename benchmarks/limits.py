"""What this machine can do at most: python -m benchmarks.limits [--tokens 1024 --width 256 --inner 512].

The rate of matrix multiplications at the shapes of a language model, and the rate at which memory is read. A training
step and the reading of a prompt can be no faster than the first allows, and a token that is written no faster than the
weights are read.
"""

import time
from collections.abc import Callable

import torch
from jsonargparse import auto_cli

MEMORY_BYTES = 2**28


def synchronize(device: torch.device) -> None:
    """Wait for what an accelerator has been told to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def best_s(work: Callable[[], object], device: torch.device, rounds: int) -> float:
    """Shortest wall time of ``work`` in seconds, after one round that does not count."""
    times = []
    for _ in range(rounds + 1):
        synchronize(device)
        start = time.perf_counter()
        work()
        synchronize(device)
        times.append(time.perf_counter() - start)
    return min(times[1:])


@torch.inference_mode()
def multiplication_flops(tokens: int, width: int, inner: int, device: torch.device, dtype: torch.dtype) -> float:
    """Operations a second of (tokens, width) @ (width, inner)."""
    left = torch.randn(tokens, width, device=device).to(dtype)
    right = torch.randn(width, inner, device=device).to(dtype)
    repeats = max(1, int(1e9 // (2 * tokens * width * inner)))

    def work() -> None:
        for _ in range(repeats):
            left @ right

    return repeats * 2 * tokens * width * inner / best_s(work, device, 5)


@torch.inference_mode()
def memory_bytes_per_s(device: torch.device) -> float:
    """Bytes a second that are read of memory that no cache holds."""
    numbers = torch.ones(MEMORY_BYTES // 4, device=device)
    return MEMORY_BYTES / best_s(numbers.sum, device, 5)


def measured(tokens: int, width: int, inner: int, device: torch.device, dtype: torch.dtype) -> dict[str, float]:
    """Both limits, by name and unit."""
    flops = multiplication_flops(tokens, width, inner, device, dtype)
    return {"matrix multiplication, GFLOP/s": flops / 1e9, "memory, GB/s": memory_bytes_per_s(device) / 1e9}


def main(tokens: int = 1024, width: int = 256, inner: int = 512) -> None:
    """Measure on the accelerator, in bfloat16, or where there is none on the CPU in float32.

    Args:
        tokens: of a batch.
        width: of the hidden states.
        inner: of the layers between them.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    for name, value in measured(tokens, width, inner, device, dtype).items():
        print(f"{name:32} {value:.1f}")


if __name__ == "__main__":
    auto_cli(main)
