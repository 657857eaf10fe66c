"""Which sample comes when: a pure function of seed and epoch, shared out over ranks, resumable at any batch."""

from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
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
    sequence: int = 0
    """Neighbours in a batch that have the same number stand in one sequence, behind one copy of their video."""


@dataclass(frozen=True)
class Part:
    """One source of a mixture: samples that lie side by side."""

    samples: int
    weight: float = 1.0
    """Times that an epoch draws each of them, on average."""

    @property
    def draws(self) -> int:
        """How many an epoch holds, one at least."""
        return max(round(self.weight * self.samples), 1)


def epoch_samples(parts: Sequence[Part], seed: int, epoch: int) -> array:
    """Which samples an epoch holds: each of a part equally often, and as many at random as are missing to its draws."""
    random, start, samples = Random(f"{seed}/{epoch}/mixture"), 0, array("q")
    for part in parts:
        block = range(start, start + part.samples)
        times, rest = divmod(part.draws, part.samples)
        samples.extend(array("q", block) * times)
        samples.extend(sorted(random.sample(block, rest)))
        start += part.samples
    return samples


def epoch_order(
    shard_of_sample: Sequence[Hashable],
    seed: int,
    epoch: int,
    window: int = WINDOW,
    samples: Iterable[int] | None = None,
) -> array:
    """The order of an epoch: shards shuffled, then samples shuffled within windows of shards.

    Args:
        shard_of_sample: the shard of each sample.
        seed: of the run.
        epoch: number of the epoch.
        window: shards in a window.
        samples: those of the epoch. None: every one, once.

    Returns:
        the samples in their order.
    """
    random = Random(f"{seed}/{epoch}")
    shards: dict[Hashable, array] = defaultdict(partial(array, "q"))
    for sample in range(len(shard_of_sample)) if samples is None else samples:
        shards[shard_of_sample[sample]].append(sample)
    groups = list(shards.values())
    random.shuffle(groups)
    order = array("q")
    for start in range(0, len(groups), window):
        mixed = array("q")
        for group in groups[start : start + window]:
            mixed.extend(group)
        random.shuffle(mixed)
        order.extend(mixed)
    return order


def share_videos(samples: Sequence[int], video_of_sample: Sequence[Hashable], most: int) -> list[list[int]]:
    """Put samples about one video together, at most ``most``, in their order.

    A sample that is there twice is the second time put together with others that are.
    """
    seen: Counter[int] = Counter()
    videos: dict[tuple[Hashable, int], list[int]] = {}
    for sample in samples:
        videos.setdefault((video_of_sample[sample], seen[sample]), []).append(sample)
        seen[sample] += 1
    return [group[start : start + most] for group in videos.values() for start in range(0, len(group), most)]


class EpochBatches:
    """Batch sampler: an epoch's samples once over all ranks, the same number of batches on each.

    What all ranks take at once are the next ``batch_size * world_size`` samples of the epoch's order, so a step that
    accumulates n batches learns from the same samples whatever part of ``batch_size * world_size * n`` is which. Where
    the last samples do not divide over the ranks, some are drawn twice, the second time as padding.

    Args:
        shard_of_sample: the shard of each sample.
        batch_size: samples of one rank.
        seed: of the run.
        rank: of this process.
        world_size: processes.
        done: gives the batches of this epoch that were used already; iteration goes on behind them.
        parts: the sources of the samples and their weights. None: every sample once an epoch.
        video_of_sample: the video of each sample; only needed where several stand in one sequence.
        together: samples about one video that stand in one sequence, at most. A batch that ends in the middle of them
            leaves the others to the next one, which has a copy of the video of its own.
        begin: gives an epoch, and how many samples of it were used already; its next batch is without these. Needed
            where batches had another size before.
    """

    def __init__(
        self,
        shard_of_sample: Sequence[Hashable],
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        done: Callable[[], int] = int,
        parts: Sequence[Part] | None = None,
        video_of_sample: Sequence[Hashable] = (),
        together: int = 1,
        begin: Callable[[], tuple[int, int]] = lambda: (0, 0),
    ):
        self.shard_of_sample, self.batch_size, self.seed = shard_of_sample, batch_size, seed
        self.rank, self.world_size = rank, world_size
        self.done, self.begin = done, begin
        self.parts = [Part(len(shard_of_sample))] if parts is None else list(parts)
        self.video_of_sample, self.together = video_of_sample, together
        self.epoch = 0
        self.sampler = self  # Lightning looks here for `set_epoch`

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-sum(part.draws for part in self.parts) // (self.batch_size * self.world_size))

    def __iter__(self) -> Iterator[list[Draw]]:
        order, sequences = self._order()
        step, (epoch, used) = self.batch_size * self.world_size, self.begin()
        for start in range(self.done() * step, len(order), step):
            now = slice(max(start, used if epoch == self.epoch else 0), start + step)
            both = zip(order[now], sequences[now], strict=True)
            taken = [Draw(index, self.epoch, sequence=sequence) for index, sequence in both]
            share = -(-len(taken) // self.world_size)
            missing = share * self.world_size - len(taken)
            last = sequences[-1]
            taken += [
                Draw(order[i % len(order)], self.epoch, padding=True, sequence=last + i + 1) for i in range(missing)
            ]
            yield taken[self.rank * share : (self.rank + 1) * share]

    def _order(self) -> tuple[Sequence[int], Sequence[int]]:
        """The epoch's samples in their order, and the sequence of each."""
        samples, shards = epoch_samples(self.parts, self.seed, self.epoch), self.shard_of_sample
        if self.together == 1:
            order = epoch_order(shards, self.seed, self.epoch, samples=samples)
            return order, range(len(order))
        groups = share_videos(samples, self.video_of_sample, self.together)
        places = epoch_order([shards[group[0]] for group in groups], self.seed, self.epoch)
        sequences = (place for place, group in enumerate(places) for _ in groups[group])
        return array("q", chain.from_iterable(groups[group] for group in places)), array("q", sequences)


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
