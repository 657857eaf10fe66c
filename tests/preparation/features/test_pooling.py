"""Patches averaged to a smaller grid."""

from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from datamodules.records import FeatureHeader
from datamodules.shards import ShardReader
from datamodules.spatial_compression import Compression
from preparation.features.decoding import Sampling, Source
from preparation.features.encoders import Outputs, load_encoder
from preparation.features.extraction import extract
from preparation.features.pooling import Pool
from preparation.world.tiny import tiny_clip


def test_each_cell_is_the_mean_of_its_patches():
    patches = torch.arange(36.0).reshape(1, 36, 1).repeat(2, 1, 3)
    expected = [[row * 12 + column * 3 + 4.0] for row in range(3) for column in range(2)]
    found = Pool(3, 2)(patches.half())
    assert found.shape == (2, 6, 3)
    np.testing.assert_allclose(found[0, :, :1], expected)


def test_neighbouring_cells_share_patches_where_they_do_not_divide():
    found = Pool(2, 1)(torch.arange(9.0).reshape(1, 9, 1))
    np.testing.assert_allclose(found.flatten(), [np.mean(range(6)), np.mean(range(3, 9))])


def test_one_cell_is_the_mean_of_all_and_all_cells_are_the_patches():
    patches = torch.rand(2, 16, 5)
    torch.testing.assert_close(Pool(1, 1)(patches)[:, 0], patches.mean(1))
    torch.testing.assert_close(Pool(4, 4)(patches), patches)


@pytest.mark.parametrize("text", ["4", "4x", "x4", "4x4x4", "0x2", "-1x2", "axb", ""])
def test_other_words_are_refused(text):
    with pytest.raises(ValueError, match="grid of patches"):
        Pool.parse(text)


@pytest.mark.parametrize("count", [15, 9, 0])
def test_patches_that_form_no_square_as_large_are_refused(count):
    with pytest.raises(ValueError, match=f"{count} patches a frame cannot be pooled to 2x4"):
        Pool.parse("2x4").check(count)


@pytest.mark.parametrize("outputs", [{}, {"patches": True, "cls_attention": True},
                                     {"patches": True, "spatial": Compression()}])  # fmt: skip
def test_what_needs_all_patches_is_refused(outputs):
    with pytest.raises(ValueError, match="pool"):
        Outputs(pool=Pool(2, 2), **outputs)


def test_shards_hold_the_means(tmp_path):
    from PIL import Image

    tiny_clip(tmp_path / "clip", width=16)
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    sampling, readers = Sampling(frames=4), {}
    for name, pool in (("whole", None), ("pooled", Pool(2, 2))):
        encoder = load_encoder(str(tmp_path / "clip"), device="cpu", outputs=Outputs(patches=True, pool=pool))
        extract([Source("a", tmp_path / "a.png")], encoder, sampling, tmp_path / name)
        readers[name] = ShardReader(tmp_path / name)
        header = readers[name].header
        assert Outputs.of(asdict(header)) == encoder.outputs
    whole, pooled = (readers[name].read("a").patches for name in ("whole", "pooled"))
    assert pooled.shape == (1, 4, 16)
    np.testing.assert_allclose(pooled, Pool(2, 2)(torch.from_numpy(whole)), atol=2e-3)
    with pytest.raises(ValueError, match="pool: '' .*'2x2'"):
        readers["whole"].header.check_same(readers["pooled"].header)
    with pytest.raises(ValueError, match=r"patches has shape \(1, 16, 16\), the folder's header asks for \(1, 4, 16\)"):
        readers["pooled"].header.check_video(readers["whole"].read("a"))
    with pytest.raises(ValueError, match="16 patches a frame cannot be pooled to 5x5"):
        load_encoder(str(tmp_path / "clip"), device="cpu", outputs=Outputs(patches=True, pool=Pool(5, 5)))


def test_a_header_of_before_is_read():
    header = FeatureHeader("clip", "x", "y", "uniform 4", 8, patches="z", patch_count=16, patch_width=8)
    old = {name: value for name, value in asdict(header).items() if name != "pool"}
    assert FeatureHeader(**old) == header
    assert Outputs.of(old).pool is None
    with pytest.raises(ValueError, match="pool"):
        replace(header, pool="2x2").check_same(FeatureHeader(**old))
