"""Vision towers: what they return, against transformers' own outputs, with tiny checkpoints made on the spot."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPVisionModelWithProjection,
    SiglipConfig,
    SiglipModel,
    SiglipVisionConfig,
    SiglipVisionModel,
)
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from datamodules.spatial_compression import Compression
from preparation.features.decoding import Sampling
from preparation.features.encoders import Outputs, load_encoder
from preparation.features.preprocessing import Preprocessing
from preparation.world.tiny import tiny_clip

ALL = {"patches": True, "cls_attention": True}
SMALL = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
SAMPLING = Sampling(frames=4)


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("clip")
    tiny_clip(folder, width=16)
    config = json.loads((folder / "config.json").read_text()) | {"projection_dim": 12, "num_hidden_layers": 3}
    model = CLIPVisionModelWithProjection(CLIPVisionModelWithProjection.config_class(**config))
    model.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def siglip(tmp_path_factory) -> str:
    """A whole SigLIP, text tower included, as on the hub."""
    folder = tmp_path_factory.mktemp("siglip")
    vision = SMALL | {"image_size": 32, "patch_size": 8}
    config = SiglipConfig(text_config=SMALL | {"vocab_size": 9}, vision_config=vision)
    SiglipModel(config).save_pretrained(folder)
    SiglipImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    coarse = np.random.default_rng(0).integers(80, 170, (5, 6, 8, 3), np.uint8)  # PIL clips what overshoots
    return coarse.repeat(8, axis=1).repeat(8, axis=2)


def encode(name: str, pixels: np.ndarray, **outputs) -> dict[str, np.ndarray]:
    return load_encoder(name, device="cpu", outputs=Outputs(**outputs)).encode(pixels)


def close(found: np.ndarray, expected: torch.Tensor) -> None:
    assert found.dtype == np.float16
    np.testing.assert_allclose(found, expected.detach().numpy(), atol=3e-3)


@pytest.mark.parametrize("layer", [None, -1, -3])
def test_clip_in_both_spaces(clip, pixels, layer):
    model = CLIPVisionModelWithProjection.from_pretrained(clip, attn_implementation="eager")
    images = load_encoder(clip, device="cpu").preprocessing(pixels, torch.device("cpu"))
    expected = model(images, output_attentions=True)
    tokens = model.visual_projection(model.vision_model.post_layernorm(expected.last_hidden_state[:, 1:]))
    row = expected.attentions[layer or -2].mean(dim=1)[:, 0, 1:]  # the penultimate layer, unless asked otherwise
    projected = encode(clip, pixels, **ALL, attention_layer=layer)
    raw = encode(clip, pixels, **ALL, space="raw", attention_layer=layer)
    close(projected["features"], expected.image_embeds)
    close(projected["patches"], tokens)
    close(raw["features"], expected.last_hidden_state[:, 0])
    close(raw["patches"], expected.last_hidden_state[:, 1:])
    for found in (projected, raw):
        np.testing.assert_allclose(found["cls_attention"], row.detach().numpy(), rtol=2e-3)
    assert set(encode(clip, pixels)) == {"features"}


def test_the_class_token_of_the_projected_space_is_the_feature(clip, pixels):
    """Patches take the way the class token takes: its state, put in their place, becomes the image embedding."""
    encoder = load_encoder(clip, device="cpu", outputs=Outputs(patches=True))
    state = encoder.model(encoder.preprocessing(pixels, encoder.device)).last_hidden_state[:, 0]
    feature = encoder.model.visual_projection(encoder.model.vision_model.post_layernorm(state))
    close(encoder.encode(pixels)["features"], feature)


def test_a_whole_clip_loads_like_its_vision_tower(clip, pixels, tmp_path):
    vision = json.loads((Path(clip) / "config.json").read_text())
    text = SMALL | {"vocab_size": 9, "eos_token_id": 2}
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=12))
    tower = CLIPVisionModelWithProjection.from_pretrained(clip)
    model.vision_model.load_state_dict(tower.vision_model.state_dict())
    model.visual_projection.load_state_dict(tower.visual_projection.state_dict())
    model.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_bytes((Path(clip) / "preprocessor_config.json").read_bytes())
    np.testing.assert_array_equal(encode(str(tmp_path), pixels)["features"], encode(clip, pixels)["features"])
    assert load_encoder(str(tmp_path), device="cpu").sha256 == load_encoder(clip, device="cpu").sha256


def test_siglip(siglip, pixels):
    model = SiglipVisionModel.from_pretrained(siglip)
    encoder = load_encoder(siglip, device="cpu", outputs=Outputs(**ALL))
    images = encoder.preprocessing(pixels, torch.device("cpu"))
    theirs = SiglipImageProcessorPil.from_pretrained(siglip)(list(pixels), return_tensors="pt")["pixel_values"]
    assert images.shape == theirs.shape == (5, 3, 32, 32)  # the whole frame, not its centre
    assert (images - theirs).abs().max() < 0.05  # PIL rounds to 8 bits
    expected, found = model(images), encoder.encode(pixels)
    close(found["features"], expected.pooler_output)
    close(found["patches"], expected.last_hidden_state)
    np.testing.assert_allclose(found["cls_attention"].sum(axis=1), 1, atol=1e-2)
    weighted = torch.from_numpy(found["cls_attention"]).float()
    head, hidden = model.head.attention, expected.last_hidden_state
    _, weights = head(model.head.probe.repeat(5, 1, 1), hidden, hidden, average_attn_weights=False)
    torch.testing.assert_close(weighted, weights.mean(1)[:, 0], atol=1e-3, rtol=0)
    assert "bicubic antialias 32x32" in encoder.header(SAMPLING).preprocessing
    for outputs in ({"space": "raw"}, {"attention_layer": -1}):
        with pytest.raises(ValueError, match="one space and one pooling attention"):
            encode(siglip, pixels, **outputs)


@pytest.mark.parametrize("family", ["clip", "siglip"])
@pytest.mark.parametrize(
    "outputs", [{}, ALL, {"spatial": Compression(2, 4, kind="random")}, {"patches": True, "spatial": Compression(1, 9)}]
)
def test_the_header_tells_how_to_make_the_same_features_again(request, family, outputs):
    name = request.getfixturevalue(family)
    encoder = load_encoder(name, device="cpu", outputs=Outputs(**outputs))
    header = encoder.header(SAMPLING)
    again = load_encoder(name, device="cpu", outputs=Outputs.of(asdict(header)))
    assert again.header(SAMPLING) == header
    assert Outputs.of({}) == Outputs()


def test_the_header_keeps_space_and_layer(clip):
    outputs = Outputs(spatial=Compression(2, 4), space="raw", attention_layer=-1)
    header = load_encoder(clip, device="cpu", outputs=outputs).header(SAMPLING)
    assert Outputs.of(asdict(header)) == outputs
    assert (header.spatial, header.spatial_count, header.width, header.patch_count) == ("2x4", 8, 16, 0)
    assert "layer 3 of 3, CLS to patches" in header.spatial_source


def test_refused(clip, tmp_path):
    for layer in (0, -4):
        with pytest.raises(ValueError, match=f"has 3 layers; .* from -3 to -1, got {layer}"):
            load_encoder(clip, device="cpu", outputs=Outputs(attention_layer=layer))
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match="is a bert; known vision towers: clip, siglip"):
        load_encoder(str(tmp_path), device="cpu")
    SiglipVisionModel(SiglipVisionConfig(**SMALL, vision_use_head=False)).save_pretrained(tmp_path)
    SiglipImageProcessorPil().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="without a pooling head"):
        load_encoder(str(tmp_path), device="cpu")


@pytest.mark.parametrize(
    "changes",
    [{"do_center_crop": False}, {"resample": 1}, {"crop_size": 300}, {"do_rescale": False}, {"size": {"height": 8}}],
)
def test_other_preprocessing_is_refused(changes):
    config = {"size": 224, "crop_size": 224, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    assert str(Preprocessing.from_config(config, "x")).startswith("bicubic antialias shorter side 224, centre crop 224")
    with pytest.raises(ValueError, match="x: preprocessor_config.json asks for other steps"):
        Preprocessing.from_config(config | changes, "x")
