"""The temporal expert head: interactions, padding, targets, losses and decoding."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metrics.spans import iou
from models.temporal_head import (
    HeadOutput,
    TemporalHead,
    best_spans,
    boundary_losses,
    frame_centres,
    frame_targets,
    giou,
    indicator_loss,
    ranked_spans,
    saliency_at,
)

INTERACTIONS = ("add", "concat", "attention", "none")


def make(interaction: str, **more) -> TemporalHead:
    """A head whose last layers are no longer zero, as after some training."""
    torch.manual_seed(0)
    head = TemporalHead(16, interaction, attention_heads=4, **more)
    for branch in (head.indicator, head.boundary):
        branch.layers[2].reset_parameters()
    return head


def output_of(probability, offsets) -> HeadOutput:
    """What a head would say about one video."""
    probability, offsets = torch.tensor([probability]), torch.tensor([offsets])
    return HeadOutput(probability.logit(), offsets, torch.ones(probability.shape, dtype=torch.bool))


@pytest.fixture
def inputs():
    torch.manual_seed(1)
    mask = torch.arange(9) < torch.tensor([[9], [5], [1]])
    return torch.randn(3, 9, 16), torch.randn(3, 16), mask


@pytest.mark.parametrize("head_dim", [None, 4])
@pytest.mark.parametrize("interaction", INTERACTIONS)
def test_padding_changes_nothing(interaction, head_dim, inputs):
    frames, loc, mask = inputs
    head = make(interaction, head_dim=head_dim)
    changed = frames.masked_fill(~mask[..., None], 1e3)
    together, again = head(frames, loc, mask), head(changed, loc, mask)
    assert torch.equal(again.logits[mask], together.logits[mask])
    for row, length in enumerate((9, 5, 1)):
        alone = head(frames[row : row + 1, :length], loc[row : row + 1], mask[row : row + 1, :length])
        for name in ("logits", "offsets", "ends", "spans", "probability"):
            found = getattr(together, name)[row, :length]
            torch.testing.assert_close(found, getattr(alone, name)[0], rtol=1e-4, atol=1e-5)
        assert not together.probability[row, length:].any()


@pytest.mark.parametrize("interaction", INTERACTIONS)
def test_each_loc_is_read_alone_and_matters(interaction, inputs):
    frames, loc, mask = inputs
    head = make(interaction)
    before, other = head(frames, loc, mask), head(frames, loc + torch.tensor([[0.0], [3.0], [0.0]]), mask)
    differs = [not torch.allclose(before.logits[k], other.logits[k], atol=1e-5) for k in range(3)]
    assert differs == [False, interaction != "none", False]


def test_a_frame_sees_three_frames_to_each_side_after_adding(inputs):
    frames, loc, _ = inputs
    head, mask = make("add"), torch.ones(3, 9, dtype=torch.bool)
    changed = frames.clone()
    changed[:, 0] += 1
    moved = (head(changed, loc, mask).offsets - head(frames, loc, mask).offsets).abs().amax((0, 2)) > 1e-7
    assert moved.tolist() == [True] * 4 + [False] * 5


@pytest.mark.parametrize("interaction", INTERACTIONS)
def test_without_any_loc_losses_are_zero_and_reach_every_weight(interaction):
    head = make(interaction, head_dim=4)
    frames = torch.zeros(0, 9, 16, requires_grad=True)
    output = head(frames, torch.zeros(0, 16), torch.ones(0, 9, dtype=torch.bool))
    foreground, windows = torch.zeros(0, 9, dtype=torch.bool), torch.zeros(0, 9, 2)
    losses = (indicator_loss(output, foreground), *boundary_losses(output, foreground, windows))
    assert [loss.item() for loss in losses] == [0, 0, 0]
    sum(losses).backward()
    assert all(value.grad is not None and not value.grad.any() for value in head.parameters())


@pytest.mark.parametrize("interaction", INTERACTIONS)
def test_every_weight_learns_and_half_precision_states_are_taken(interaction, inputs):
    frames, loc, mask = inputs
    head = make(interaction, head_dim=4)
    output = head(frames.bfloat16(), loc.bfloat16(), mask)
    assert output.logits.dtype == output.offsets.dtype == torch.float32
    inside = [frame_targets(np.array([[0.2, 0.7]]), n) for n in (9, 5, 1)]
    foreground, windows = torch.zeros(3, 9, dtype=torch.bool), torch.zeros(3, 9, 2)
    for k, (found, target) in enumerate(inside):
        foreground[k, : len(found)], windows[k, : len(found)] = torch.tensor(found), torch.tensor(target)
    (indicator_loss(output, foreground) + sum(boundary_losses(output, foreground, windows))).backward()
    assert all(torch.isfinite(value.grad).all() and value.grad.any() for value in head.parameters())


def test_a_head_learns_where_the_moment_is():
    """Frames inside the moment look like the query; the answer must depend on it."""
    torch.manual_seed(0)
    head, frames = TemporalHead(8), 0.3 * torch.randn(16, 12, 8)
    loc, mask = torch.randn(16, 8), torch.ones(16, 12, dtype=torch.bool)
    starts = torch.arange(16) % 8
    for k, start in enumerate(starts.tolist()):
        frames[k, start : start + 4] += loc[k]
    truth = torch.stack([starts / 12, (starts + 4) / 12], dim=-1)
    pairs = [frame_targets(window[None].numpy(), 12) for window in truth]
    foreground, windows = (torch.tensor(np.stack(part)) for part in zip(*pairs, strict=True))
    optimizer = torch.optim.Adam(head.parameters(), 1e-2)
    for _ in range(150):
        output = head(frames, loc, mask)
        smooth_l1, overlap = boundary_losses(output, foreground, windows)
        (indicator_loss(output, foreground) + 10 * smooth_l1 + overlap).backward()
        optimizer.step()
        optimizer.zero_grad()
    spans, scores = best_spans(head(frames, loc, mask))
    assert giou(spans, truth).min() > 0.7
    assert scores.min() > 0.5


def real_states(videos: int = 8, frames: int = 16, width: int = 576) -> tuple[torch.Tensor, ...]:
    """States as SmolLM2-135M has them behind its final norm, and a moment of each video.

    Their root mean square is 2.2, three dimensions hold 67 % of their energy, and two frames of a video have a cosine
    of 0.83. Frames of the moment share a direction with the ``<LOC>`` state.
    """
    generator = torch.Generator().manual_seed(0)
    noise = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    energy = width * 2.2**2
    outliers, common = torch.zeros(width), noise(width)
    outliers[:3] = torch.tensor([0.94, -0.3, 0.16]) * (0.67 * energy) ** 0.5
    common *= (0.16 * energy) ** 0.5 / common.norm()
    starts = torch.randint(1, frames - 7, (videos,), generator=generator)
    truth = torch.stack([starts, starts + torch.randint(3, 7, (videos,), generator=generator)], dim=-1) / frames
    asked, states = noise(videos, width), noise(videos, frames, width)
    centres = (torch.arange(frames) + 0.5) / frames
    inside = (truth[:, :1] <= centres) & (centres <= truth[:, 1:])
    states = torch.where(inside[..., None], asked[:, None] + 0.5 * states, states)
    states *= (0.17 * energy) ** 0.5 / states.norm(dim=-1, keepdim=True)
    asked *= (0.17 * energy) ** 0.5 / asked.norm(dim=-1, keepdim=True)
    return outliers + common + states, outliers + common + asked, truth


def boundary_steps(head: TemporalHead, steps: int, lr: float = 1e-3) -> list[float]:
    """GIoU losses of some training steps on ``real_states``."""
    frames, loc, truth = real_states()
    pairs = [frame_targets(window[None].numpy(), frames.shape[1]) for window in truth]
    foreground, windows = (torch.tensor(np.stack(part)) for part in zip(*pairs, strict=True))
    mask, losses = torch.ones(frames.shape[:2], dtype=torch.bool), []
    optimizer = torch.optim.AdamW(head.parameters(), lr)
    for _ in range(steps):
        output = head(frames, loc, mask)
        smooth_l1, overlap = boundary_losses(output, foreground, windows)
        optimizer.zero_grad()
        (indicator_loss(output, foreground) + 10 * smooth_l1 + overlap).backward()
        torch.nn.utils.clip_grad_norm_(head.parameters(), 1.0)
        optimizer.step()
        losses.append(overlap.item())
    return losses


def test_the_states_of_that_test_are_those_of_a_real_language_model():
    frames, *_ = real_states()
    energy = frames.square().mean((0, 1))
    assert frames.square().mean().sqrt().item() == pytest.approx(2.2, rel=0.05)
    assert (energy.topk(3).values.sum() / energy.sum()).item() == pytest.approx(0.67, abs=0.03)
    unit = torch.nn.functional.normalize(frames, dim=-1)
    cosine = (unit @ unit.transpose(1, 2)).mean().item()
    assert cosine == pytest.approx(0.83, abs=0.05)


def test_a_head_learns_on_the_states_of_a_real_language_model():
    """Three huge dimensions saturate a head that begins with random last layers, for ever."""
    torch.manual_seed(0)
    head = TemporalHead(576)
    losses = boundary_steps(head, steps=12)
    assert losses[0] < 0.75, "the first spans are of a usual length"
    assert losses[-1] < 0.6 * losses[0]
    output = head(*real_states()[:2], torch.ones(8, 16, dtype=torch.bool))
    assert not output.saturated


def test_a_saturated_head_is_known():
    mask = torch.tensor([[True, True, False]])
    dead = torch.tensor([[[1e-9, 1.0], [1e-6, 0.0], [0.5, 0.5]]])  # of the third frame nobody knows anything
    assert HeadOutput(torch.zeros(1, 3), dead, mask).saturated
    alive = dead.clone()
    alive[0, 1, 0] = 0.01
    assert not HeadOutput(torch.zeros(1, 3), alive, mask).saturated
    assert not HeadOutput(torch.zeros(0, 3), dead[:0], mask[:0]).saturated


def test_a_new_head_says_the_same_of_every_frame(inputs):
    frames, loc, mask = inputs
    output = TemporalHead(16)(frames * 100, loc * 100, mask)
    assert torch.equal(output.logits, torch.zeros(3, 9))
    torch.testing.assert_close(output.offsets, torch.full((3, 9, 2), 0.12))


def test_the_example_of_the_specification():
    """Four frames; 40 seconds: 13.0 s to 31.0 s."""
    output = output_of([0.1, 0.7, 0.9, 0.2], [[0.1, 0.1], [0.1, 0.1], [0.30, 0.15], [0.1, 0.1]])
    assert frame_centres(output.mask).tolist() == [[0.125, 0.375, 0.625, 0.875]]
    spans, scores = best_spans(output)
    torch.testing.assert_close(spans * 40, torch.tensor([[13.0, 31.0]]))
    torch.testing.assert_close(scores, torch.tensor([0.9]))


def test_spans_stay_in_the_video_and_are_no_shorter_than_a_frame():
    output = output_of([0.5] * 4, [[0.4, 0.1], [0.01, 0.02], [0.1, 0.9], [0.0, 0.0]])
    expected = [[[0.0, 0.225], [0.25, 0.5], [0.525, 1.0], [0.75, 1.0]]]
    expected[0][0] = [0.0, 0.25]  # 0.225 is shorter than a frame
    torch.testing.assert_close(output.spans, torch.tensor(expected))
    assert output.ends[0, 0, 0] < 0, "the loss sees what the head said"


@pytest.mark.parametrize(
    ("windows", "foreground", "targets"),
    [
        ([[0.3, 0.7]], [False, True, True, False], {1: [0.3, 0.7], 2: [0.3, 0.7]}),
        ([[0.125, 0.625]], [True, True, True, False], {0: [0.125, 0.625], 2: [0.125, 0.625]}),
        ([[0.4, 0.45]], [False, True, False, False], {1: [0.4, 0.45]}),
        ([[0.5, 0.5]], [False, True, False, False], {1: [0.5, 0.5]}),  # as near to frame 2: the first
        ([[0.0, 1.0], [0.5, 0.7]], [True] * 4, {1: [0.0, 1.0], 2: [0.5, 0.7]}),
        ([[0.0, 0.3], [0.8, 1.0]], [True, False, False, True], {0: [0.0, 0.3], 3: [0.8, 1.0]}),
        ([[0.0, 1.0], [0.66, 0.67]], [True] * 4, {1: [0.0, 1.0], 2: [0.66, 0.67]}),
    ],
)
def test_foreground_and_its_targets(windows, foreground, targets):
    inside, target = frame_targets(np.array(windows), 4)
    assert inside.tolist() == foreground
    for frame, window in targets.items():
        np.testing.assert_allclose(target[frame], window, rtol=1e-6)
    assert not target[~inside].any()


@pytest.mark.parametrize("windows", [[], [[0.5, 0.4]], [[-0.1, 0.5]], [[0.5, 1.1]], [[0.1, float("nan")]], [[0.1]]])
def test_windows_that_are_no_windows_are_refused(windows):
    with pytest.raises(ValueError, match="windows"):
        frame_targets(np.array(windows), 4)


fractions = st.tuples(st.floats(0, 1, width=32), st.floats(0, 1, width=32)).map(sorted)


@settings(max_examples=60, deadline=None)
@given(st.lists(fractions, min_size=1, max_size=4), st.integers(1, 30))
def test_every_window_has_a_frame_and_every_frame_the_shortest_window(windows, frames):
    inside, targets = frame_targets(np.array(windows), frames)
    assert inside.any()
    centres = (np.arange(frames) + 0.5) / frames
    for start, end in windows:
        contained = (start <= centres) & (centres <= end)
        assert inside[contained].all()
        lengths = targets[contained, 1] - targets[contained, 0]
        assert (lengths <= end - start + 1e-6).all()


@settings(max_examples=60, deadline=None)
@given(fractions, fractions)
def test_giou_is_iou_less_the_gap_and_has_finite_gradients(a, b):
    first, second = (torch.tensor(window, dtype=torch.float64, requires_grad=True) for window in (a, b))
    value = giou(first, second)
    hull = max(a[1], b[1]) - min(a[0], b[0])
    gap = max(0, max(a[0], b[0]) - min(a[1], b[1]))
    expected = iou([a], [b]).item() - (gap / hull if hull else 0)
    assert value.item() == pytest.approx(expected, abs=1e-9)
    assert -1 <= value.item() <= 1
    value.backward()
    assert torch.isfinite(first.grad).all()
    assert torch.equal(value, giou(second, first))


def test_two_equal_points_have_a_harmless_gradient():
    point = torch.tensor([[0.5, 0.5]], requires_grad=True)
    giou(point, torch.tensor([[0.5, 0.5]])).sum().backward()
    assert point.grad.abs().max() < 10


def test_background_weight_and_the_mean_over_locs():
    output = HeadOutput(torch.zeros(2, 4), torch.zeros(2, 4, 2), torch.arange(4) < torch.tensor([[4], [2]]))
    foreground = torch.tensor([[True, False, False, False], [True, True, False, False]])
    log2 = np.log(2)
    assert indicator_loss(output, foreground).item() == pytest.approx(log2)
    expected = log2 * ((1 + 3 * 0.1) / 4 + 1) / 2
    assert indicator_loss(output, foreground, 0.1).item() == pytest.approx(expected)


def test_boundary_losses_look_at_the_foreground_only():
    output = output_of([0.5] * 4, [[0.9, 0.9], [0.1, 0.2], [0.3, 0.1], [0.9, 0.9]])
    windows = torch.tensor([[[0, 0], [0.275, 0.575], [0.325, 0.725], [0, 0]]])
    foreground = torch.tensor([[False, True, True, False]])
    smooth_l1, overlap = boundary_losses(output, foreground, windows)
    assert smooth_l1.item() == pytest.approx(0, abs=1e-10)
    assert overlap.item() == pytest.approx(0, abs=1e-6)
    smooth_l1, overlap = boundary_losses(output, foreground, windows - 0.1)
    assert smooth_l1.item() == pytest.approx(2 * 0.5 * 0.1**2)
    assert overlap.item() == pytest.approx(((1 - 0.2 / 0.4) + (1 - 0.3 / 0.5)) / 2)


def test_ranked_spans():
    spans = np.array([[0.0, 0.5], [0.0, 0.52], [0.6, 0.9], [0.0, 0.5], [0.2, 0.9]])
    scores = np.array([0.5, 0.8, 0.6, 0.8, 0.1])
    kept, found = ranked_spans(spans, scores)
    assert kept.tolist() == [[0.0, 0.52], [0.6, 0.9], [0.2, 0.9]]
    assert found.tolist() == [0.8, 0.6, 0.1]
    assert ranked_spans(spans, scores, limit=1)[0].tolist() == [[0.0, 0.52]]
    assert len(ranked_spans(spans, scores, overlap=1.0)[0]) == 5
    half = np.array([[0.0, 1.0], [0.0, 0.5]])
    assert len(ranked_spans(half, scores[:2], overlap=0.5)[0]) == 2, "exactly at the threshold is not above it"


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(fractions, st.floats(0, 1)), min_size=1, max_size=40))
def test_ranked_spans_equal_a_plain_loop(items):
    spans, scores = np.array([span for span, _ in items]), np.array([score for _, score in items])
    expected = []
    for index in sorted(range(len(items)), key=lambda i: -scores[i]):
        if len(expected) < 10 and all(iou([spans[index]], [spans[k]]).item() <= 0.7 for k in expected):
            expected.append(index)
    kept, found = ranked_spans(spans, scores)
    assert kept.tolist() == spans[expected].tolist()
    assert found.tolist() == scores[expected].tolist()


def test_saliency_at_the_clips_of_a_dataset():
    """Four frames in 8 seconds stand for seconds 1, 3, 5 and 7."""
    found = saliency_at(np.array([0.0, 1.0, 0.5, 0.5]), np.array([0, 1, 2, 3, 4, 8]) / 8)
    np.testing.assert_allclose(found, [0, 0, 0.5, 1, 0.75, 0.5])


def test_what_does_not_fit_is_refused(inputs):
    frames, loc, mask = inputs
    head = make("add")
    with pytest.raises(ValueError, match="do not fit"):
        head(frames, loc[:2], mask)
    with pytest.raises(ValueError, match="padding behind them"):
        head(frames, loc, mask.flip(1))
    with pytest.raises(ValueError, match="every video needs frames"):
        head(frames, loc, mask & (torch.arange(3) < 2)[:, None])
    with pytest.raises(ValueError, match="not finite"):
        best_spans(head(frames * float("nan"), loc, mask))
    with pytest.raises(ValueError, match="unknown interaction"):
        TemporalHead(16, "subtract")
    with pytest.raises(ValueError, match="8 attention heads do not divide a width of 12"):
        TemporalHead(12, "attention")
