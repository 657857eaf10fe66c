"""EVA-CLIP: the tower of E.T. Chat and MeCo, its pixels and its published file. No weights are downloaded."""

import importlib
import pickle
import re
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from datamodules.spatial_compression import Compression
from preparation.features.decoding import Sampling
from preparation.features.encoders import Outputs, load_encoder
from preparation.features.timm_encoder import read_tensors

ROOT = Path(__file__).parents[3]
EVA = "timm:eva_giant_patch14_clip_224.laion400m"
SAMPLING = Sampling(frames=4)
WIDTH, HEADS, SIZE = 176, 2, 28
RAW = Outputs(patches=True, space="raw")


@pytest.fixture(scope="module")
def timm():
    try:
        return importlib.import_module("timm")
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"timm cannot be imported (extra timm): {error}")


@pytest.fixture
def tiny(timm, monkeypatch):
    """timm with its own settings for every model, but without their size and weights."""
    create = timm.create_model

    def create_tiny(name, pretrained, **more):
        sizes = {"embed_dim": WIDTH, "depth": 3, "num_heads": HEADS, "num_classes": 12, "img_size": SIZE}
        return create(name, pretrained=False, **(sizes if pretrained else more))

    monkeypatch.setattr(timm, "create_model", create_tiny)


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, 60, 81, 3), np.uint8)


def close(found: np.ndarray, expected: torch.Tensor) -> None:
    assert found.dtype == np.float16
    np.testing.assert_allclose(found, expected.detach().numpy(), atol=3e-3)


def test_timm_is_optional(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ValueError, match=r"timm:eva_giant.* needs timm, .* pip install -e '\.\[timm\]'"):
        load_encoder(EVA, device="cpu")


def test_the_towers_that_configs_and_docs_name_are_known_to_timm(timm):
    files = [*ROOT.glob("configs/**/*.yaml"), *ROOT.glob("docs/*.md"), *ROOT.glob("preparation/**/*.py")]
    named = {name for file in files for name in re.findall(r"timm:(\w+\.\w+)", file.read_text())}
    assert EVA.removeprefix("timm:") in named
    assert all(timm.models.is_model_pretrained(name) for name in named)


def test_another_tag_is_refused_with_those_there_are(timm):
    with pytest.raises(ValueError, match=r"cannot load .*laion400m_s11b_b41k: .* It has .* as .*laion400m"):
        load_encoder("timm:eva_giant_patch14_clip_224.laion400m_s11b_b41k", device="cpu")


@pytest.mark.parametrize("shape", [(60, 81), (81, 60), (56, 57), (20, 31)])
def test_eva_g_sees_the_pixels_that_e_t_chat_gives_it(tiny, monkeypatch, shape):
    """``clip_center_224``: resize the shorter side (bilinear, antialias), crop the centre, CLIP's mean and std."""
    transforms = importlib.import_module("torchvision.transforms")  # timm needs it
    frames = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, *shape, 3), np.uint8))
    images = transforms.Resize(224, antialias=True)(frames.float().permute(0, 3, 1, 2) / 255)
    top, left = (int((side - 224) / 2) for side in images.shape[-2:])
    images = images[..., top : top + 224, left : left + 224]
    mean, std = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
    expected = transforms.Normalize(mean, std)(images)
    found = load_encoder(EVA, device="cpu").preprocessing(frames.numpy(), torch.device("cpu"))
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=0)


def test_other_towers_keep_the_settings_of_timm(tiny, timm):
    config = timm.get_pretrained_cfg("eva02_base_patch16_clip_224.merged2b")
    size = int(224 / config.crop_pct)
    encoder = load_encoder("timm:eva02_base_patch16_clip_224.merged2b", device="cpu")
    assert str(encoder.preprocessing).startswith(f"{config.interpolation} antialias shorter side {size}, centre crop ")


def test_outputs(tiny, pixels):
    encoder = load_encoder(EVA, device="cpu", outputs=Outputs(patches=True))
    images = functional.interpolate(encoder.preprocessing(pixels, encoder.device), SIZE)
    close(encoder.encode_prepared(images)["features"], encoder.model(images))
    assert encoder.encode_prepared(images)["patches"].shape == (5, 4, 12)
    raw = load_encoder(EVA, device="cpu", outputs=RAW)
    states = []
    raw.model.blocks[-2].register_forward_hook(lambda module, args, output: states.append(output))
    found = raw.encode_prepared(images)
    close(found["patches"], states[0][:, 1:])
    close(found["features"], states[0][:, 0])
    assert Outputs.of(asdict(raw.header(SAMPLING))) == RAW
    with pytest.raises(ValueError, match="towers of timm give no class attention"):
        load_encoder(EVA, device="cpu", outputs=Outputs(spatial=Compression()))


