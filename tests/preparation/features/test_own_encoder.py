"""Encoders by class path: from pixels to shards and back to a question about a file."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

import prepare
from datamodules.shards import ShardReader
from preparation.features.decoding import Sampling
from preparation.features.encoders import Outputs, load_encoder

MODULE = """
import torch
from torch import nn
from preparation.features.preprocessing import Preprocessing

class Colours(nn.Module):
    preprocessing = "mean colours of the frame; patches are those of its quarters"

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.full((1,), 1 / 255))

    def forward(self, pixels):
        assert pixels.dtype == torch.uint8 and pixels.shape[-1] == 3
        quarters = nn.functional.adaptive_avg_pool2d(pixels.permute(0, 3, 1, 2).to(self.scale.dtype), 4)
        quarters = quarters.flatten(2).transpose(1, 2) * self.scale
        return quarters.mean(1), torch.cat([quarters, quarters], dim=2)

class Resized(Colours):
    preprocessing = Preprocessing(8, 8, (0.0,) * 3, (1.0,) * 3, "bilinear")

    def forward(self, images):
        assert images.shape[1:] == (3, 8, 8)
        return images.mean((2, 3))

class Plain:  # no module, no weights
    preprocessing = "mean colour"

    def __call__(self, pixels):
        return pixels.float().mean((1, 2))

class Other(Plain):
    preprocessing = "mean colour"

class Silent(Colours):
    preprocessing = None

class Flat(Plain):
    def __call__(self, pixels):
        return pixels.float().mean()

class Numbers(Plain):
    def __call__(self, pixels):
        return [1.0] * len(pixels)

class Wanting(Plain):
    def __init__(self, size):
        pass

class Thing:
    preprocessing = "none"
"""


@pytest.fixture(autouse=True)
def towers(tmp_path, monkeypatch):
    (tmp_path / "my_towers.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "my_towers", raising=False)


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, 20, 24, 3), np.uint8)


def test_features_and_patches(pixels):
    encoder = load_encoder("my_towers.Colours", device="cpu", outputs=Outputs(patches=True))
    found = encoder.encode(pixels)
    np.testing.assert_allclose(found["features"], pixels.mean((1, 2)) / 255, atol=1e-3)
    assert found["patches"].shape == (3, 16, 6)
    header = encoder.header(Sampling(frames=3))
    assert (header.encoder, header.preprocessing) == ("my_towers.Colours", encoder.model.preprocessing)
    assert (header.width, header.patch_count, header.patch_width, len(header.encoder_sha256)) == (3, 16, 6, 64)
    assert Outputs.of(asdict(header)) == Outputs(patches=True)
    assert set(load_encoder("my_towers.Colours", device="cpu").encode(pixels)) == {"features"}


def test_half_precision(pixels):
    found = load_encoder("my_towers.Colours", device="cpu", dtype="bfloat16").encode(pixels)["features"]
    np.testing.assert_allclose(found, pixels.mean((1, 2)) / 255, atol=1e-2)


def test_preprocessing_that_is_applied_before(pixels):
    encoder = load_encoder("my_towers.Resized", device="cpu")
    assert encoder.encode(pixels)["features"].shape == (3, 3)
    assert encoder.header(Sampling(frames=3)).preprocessing.startswith("bilinear antialias shorter side 8")


def test_two_without_weights_are_told_apart_by_their_names(pixels):
    towers = [load_encoder(f"my_towers.{name}", device="cpu") for name in ("Plain", "Other")]
    headers = [tower.header(Sampling(frames=3)) for tower in towers]
    assert [header.encoder_sha256 for header in headers] == ["", ""]
    with pytest.raises(ValueError, match="encoder: 'my_towers.Plain' .* 'my_towers.Other'"):
        headers[0].check_same(headers[1])


@pytest.mark.parametrize(
    ("name", "outputs", "message"),
    [
        ("my_towers.Absent", {}, "no encoder my_towers.Absent: .*has no attribute 'Absent'"),
        ("no_such_module.Tower", {}, "no encoder no_such_module.Tower: No module named"),
        ("my_towers.Silent", {}, "preprocessing must say in words"),
        ("my_towers.Flat", {}, r"must return features \(B, D\) of 1 pictures as a float tensor, got .*32 \(\)"),
        ("my_towers.Numbers", {}, "as a float tensor, got list"),
        ("my_towers.Wanting", {}, "made without arguments"),
        ("my_towers.Thing", {}, "cannot be called"),
        ("my_towers.Plain", {"patches": True}, "returns no patches"),
        ("my_towers.Colours", {"cls_attention": True}, "features and patches, nothing else"),
        ("my_towers.Colours", {"space": "raw"}, "features and patches, nothing else"),
    ],
)
def test_refused(name, outputs, message):
    with pytest.raises(ValueError, match=message):
        load_encoder(name, device="cpu", outputs=Outputs(**outputs))


def test_a_folder_with_a_dot_in_its_name_is_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("my.clip").mkdir()
    with pytest.raises(ValueError, match="no checkpoint in the folder"):
        load_encoder("my.clip", device="cpu")


def test_the_command(tmp_path, capsys):
    from PIL import Image

    (tmp_path / "images").mkdir()
    Image.new("RGB", (50, 40), (10, 200, 30)).save(tmp_path / "images" / "a.png")
    arguments = ["features", "--videos", tmp_path / "images", "--output", tmp_path / "shards", "--patches", "true"]
    arguments += ["--pool", "2x2", "--encoder", "my_towers.Colours", "--device", "cpu"]
    assert prepare.main([str(argument) for argument in arguments]) in (0, None)
    found = ShardReader(tmp_path / "shards").read("a")
    np.testing.assert_allclose(found.features[0], np.array([10, 200, 30]) / 255, atol=1e-3)
    assert found.patches.shape == (1, 4, 6)
    header = json.loads((tmp_path / "shards" / "index.json").read_text())["header"]
    assert (header["pool"], header["patch_count"], header["encoder"]) == ("2x2", 4, "my_towers.Colours")
    capsys.readouterr()
    assert prepare.main(["verify", str(tmp_path / "shards")]) == 0
    assert "pooled to 2x2" in " ".join(capsys.readouterr().out.split())
