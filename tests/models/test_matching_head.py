"""The head of the baseline: padding, the order of words and frames, no sentence at all, sizes."""

import pytest
import torch

from models.matching_head import MatchingHead, positions

WORDS = torch.arange(4) < torch.tensor([[4], [2], [3]])
FRAMES = torch.arange(9) < torch.tensor([[9], [5], [1]])


@pytest.fixture
def head() -> MatchingHead:
    """One whose last layers are no longer zero, as after some training."""
    torch.manual_seed(0)
    head = MatchingHead(6, head_dim=16, layers=2, attention_heads=4, dropout=0.5).eval()
    for branch in (head.head.indicator, head.head.boundary):
        branch.layers[2].reset_parameters()
    return head


@pytest.fixture
def inputs() -> tuple:
    torch.manual_seed(1)
    return torch.randn(3, 9, 6), torch.randn(3, 4, 6), FRAMES, WORDS


@pytest.mark.parametrize("train", [False, True])
def test_padding_changes_nothing(head, inputs, train):
    """In evaluation torch takes another path than in training."""
    for layer in head.encoder.layers:
        layer.train(train)
        layer.dropout.p = layer.dropout1.p = layer.dropout2.p = layer.self_attn.dropout = 0.0
    frames, words, mask, word_mask = inputs
    noise = frames.masked_fill(~mask[..., None], 1e3), words.masked_fill(~word_mask[..., None], 1e3)
    together, again = head(*inputs), head(*noise, mask, word_mask)
    torch.testing.assert_close(again.logits[mask], together.logits[mask], rtol=1e-5, atol=1e-6)
    for row in range(3):
        t, w = int(mask[row].sum()), int(word_mask[row].sum())
        alone = head(*(part[row : row + 1, :n] for part, n in zip(inputs, (t, w, t, w), strict=True)))
        for name in ("logits", "offsets", "spans"):
            expected, found = getattr(alone, name)[0], getattr(together, name)[row, :t]
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_every_word_its_place_and_every_frame_s_place_count(head, inputs):
    frames, words, mask, word_mask = (part[:1] for part in inputs)
    found = head(frames, words, mask, word_mask).logits
    for changed in (words.flip(1), words.index_fill(1, torch.tensor([2]), 0.0)):
        assert not torch.allclose(head(frames, changed, mask, word_mask).logits, found, atol=1e-4)
    still = head(torch.ones_like(frames), words, mask, word_mask).logits[0, 2:7]  # away from the zeros at both ends
    assert still.std() > 1e-4


def test_positions_count_what_is_real():
    mask = torch.tensor([[False, True, True], [True, False, True]])
    like = torch.zeros(8, dtype=torch.float16)
    first, second = positions(mask, like)
    assert first.dtype == torch.float16 and first.shape == (3, 8)
    assert torch.equal(first[1], second[0]) and torch.equal(first[2], second[2])
    assert not torch.equal(first[1], first[2])


def test_no_sentence_gives_every_weight_a_gradient_of_zero(head, inputs):
    output = head.train()(*(part[:0] for part in inputs))
    assert output.logits.shape == (0, 9)
    (output.logits.sum() + output.offsets.sum()).backward()
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in head.parameters())


@pytest.mark.parametrize(("head_dim", "heads"), [(18, 4), (9, 3)])
def test_widths_that_do_not_divide_are_refused(head_dim, heads):
    with pytest.raises(ValueError, match=f"even and divide by {heads} attention heads, got {head_dim}"):
        MatchingHead(6, head_dim, 1, heads, 0.0)
