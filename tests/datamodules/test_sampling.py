"""Every sample once an epoch, in an order that seed and epoch alone decide, resumable at any batch."""

from collections import Counter

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import Dataset

from datamodules.sampling import WINDOW, Draw, EpochBatches, Part, ResumableLoader, epoch_order, epoch_samples

sizes = st.integers(1, 60)
worlds = st.integers(1, 5)
batch_sizes = st.integers(1, 9)
seeds = st.integers(0, 5)


class Identity(Dataset):
    """Gives the draw itself; a module-level class, so that workers can unpickle it."""

    def __getitem__(self, draw: Draw) -> Draw:
        return draw


def shards(size: int, each: int = 3) -> list[int]:
    return [sample // each for sample in range(size)]


def loader(size: int, batch_size: int, rank: int = 0, world_size: int = 1, seed: int = 0, workers: int = 0):
    batches = EpochBatches(shards(size), batch_size, seed, rank, world_size)
    return ResumableLoader(Identity(), batches, num_workers=workers, collate_fn=list)


@given(size=sizes, seed=seeds, epoch=st.integers(0, 4), window=st.integers(1, 8))
def test_an_order_has_every_sample_once(size, seed, epoch, window):
    order = epoch_order(shards(size), seed, epoch, window)
    assert sorted(order) == list(range(size))
    assert order == epoch_order(shards(size), seed, epoch, window)


def test_epochs_and_seeds_differ():
    orders = {tuple(epoch_order(shards(60), seed, epoch)) for seed in range(4) for epoch in range(4)}
    assert len(orders) == 16


def test_samples_stay_within_a_window_of_shards():
    of_sample = shards(300)
    order = epoch_order(of_sample, 0, 0, window=4)
    for start in range(0, 300, 12):
        assert len({of_sample[sample] for sample in order[start : start + 12]}) == 4
    assert len({of_sample[sample] for sample in order[:3]}) > 1  # mixed, not shard after shard
    assert WINDOW > 1


@settings(max_examples=200)
@given(size=sizes, batch_size=batch_sizes, world_size=worlds, seed=seeds)
def test_ranks_share_an_epoch(size, batch_size, world_size, seed):
    samplers = [EpochBatches(shards(size), batch_size, seed, rank, world_size) for rank in range(world_size)]
    for epoch in (0, 1):
        for sampler in samplers:
            sampler.set_epoch(epoch)
        ranks = [list(sampler) for sampler in samplers]
        assert {len(batches) for batches in ranks} == {len(samplers[0])}
        assert all([len(b) for b in batches] == [len(b) for b in ranks[0]] for batches in ranks)  # equal work
        draws = [draw for batches in ranks for batch in batches for draw in batch]
        assert sorted(draw.index for draw in draws if not draw.padding) == list(range(size))
        assert sum(draw.padding for draw in draws) < world_size
        assert {draw.epoch for draw in draws} == {epoch}
        assert all(0 < len(batch) <= batch_size for batches in ranks for batch in batches)


@settings(max_examples=60)
@given(size=sizes, batch_size=batch_sizes, world_size=worlds, data=st.data())
def test_resuming_gives_the_rest(size, batch_size, world_size, data):
    rank, epoch = data.draw(st.integers(0, world_size - 1)), data.draw(st.integers(0, 3))
    whole, resumed = (loader(size, batch_size, rank, world_size) for _ in range(2))
    done = data.draw(st.integers(0, len(whole)))
    for made in (whole, resumed):
        made.batch_sampler.set_epoch(epoch)
    batches = iter(resumed)
    resumed.batch_sampler.done = lambda: done  # known only after `iter` and before `next`, as in a trainer
    assert list(batches) == list(whole)[done:]
    assert len(resumed) == len(whole)


def test_workers_do_not_change_the_order():
    plain, parallel = loader(23, 4), loader(23, 4, workers=2)
    assert list(plain) == list(parallel)
    for made in (plain, parallel):
        made.batch_sampler.set_epoch(1)
    assert list(plain) == list(parallel)


def test_a_pass_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    list(loader(23, 4))
    assert torch.equal(before, torch.get_rng_state())


@given(
    parts=st.lists(st.builds(Part, st.integers(1, 30), st.floats(0.01, 3)), min_size=1, max_size=4),
    seed=seeds,
    epoch=st.integers(0, 3),
)
def test_an_epoch_holds_of_each_source_what_it_weighs(parts, seed, epoch):
    counts, start = Counter(epoch_samples(parts, seed, epoch)), 0
    for part in parts:
        drawn = [counts[sample] for sample in range(start, start + part.samples)]
        assert sum(drawn) == part.draws
        assert abs(part.draws - part.weight * part.samples) <= 1
        assert max(drawn) - min(drawn) <= 1  # all equally often
        start += part.samples
    assert max(counts) < start
    whole = [Part(part.samples) for part in parts]
    assert list(epoch_samples(whole, seed, epoch)) == list(range(start))


def test_a_part_of_a_source_is_another_one_each_epoch():
    assert len({tuple(epoch_samples([Part(40, 0.5)], seed, epoch)) for seed in (0, 1) for epoch in range(3)}) == 6


@given(weight=st.floats(0.1, 2.5), world_size=worlds, batch_size=batch_sizes, done=st.integers(0, 2))
def test_ranks_share_a_weighted_epoch_and_resume_in_it(weight, world_size, batch_size, done):
    parts, of_sample = [Part(20, weight), Part(7)], shards(27)
    drawn = []
    for rank in range(world_size):
        batches = EpochBatches(of_sample, batch_size, 0, rank, world_size, parts=parts)
        resumed = EpochBatches(of_sample, batch_size, 0, rank, world_size, lambda: done, parts)
        assert list(resumed) == list(batches)[done:]
        assert len(list(batches)) == len(batches)
        drawn += [draw.index for batch in batches for draw in batch if not draw.padding]
    assert sorted(drawn) == sorted(epoch_samples(parts, 0, 0))