def tensors_of(depth: int, hidden: int = 40) -> dict[str, torch.Tensor]:
    """A small ``eva_vit_g.pth``: the names and shapes of BLIP-2's file."""
    random = torch.Generator().manual_seed(0)
    shapes = {"cls_token": (1, 1, WIDTH), "pos_embed": (1, 5, WIDTH), "norm.weight": (WIDTH,), "head.bias": (3,)}
    shapes |= {"patch_embed.proj.weight": (WIDTH, 3, 14, 14), "patch_embed.proj.bias": (WIDTH,)}
    for k in range(depth):
        block = {"attn.q_bias": (WIDTH,), "attn.v_bias": (WIDTH,), "attn.qkv.weight": (3 * WIDTH, WIDTH)}
        block |= {"attn.proj.weight": (WIDTH, WIDTH), "attn.proj.bias": (WIDTH,)}
        block |= {f"norm{n}.{what}": (WIDTH,) for n in (1, 2) for what in ("weight", "bias")}
        block |= {"mlp.fc1.weight": (hidden, WIDTH), "mlp.fc1.bias": (hidden,)}
        block |= {"mlp.fc2.weight": (WIDTH, hidden), "mlp.fc2.bias": (WIDTH,)}
        shapes |= {f"blocks.{k}.{name}": shape for name, shape in block.items()}
    return {name: torch.randn(shape, generator=random).half() * 0.1 for name, shape in shapes.items()}


def tower(images: torch.Tensor, tensors: dict[str, torch.Tensor], depth: int) -> torch.Tensor:
    """EVA's transformer from its definition: (B, 1 + P, width) behind the last block, without a norm."""
    tensors = {name: tensor.float() for name, tensor in tensors.items()}
    patches = functional.conv2d(
        images, tensors["patch_embed.proj.weight"], tensors["patch_embed.proj.bias"], stride=14
    ).flatten(2)
    cls = tensors["cls_token"].expand(len(images), -1, -1)
    states = torch.cat([cls, patches.transpose(1, 2)], dim=1) + tensors["pos_embed"]
    for k in range(depth):
        block = {name.removeprefix(f"blocks.{k}."): t for name, t in tensors.items() if name.startswith(f"blocks.{k}.")}
        norms = [(block[f"norm{n}.weight"], block[f"norm{n}.bias"]) for n in (1, 2)]
        bias = torch.cat([block["attn.q_bias"], torch.zeros(WIDTH), block["attn.v_bias"]])  # keys have none
        qkv = functional.layer_norm(states, (WIDTH,), *norms[0], 1e-6) @ block["attn.qkv.weight"].T + bias
        query, key, value = (part.unflatten(2, (HEADS, -1)).transpose(1, 2) for part in qkv.chunk(3, dim=2))
        mixed = ((query @ key.transpose(2, 3)) * (WIDTH // HEADS) ** -0.5).softmax(dim=3) @ value
        states = states + mixed.transpose(1, 2).flatten(2) @ block["attn.proj.weight"].T + block["attn.proj.bias"]
        inner = functional.layer_norm(states, (WIDTH,), *norms[1], 1e-6) @ block["mlp.fc1.weight"].T
        inner = functional.gelu(inner + block["mlp.fc1.bias"])
        states = states + inner @ block["mlp.fc2.weight"].T + block["mlp.fc2.bias"]
    return states


@pytest.mark.parametrize("blocks", [39, 40])
def test_the_published_file_of_eva_g(timm, pixels, tmp_path, blocks):
    """Its 39 blocks, whether or not the file holds the last one; its own norm and head are not used."""
    tensors = tensors_of(blocks, hidden=8)
    torch.save(tensors, tmp_path / "eva_vit_g.pth")
    encoder = load_encoder(str(tmp_path / "eva_vit_g.pth"), device="cpu", outputs=RAW)
    assert "bilinear antialias shorter side 28, centre crop 28" in str(encoder.preprocessing)
    expected = tower(encoder.preprocessing(pixels, encoder.device), tensors, 39)
    found = encoder.encode(pixels)
    np.testing.assert_allclose(found["features"], expected[:, 0], rtol=2e-2, atol=2e-2)
    np.testing.assert_allclose(found["patches"], expected[:, 1:], rtol=2e-2, atol=2e-2)
    header = encoder.header(SAMPLING)
    assert (header.width, header.patch_width, header.patch_count) == (WIDTH, WIDTH, 4)
    assert Outputs.of(asdict(header)) == RAW


def test_a_file_that_is_none_is_refused(timm, tmp_path):
    path = tmp_path / "eva_vit_g.pth"

    def refused(message: str, outputs: Outputs = RAW):
        with pytest.raises(ValueError, match=message):
            load_encoder(str(path), device="cpu", outputs=outputs)

    refused("no file of tensors")
    path.write_text("<html>")
    refused("no file of tensors")
    torch.save({"model": {"a": torch.ones(1)}}, path)
    refused("holds no vision tower of EVA-CLIP")
    good = tensors_of(3)
    torch.save(good, path)
    refused("holds no projection: give --space raw", Outputs())
    torch.save({name: t for name, t in good.items() if name != "blocks.1.attn.q_bias"}, path)
    refused("blocks.1.attn.q_bias do not fit")
    torch.save(good | {"rel_pos_bias": torch.ones(1)}, path)
    refused("rel_pos_bias do not fit")
    torch.save(good | {"blocks.2.norm1.bias": torch.ones(3)}, path)
    refused("blocks.2.norm1.bias do not fit")


def test_nothing_in_a_file_is_executed(tmp_path):
    class Evil:
        def __reduce__(self):
            return Path.touch, (tmp_path / "pwned",)

    for save in (lambda file: pickle.dump(Evil(), file, protocol=2), lambda file: torch.save({"model": Evil()}, file)):
        with open(tmp_path / "eva_vit_g.pth", "wb") as file:
            save(file)
        with pytest.raises(ValueError, match="no file of tensors"):
            read_tensors(tmp_path / "eva_vit_g.pth")
    assert not (tmp_path / "pwned").exists()
