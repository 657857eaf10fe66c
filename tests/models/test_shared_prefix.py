"""Rows that share what was read of a video: nothing is copied, and every row sees what it would see alone."""

from types import SimpleNamespace

import pytest
import torch
from transformers import DynamicCache

from models.shared_prefix import SharedPrefix, _current, attend

GROUPS, WIDTH, LAYER = 2, 4, SimpleNamespace(layer_idx=0)


@pytest.fixture
def read() -> DynamicCache:
    """Three videos of seven tokens."""
    torch.manual_seed(0)
    cache = DynamicCache()
    cache.update(torch.randn(3, GROUPS, 7, WIDTH), torch.randn(3, GROUPS, 7, WIDTH), 0)
    return cache


@pytest.mark.parametrize("videos", [[0, 0, 0], [0, 0, 1, 2, 2, 2], [0, 1, 2], [1, 1], [2, 0, 0]], ids=str)
@pytest.mark.parametrize("leaving", [False, True])
def test_attention_is_that_over_whole_rows(read, videos, leaving):
    rows = torch.tensor(videos)
    shared, added = SharedPrefix(read, rows), torch.randn(2, len(rows), GROUPS, 3, WIDTH)
    shared.update(*added, 0)
    if leaving:
        stay = torch.arange(len(rows))[1:]
        shared.batch_select_indices(stay)
        rows, added = rows[stay], added[:, stay]
    more = torch.randn(2, len(rows), GROUPS, 2, WIDTH)
    query, mask = torch.randn(len(rows), 2 * GROUPS, 2, WIDTH), torch.randn(len(rows), 1, 2, 12)
    keys, values = (
        torch.cat([part[rows], *new], dim=2)
        for part, *new in zip((read.layers[0].keys, read.layers[0].values), added, more, strict=True)
    )
    whole = shared.update(*more, 0)
    torch.testing.assert_close(whole, (keys, values))
    own = shared.layers[0].keys, shared.layers[0].values
    current = _current.set(shared)
    found, _ = attend(LAYER, query, *own, mask)
    _current.reset(current)
    usual = torch.nn.functional.scaled_dot_product_attention(
        query, keys.repeat_interleave(2, 1), values.repeat_interleave(2, 1), attn_mask=mask
    )
    torch.testing.assert_close(found, usual.transpose(1, 2))


def test_no_row_has_a_copy_and_the_cache_that_was_read_stays(read):
    shared = SharedPrefix(read, torch.tensor([0, 0, 1, 1, 2]))
    assert shared.layers[0].prefix[0] is read.layers[0].keys
    shared.update(torch.randn(5, GROUPS, 1, WIDTH), torch.randn(5, GROUPS, 1, WIDTH), 0)
    shared.batch_select_indices(torch.tensor([0, 2, 4]))
    assert shared.layers[0].prefix[0] is read.layers[0].keys
    shared.batch_select_indices(torch.tensor([1]))
    assert len(shared.layers[0].prefix[0]) == 1
    assert read.layers[0].keys.shape == (3, GROUPS, 7, WIDTH)
    assert (shared.get_seq_length(), shared.get_mask_sizes(1, 0)) == (8, (9, 0))
