"""Which sample comes when: a pure function of seed and epoch, shared out over ranks, resumable at any batch."""

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from random import Random

import torch
from torch.utils.data import DataLoader

WINDOW = 16
"""Shards that are mixed with one another; reading stays near a few places on disk."""


@dataclass(frozen=True)
class Draw:
    """One sample of an epoch."""

    index: int
    epoch: int
    padding: bool = False
    """True: it is there only so that every rank has as many batches; nothing is learned from it."""


def epoch_order(shard_of_sample: Sequence[Hashable], seed: int, epoch: int, window: int = WINDOW) -> list[int]:
    """The order of an epoch: shards shuffled, then samples shuffled within windows of shards.

    Args:
        shard_of_sample: the shard of each sample.
        seed: of the run.
        epoch: number of the epoch.
        window: shards in a window.

    Returns:
        every sample index once.
    """
    random = Random(f"{seed}/{epoch}")
    shards: dict[Hashable, list[int]] = {}
    for sample, shard in enumerate(shard_of_sample):
        shards.setdefault(shard, []).append(sample)
    groups = list(shards.values())
    random.shuffle(groups)
    order = []
    for start in range(0, len(groups), window):
        mixed = [sample for group in groups[start : start + window] for sample in group]
        random.shuffle(mixed)
        order += mixed
    return order


class EpochBatches:
    """Batch sampler: every sample once an epoch over all ranks, the same number of batches on each.

    Where the last samples do not divide over the ranks, some are drawn twice, the second time as padding.

    Args:
        shard_of_sample: the shard of each sample.
        batch_size: samples of one rank.
        seed: of the run.
        rank: of this process.
        world_size: processes.
        done: gives the batches of this epoch that were used already; iteration goes on behind them.
    """

    def __init__(
        self,
        shard_of_sample: Sequence[Hashable],
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        done: Callable[[], int] = int,
    ):
        self.shard_of_sample, self.batch_size, self.seed = shard_of_sample, batch_size, seed
        self.rank, self.world_size = rank, world_size
        self.done = done
        self.epoch = 0
        self.sampler = self  # Lightning looks here for `set_epoch`

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-len(self.shard_of_sample) // (self.batch_size * self.world_size))

    def __iter__(self) -> Iterator[list[Draw]]:
        order = epoch_order(self.shard_of_sample, self.seed, self.epoch)
        missing = -len(order) % self.world_size
        draws = [Draw(index, self.epoch) for index in order]
        draws += [Draw(order[i % len(order)], self.epoch, padding=True) for i in range(missing)]
        mine = draws[self.rank :: self.world_size]
        for start in range(self.done() * self.batch_size, len(mine), self.batch_size):
            yield mine[start : start + self.batch_size]


class ResumableLoader(DataLoader):
    """A DataLoader that begins when its first batch is asked for, not before.

    By then the trainer knows from which batch a resumed epoch goes on. The loader has its own generator: otherwise
    each pass would draw from the global one, and a resumed run would draw differently.
    """

    def __init__(self, dataset, batch_sampler: EpochBatches, **settings):
        super().__init__(dataset, batch_sampler=batch_sampler, generator=torch.Generator(), **settings)

    def __iter__(self) -> Iterator:
        yield from super().__iter__()

    def state_dict(self) -> dict:
        """Nothing to keep: the trainer counts the batches. Lightning takes a loader without this for one that
        cannot resume.
        """
        return {}

    def load_state_dict(self, state: dict) -> None:
        """Nothing to do."""
