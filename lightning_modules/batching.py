"""How many dialogues an optimiser step learns from."""

from dataclasses import dataclass

import lightning as L
from jsonargparse import Namespace


@dataclass(frozen=True)
class StepSize:
    """What makes a global batch."""

    batch_size: int
    """Dialogues of one process and micro-batch."""
    processes: int
    accumulate: int
    """Micro-batches of a step."""

    @property
    def dialogues(self) -> int:
        """Of a step, over all processes."""
        return self.batch_size * self.processes * self.accumulate

    def __str__(self) -> str:
        return (
            f"{self.dialogues} dialogues a step = {self.batch_size} (data.batch_size) x {self.processes} "
            f"process{'es' * (self.processes > 1)} x {self.accumulate} accumulated"
        )


def check_batch(data: Namespace, accumulate: int | None) -> None:
    """Refuse sizes that cannot be, before the number of processes is known.

    Args:
        data: the configured ``data``.
        accumulate: the configured ``trainer.accumulate_grad_batches``; None where it is not given.

    Raises:
        ValueError: a size below one, or two keys that say how many batches are accumulated.
    """
    for key in ("global_batch_size", "batch_size", "eval_batch_size", "queries_per_video"):
        if data[key] is not None and data[key] < 1:
            raise ValueError(f"data.{key} must be at least 1, got {data[key]}")
    if accumulate is not None and accumulate < 1:
        raise ValueError(f"trainer.accumulate_grad_batches must be at least 1, got {accumulate}")
    if data["global_batch_size"] is not None and accumulate is not None:
        raise ValueError(
            f"data.global_batch_size {data['global_batch_size']} says how many batches are accumulated, and so does "
            f"trainer.accumulate_grad_batches {accumulate}: leave the latter out, or set data.global_batch_size null"
        )


def step_size(global_batch_size: int | None, batch_size: int, processes: int, accumulate: int | None) -> StepSize:
    """What a step consists of.

    Args:
        global_batch_size: dialogues of a step; None: as many as come together.
        batch_size: dialogues of one process and micro-batch.
        processes: devices of all nodes.
        accumulate: micro-batches of a step where no ``global_batch_size`` is given; None: one.

    Raises:
        ValueError: the global batch does not divide, naming sizes that would do.
    """
    if global_batch_size is None:
        return StepSize(batch_size, processes, accumulate or 1)
    accumulated, rest = divmod(global_batch_size, batch_size * processes)
    if rest == 0:
        return StepSize(batch_size, processes, accumulated)
    message = (
        f"data.global_batch_size {global_batch_size} cannot be made of data.batch_size {batch_size} on {processes} "
        f"process{'es' * (processes > 1)}: "
    )
    fits = [size for size in range(1, global_batch_size + 1) if global_batch_size % (size * processes) == 0]
    if fits:
        raise ValueError(f"{message}there, data.batch_size can be {' or '.join(map(str, nearest(fits, batch_size)))}")
    numbers = [n for n in range(1, global_batch_size + 1) if global_batch_size % n == 0]
    raise ValueError(
        f"{message}it divides among {' or '.join(map(str, nearest(numbers, processes)))} processes, or make it "
        f"{processes * batch_size * max(round(global_batch_size / (processes * batch_size)), 1)}"
    )


def nearest(numbers: list[int], wanted: int, most: int = 4) -> list[int]:
    """The few numbers next to one, in order."""
    return sorted(sorted(numbers, key=lambda number: abs(number - wanted))[:most])


def short_step_factor(trainer: L.Trainer) -> float:
    """Makes the last step of an epoch, which may have fewer batches than others, a mean over those that it has.

    Lightning divides every loss by ``accumulate_grad_batches``.
    """
    accumulate, batches = trainer.accumulate_grad_batches, trainer.num_training_batches
    if accumulate == 1 or batches == float("inf") or not (rest := int(batches) % accumulate):
        return 1.0
    return accumulate / rest if trainer.fit_loop.epoch_loop.batch_idx >= batches - rest else 1.0
