"""S-tokens: the rules, one by one and together, against a slow reading of the definitions."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules.records import FeatureHeader
from datamodules.schema import Video
from datamodules.spatial_compression import Compression, check_shards, compress, gop_lengths, idr_frames, spatial_tokens


def random_video(frames: int, patches: int, width: int = 6, seed: int = 0, static: float = 0.0):
    """Features, patches and attention; a share ``static`` of the patches repeats the frame before."""
    random = torch.Generator().manual_seed(seed)
    tokens = torch.randn(frames, patches, width, generator=random)
    for frame in range(1, frames):
        repeats = torch.rand(patches, generator=random) < static
        tokens[frame, repeats] = tokens[frame - 1, repeats]
    return (
        torch.randn(frames, width, generator=random),
        tokens,
        torch.rand(frames, patches, generator=random),
    )


def cosine(a, b) -> float:
    return float(a @ b) / math.sqrt(float(a @ a) * float(b @ b))


def slow(features, patches, attention, u: int, w: int, context: int) -> np.ndarray:
    """The definitions, one token at a time."""
    features, patches, attention = (array.double().numpy() for array in (features, patches, attention))
    frames, count = attention.shape
    idr = [round((j + 0.5) * frames / u - 0.5) for j in range(u)]
    borders = [0]
    for a, b in zip(idr, idr[1:], strict=False):
        score = {
            s: sum(cosine(features[i], features[a]) for i in range(a + 1, s))
            + sum(cosine(features[i], features[b]) for i in range(s, b))
            for s in range(a + 1, b + 1)
        }
        best = max(score.values())
        equal = [s for s in score if math.isclose(score[s], best, abs_tol=1e-12)]
        borders.append(min(equal, key=lambda s, a=a, b=b: (abs(s - (a + 1 + b) / 2), s)))
    borders.append(frames)
    tokens = []
    for j, centre in enumerate(idr):
        key = sorted(range(count), key=lambda p, centre=centre: (-attention[centre, p], p))[: w - context]
        rest = [p for p in range(count) if p not in key]
        seeds = sorted(key + [rest[k * len(rest) // context] for k in range(context)])
        label = {}
        for t in range(borders[j], borders[j + 1]):
            for p in range(count):
                similar = [cosine(patches[t, p], patches[centre, seed]) for seed in seeds]
                label[t, p] = seeds.index(p) if t == centre and p in seeds else int(np.argmax(similar))
        members = {k: [] for k in range(w)}
        for (t, p), k in label.items():
            nearer = t + (1 if t < centre else -1)
            if t == centre or label[nearer, p] != k:
                members[k].append(patches[t, p])
        tokens += [np.mean(members[k], axis=0) for k in range(w)]
    return np.stack(tokens)


sizes = st.integers(1, 12).flatmap(
    lambda frames: st.tuples(
        st.just(frames),
        st.integers(1, frames),
        st.integers(1, 9).flatmap(lambda p: st.tuples(st.just(p), st.integers(1, p))),
    )
)


@settings(max_examples=60, deadline=None)
@given(sizes, st.integers(0, 99), st.sampled_from([0.0, 0.5, 0.9]), st.floats(0, 1))
def test_equals_the_slow_reference(size, seed, static, share):
    frames, u, (patches, w) = size
    video = random_video(frames, patches, seed=seed, static=static)
    context = int(share * w)
    found = compress(*video, Compression(u, w, context))
    assert (found.shape, found.dtype, found.requires_grad) == ((u * w, 6), torch.float32, False)
    np.testing.assert_allclose(found.numpy(), slow(*video, u, w, context), atol=1e-5)
    assert torch.equal(found, compress(*video, Compression(u, w, context)))


@settings(max_examples=20, deadline=None)
@given(sizes, st.integers(0, 99))
def test_a_static_video_gives_the_means_of_its_idr_frames(size, seed):
    frames, u, (patches, w) = size
    features, tokens, attention = random_video(frames, patches, seed=seed)
    still = (features, tokens[:1].expand(frames, -1, -1), attention[:1].expand(frames, -1))
    alone = compress(features[:1], tokens[:1], attention[:1], Compression(1, w))
    torch.testing.assert_close(compress(*still, Compression(u, w)), alone.repeat(u, 1))


@pytest.mark.parametrize("kind", ["compressed", "random"])
def test_constant_features_give_constant_tokens(kind):
    ones = torch.full((8, 9, 4), 0.5)
    found = compress(torch.ones(8, 4), ones, torch.full((8, 9), 0.1), Compression(2, 5, kind=kind))
    torch.testing.assert_close(found, torch.full((10, 4), 0.5))
    zeros = compress(torch.zeros(8, 4), 0 * ones, torch.zeros(8, 9), Compression(2, 5, kind=kind))
    assert torch.equal(zeros, torch.zeros(10, 4))


def test_what_happens_outside_a_group_does_not_touch_its_tokens():
    features, patches, attention = random_video(40, 12, seed=3)
    idr, u, w = idr_frames(40, 4), 4, 6
    lengths = gop_lengths(features, idr)
    before = compress(features, patches, attention, Compression(u, w)).view(u, w, -1)
    start, end = lengths[0], lengths[0] + lengths[1]
    outside = torch.tensor([t for t in range(40) if not start <= t < end and t not in idr])
    shuffled = patches.clone()
    shuffled[outside] = patches[outside.flip(0)]
    after = compress(features, shuffled, attention, Compression(u, w)).view(u, w, -1)
    assert torch.equal(before[1], after[1])
    assert not torch.equal(before[0], after[0])


def test_idr_frames_are_centres_with_halves_to_even():
    assert idr_frames(100, 4) == [12, 37, 62, 87]
    assert idr_frames(100, 8) == [6, 18, 31, 43, 56, 68, 81, 93]  # 5.75, 18.25, 30.75, ...
    assert idr_frames(6, 3) == [0, 2, 4]  # 0.5, 2.5, 4.5
    assert idr_frames(1, 1) == [0]
    for frames in range(1, 40):
        for gops in range(1, frames + 1):
            assert len(set(idr_frames(frames, gops))) == gops


def test_borders_follow_similarity_and_fall_in_the_middle_of_ties():
    left, right = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    frames = [left] * 7 + [right] * 3
    assert gop_lengths(torch.stack(frames), [2, 7]) == [7, 3]
    assert gop_lengths(torch.ones(10, 2), [2, 7]) == [5, 5]  # between 3 and 7
    assert gop_lengths(torch.ones(10, 2), [2, 6]) == [4, 6]  # 4 and 5 are as near to the middle: the smaller
    assert gop_lengths(torch.ones(2, 2), [0, 1]) == [1, 1]


def test_seeds_have_the_highest_attention_and_the_rest_is_sampled_evenly():
    attention = torch.zeros(1, 10)
    attention[0, [7, 2]] = 1.0
    patches = torch.eye(10)[None]
    found = compress(torch.ones(1, 10), patches, attention, Compression(1, 4, context=2))
    # remaining 0 1 3 4 5 6 8 9, every fourth: 0 and 5; the others are like none of them, so they join the first seed
    assert [int(row.argmax()) for row in found[1:]] == [2, 5, 7]
    torch.testing.assert_close(found[0], torch.tensor([1.0, 1, 0, 1, 1, 0, 1, 0, 1, 1]) / 7)


def test_default_split_of_the_tokens():
    assert [Compression(4, w).context_tokens for w in (64, 128, 1, 4)] == [10, 20, 0, 1]


def test_random_tokens_are_tokens_of_the_video_and_always_the_same():
    video = random_video(8, 9, seed=5)
    found = compress(*video, Compression(2, 5, kind="random"))
    places = [(video[1].flatten(0, 1) == row).all(1).nonzero().item() for row in found]
    assert places == sorted(set(places))
    assert torch.equal(found, compress(*video, Compression(2, 5, kind="random")))
    other = compress(video[0] + 1, *video[1:], Compression(2, 5, kind="random"))
    assert not torch.equal(found, other)  # another video, another draw


@pytest.mark.parametrize(
    ("text", "message"),
    [("4", "must read like '4x64'"), ("4x", "must read like"), ("", "must read like"), ("4x64 key 3", "must read like"),
     ("0x0", "at least 1x1"), ("4x64 context 65", "between 0 and 64")],
)  # fmt: skip
def test_settings_refuse(text, message):
    with pytest.raises(ValueError, match=message):
        Compression.parse(text)


@pytest.mark.parametrize("text", ["4x64", "8x128", "4x64 context 12", "4x64 random"])
def test_settings_are_what_they_say(text):
    assert str(Compression.parse(text)) == text
    assert Compression.parse("4x64 context 10") == Compression(context=10)
    assert str(Compression(context=10)) == "4x64"
    with pytest.raises(ValueError, match="compressed or random"):
        Compression(kind="other")


def test_bad_input_is_refused():
    features, patches, attention = random_video(3, 9)
    with pytest.raises(ValueError, match="4x5 S-tokens need at least 4 frames, there are 3"):
        compress(features, patches, attention, Compression(4, 5))
    with pytest.raises(ValueError, match="at least 4 frames, there are 1"):
        compress(features[:1], patches[:1], attention[:1], Compression(4, 5))
    assert compress(features[:1], patches[:1], attention[:1], Compression(1, 5)).shape == (5, 6)
    with pytest.raises(ValueError, match="2x10 S-tokens need at least 10 patches a frame, there are 9"):
        compress(features, patches, attention, Compression(2, 10))
    with pytest.raises(ValueError, match=r"one number a patch.*patches \(3, 9, 6\), attention \(3, 8\)"):
        compress(features, patches, attention[:, :8], Compression(2, 5))
    with pytest.raises(ValueError, match="of the same frames"):
        compress(features[:2], patches, attention, Compression(2, 5))


def stored(**arrays) -> Video:
    return Video("v", 4.0, np.arange(4.0), **{name: array.astype(np.float16) for name, array in arrays.items()})


def test_tokens_of_a_stored_video():
    features, patches, attention = (array.numpy() for array in random_video(4, 9))
    whole = stored(features=features, patches=patches, cls_attention=attention)
    tokens = spatial_tokens(whole, Compression(2, 5))
    halves = [torch.from_numpy(array).half() for array in (features, patches, attention)]
    np.testing.assert_array_equal(tokens, compress(*halves, Compression(2, 5)).half().numpy(), strict=True)
    np.testing.assert_array_equal(spatial_tokens(stored(features=features, spatial=tokens), Compression(2, 5)), tokens)
    with pytest.raises(ValueError, match="video v: 10 S-tokens are stored, 2x6 asks for 12"):
        spatial_tokens(stored(features=features, spatial=tokens), Compression(2, 6))
    with pytest.raises(
        ValueError, match="video v: S-tokens 4x64 are requested, but .* neither S-tokens nor patches nor"
    ):
        spatial_tokens(stored(features=features))
    with pytest.raises(ValueError, match="nor cls_attention; extract again with --spatial '4x64'"):
        spatial_tokens(stored(features=features, patches=patches))
    with pytest.raises(ValueError, match="video v: 5x5 S-tokens need at least 5 frames"):
        spatial_tokens(whole, Compression(5, 5))


def test_shards_that_cannot_give_tokens_are_refused_at_once():
    header = FeatureHeader("clip", "image_embeds", "224", "uniform 4", width=8)
    with pytest.raises(ValueError, match="data/shards: S-tokens 4x64 are requested, but the shards hold neither"):
        check_shards(header, Compression(), "data/shards")
    about = header.__dict__ | {"patches": "projected", "patch_count": 9, "cls_attention": "layer 1"}
    check_shards(FeatureHeader(**about | {"patch_width": 8}), Compression(), "data/shards")
    with pytest.raises(ValueError, match="patches have width 9, features 8"):
        check_shards(FeatureHeader(**about | {"patch_width": 9}), Compression(), "data/shards")
    compressed = FeatureHeader(**header.__dict__ | {"spatial": "4x64", "spatial_count": 256})
    check_shards(compressed, Compression(), "data/shards")
    with pytest.raises(ValueError, match="holds S-tokens 4x64, 4x64 random are requested"):
        check_shards(compressed, Compression(kind="random"), "data/shards")
