"""What a step consists of, on any number of devices."""

from types import SimpleNamespace

import pytest

from datamodules.sampling import EpochBatches
from lightning_modules.batching import short_step_factor, step_size


@pytest.mark.parametrize(("batch_size", "processes", "accumulate"), [(8, 1, 16), (8, 8, 2), (16, 8, 1), (1, 128, 1)])
def test_accumulation_follows(batch_size, processes, accumulate):
    step = step_size(128, batch_size, processes, None)
    assert (step.accumulate, step.dialogues) == (accumulate, 128)
    assert str(step).startswith("128 dialogues a step = ")


def test_without_a_global_batch_it_is_what_comes_together():
    assert step_size(None, 8, 8, 16).dialogues == 1024
    assert step_size(None, 8, 2, None).dialogues == 16


@pytest.mark.parametrize(
    ("batch_size", "processes", "words"),
    [(24, 1, "data.batch_size can be 4 or 8 or 16 or 32"), (8, 3, "divides among 1 or 2 or 4 or 8 processes"),
     (32, 8, "data.batch_size can be 2 or 4 or 8 or 16")],
)  # fmt: skip
def test_what_does_not_divide_is_refused_with_numbers_that_do(batch_size, processes, words):
    with pytest.raises(ValueError, match=f"global_batch_size 128 .*{batch_size} on {processes} process.*{words}"):
        step_size(128, batch_size, processes, None)


@pytest.mark.parametrize("together", [1, 3, 8])
def test_a_step_has_the_same_dialogues_however_it_is_divided(together):
    """Also where videos have one to six queries each, and several share a sequence."""
    videos = [video for video in range(40) for _ in range(1 + video % 6)]
    shards, wanted = [video // 4 for video in videos], None
    for batch_size, world in ((24, 1), (4, 1), (3, 2), (1, 8), (2, 3)):
        ranks = [
            list(EpochBatches(shards, batch_size, 0, rank, world, video_of_sample=videos, together=together))
            for rank in range(world)
        ]
        accumulate = 24 // (batch_size * world)
        steps = []
        for n in range(0, len(ranks[0]), accumulate):
            draws = [draw for batches in ranks for batch in batches[n : n + accumulate] for draw in batch]
            steps.append(sorted(draw.index for draw in draws if not draw.padding))
        assert all(len(step) == 24 for step in steps[:-1])
        wanted = wanted or steps
        assert steps == wanted
        for batch in (batch for batches in ranks for batch in batches):
            sizes = {draw.sequence: [d.index for d in batch if d.sequence == draw.sequence] for draw in batch}
            assert all(len(members) <= together for members in sizes.values())
            assert all(len({videos[index] for index in members}) == 1 for members in sizes.values())
    assert sorted(index for step in wanted for index in step) == list(range(len(videos)))


@pytest.mark.parametrize(
    ("batches", "accumulate", "place", "factor"),
    [(10, 4, 7, 1.0), (10, 4, 8, 2.0), (10, 4, 9, 2.0), (8, 4, 7, 1.0), (10, 1, 9, 1.0), (float("inf"), 4, 9, 1.0)],
)
def test_a_short_last_step_is_a_mean_over_its_own_batches(batches, accumulate, place, factor):
    loop = SimpleNamespace(epoch_loop=SimpleNamespace(batch_idx=place))
    trainer = SimpleNamespace(accumulate_grad_batches=accumulate, num_training_batches=batches, fit_loop=loop)
    assert short_step_factor(trainer) == factor
