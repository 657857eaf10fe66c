"""The processes that a launcher started to do one job together."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch.distributed

PATIENCE = timedelta(days=7)
"""A process that is done waits this long for the slowest."""


@dataclass(frozen=True)
class Processes:
    """Which one of them this is."""

    rank: int = 0
    world: int = 1

    @property
    def leads(self) -> bool:
        """Whether this is the one that writes what exists once, and prints."""
        return self.rank == 0

    def wait(self) -> None:
        """Until all have come here."""
        if self.world > 1:
            torch.distributed.barrier()

    def gather(self, value) -> list:
        """The value of every process, by rank; all get the same list."""
        values = [value]
        if self.world > 1:
            values = [None] * self.world
            torch.distributed.all_gather_object(values, value)
        return values


@contextmanager
def launched_processes(environment: Mapping[str, str] = os.environ) -> Iterator[Processes]:
    """The group of ``torchrun``, ``lightning run`` or ``fabric run``; without a launcher, this process alone.

    Args:
        environment: of this process; a launcher sets RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT.
    """
    world = int(environment.get("WORLD_SIZE", 1)) if "RANK" in environment else 1
    if world == 1:
        yield Processes()
        return
    torch.distributed.init_process_group("gloo", timeout=PATIENCE)
    try:
        yield Processes(int(environment["RANK"]), world)
    finally:
        torch.distributed.destroy_process_group()
