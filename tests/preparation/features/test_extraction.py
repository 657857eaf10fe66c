"""From video files to shards, with a tiny CLIP and small videos made on the spot."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import av
import decord
import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPVisionModelWithProjection
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from datamodules.shards import ShardReader
from preparation.features.decoding import Sampling, Source, find_sources
from preparation.features.encoders import Outputs, load_encoder
from preparation.features.extraction import extract, extract_video
from preparation.features.verification import verify
from preparation.world.tiny import tiny_clip

ROOT = Path(__file__).parents[3]
FASTSTART = {"movflags": "faststart"}
"""The index of the file in front, as on the web: what is left after a cut can still be played."""
UNIFORM = Sampling(frames=10)


def render(path: Path, frames: int, fps: int = 10, size: tuple[int, int] = (64, 48)) -> Path:
    """An mp4 whose frames get brighter."""
    width, height = size
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=fps)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        container.start_encoding()
        for number in range(frames):
            pixels = np.full((height, width, 3), 40 + 150 * number // max(frames, 1), np.uint8)
            pixels[: height // 2, : number * width // max(frames, 1)] = (200, 30, 60)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return path


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("clip")
    tiny_clip(folder, width=16)
    CLIPImageProcessorPil(size={"shortest_edge": 36}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def encoder(clip):
    torch.set_num_threads(1)
    return load_encoder(str(clip), device="cpu")


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for number in range(7):
        render(folder / f"clip.{number}.mp4", 12 + 5 * number)
    return folder


def test_features_are_the_projected_embedding_of_each_frame(encoder, videos, clip):
    """Against transformers' own model and image processor, frame by frame."""
    path = videos / "clip.6.mp4"
    found = extract_video(Source("x", path), encoder, UNIFORM, chunk_frames=3)
    indices = UNIFORM.indices(42, 10.0)
    frames = decord.VideoReader(str(path)).get_batch(indices).asnumpy()
    processor, model = CLIPImageProcessorPil.from_pretrained(clip), CLIPVisionModelWithProjection.from_pretrained(clip)
    pixels = processor(list(frames), return_tensors="pt")["pixel_values"]
    assert (encoder.preprocessing(frames, encoder.device) - pixels).abs().max() < 0.05  # PIL rounds to 8 bits
    with torch.inference_mode():
        exact = model(encoder.preprocessing(frames, encoder.device)).image_embeds
    np.testing.assert_allclose(found.features, exact.numpy(), atol=2e-3)
    np.testing.assert_allclose(found.frame_times_s, indices / 10.0)
    assert found.duration_s == pytest.approx(4.2)
    assert found.features.dtype == np.float16
    assert not np.allclose(np.linalg.norm(exact, axis=1), 1)  # unnormalised


def test_clip_of_a_file(encoder, videos):
    found = extract_video(Source("x", videos / "clip.6.mp4", 1.05, 3.0), encoder, Sampling(fps=2.0))
    assert found.duration_s == pytest.approx(1.95)
    np.testing.assert_allclose(found.frame_times_s, [0.0, 0.45, 0.95, 1.45], atol=1e-9)
    whole = extract_video(Source("x", videos / "clip.6.mp4"), encoder, Sampling(fps=10.0))
    np.testing.assert_array_equal(found.features, whole.features[[10, 15, 20, 25]])


def test_patches_and_attention(clip, videos, tmp_path):
    encoder = load_encoder(str(clip), device="cpu", outputs=Outputs(patches=True, cls_attention=True))
    extract([Source("x", videos / "clip.0.mp4")], encoder, UNIFORM, tmp_path)
    reader = ShardReader(tmp_path)
    found = reader.read("x")
    assert (found.patches.shape, found.cls_attention.shape) == ((10, 16, 16), (10, 16))
    assert ((found.cls_attention.sum(axis=1) > 0.5) & (found.cls_attention.sum(axis=1) < 1)).all()  # CLS itself missing
    assert "layer 1 of 2" in reader.header.cls_attention  # the penultimate
    plain = load_encoder(str(clip), device="cpu")
    with pytest.raises(ValueError, match="patches: '' .this run., 'last_hidden_state"):
        extract([], plain, UNIFORM, tmp_path)
    np.testing.assert_allclose(
        found.features, extract_video(Source("x", videos / "clip.0.mp4"), plain, UNIFORM).features, atol=2e-3
    )


def test_images_are_one_frame(encoder, tmp_path):
    Image.new("RGB", (50, 40), (10, 200, 30)).save(tmp_path / "a.jpg")
    Image.new("L", (40, 90), 77).save(tmp_path / "b.png")
    (tmp_path / "notes.txt").write_text("not an image")
    sources, others = find_sources(tmp_path)
    assert others == 1
    extract(sources, encoder, UNIFORM, tmp_path / "out")
    reader = ShardReader(tmp_path / "out")
    for name in ("a", "b"):
        found = reader.read(name)
        assert (found.features.shape, found.duration_s, found.frame_times_s.tolist()) == ((1, 16), 0.0, [0.0])
    assert verify(tmp_path / "out").problems == ()


def bad_files(folder: Path, good: Path) -> dict[str, str]:
    """Name of a bad file -> what must be said about it."""
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "garbage.mp4").write_bytes(os.urandom(5000))
    (folder / "page.mp4").write_text("<html>not found</html>" * 50)
    (folder / "half.mp4").write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    (folder / "image.jpg").write_bytes(b"\xff\xd8 no image")
    with av.open(str(good)) as container, av.open(str(folder / "head.mp4"), "w", options=FASTSTART) as copy:
        stream = copy.add_stream_from_template(container.streams.video[0])
        for packet in container.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                copy.mux(packet)
    os.truncate(folder / "head.mp4", (folder / "head.mp4").stat().st_size * 2 // 3)
    assert 1 < len(decord.VideoReader(str(folder / "head.mp4"))) < 27  # decord takes it for a shorter video
    render(folder / "one.mp4", 1)
    render(folder / "zero.mp4", 0)
    return {
        "empty": "cannot be decoded",
        "garbage": "cannot be decoded",
        "page": "cannot be decoded",
        "half": "cut off",
        "head": "cut off: mdat ends at byte",
        "image": "cannot identify image",
        "one": "too short for a video",
        "zero": "cannot be decoded",
        "missing": "no such file",
    }


def test_bad_files_fail_or_are_counted(encoder, videos, tmp_path):
    good = videos / "clip.3.mp4"
    expected = bad_files(tmp_path, good)
    sources = [Source(path.stem, path) for path in sorted(tmp_path.iterdir())]
    sources += [
        Source("missing", tmp_path / "missing.mp4"),
        Source("good", good),
        Source("good", videos / "clip.4.mp4"),
    ]
    summary = extract(sources, encoder, UNIFORM, tmp_path / "out", on_error="skip")
    assert (summary.written, summary.present) == (1, 0)
    reasons = {Path(skip.where).stem: f"{skip.reason} {skip.detail}" for skip in summary.skipped}
    assert set(reasons) == set(expected) | {"clip.4"}
    assert "'good' is used already" in reasons["clip.4"]
    assert str(good) in reasons["clip.4"]
    for name, words in expected.items():
        assert words in reasons[name]
        assert "\n" not in reasons[name]
        assert "/project/" not in reasons[name]
    lines = [json.loads(line) for line in (tmp_path / "out" / "skipped.jsonl").read_text().splitlines()]
    assert [(line["file"], line["reason"]) for line in lines] == [(skip.where, skip.reason) for skip in summary.skipped]
    assert ShardReader(tmp_path / "out").ids == ["good"]
    for number, source in enumerate(sources[:-2]):
        with pytest.raises(ValueError, match=source.path.name):
            extract([source], encoder, UNIFORM, tmp_path / f"out{number}")
    with pytest.raises(ValueError, match=r"clip\.4\.mp4: id 'good' is used already .*clip\.3\.mp4"):
        extract(sources[-2:], encoder, UNIFORM, tmp_path / "twice")


def test_failing_keeps_what_was_done(encoder, videos, tmp_path):
    sources = [Source("a", videos / "clip.0.mp4"), Source("b", tmp_path / "none.mp4")]
    with pytest.raises(ValueError, match=r"none\.mp4: no such file"):
        extract(sources, encoder, UNIFORM, tmp_path / "out")
    assert ShardReader(tmp_path / "out").ids == ["a"]
    (tmp_path / "none.mp4").write_bytes((videos / "clip.1.mp4").read_bytes())
    summary = extract(sources, encoder, UNIFORM, tmp_path / "out")
    assert (summary.written, summary.present) == (1, 1)


def test_infinite_features_are_refused(clip, videos, tmp_path):
    encoder = load_encoder(str(clip), device="cpu")
    with torch.no_grad():
        encoder.model.visual_projection.weight.mul_(1e7)  # beyond float16
    with pytest.raises(ValueError, match="features holds NaN or infinity"):
        extract([Source("a", videos / "clip.0.mp4")], encoder, UNIFORM, tmp_path)
    assert ShardReader(tmp_path).ids == []


def test_other_weights_under_the_same_name_do_not_mix(clip, videos, tmp_path, encoder):
    extract([Source("a", videos / "clip.0.mp4")], encoder, UNIFORM, tmp_path)
    other = load_encoder(str(clip), device="cpu")
    other.sha256 = "0" * 64
    with pytest.raises(ValueError, match="encoder_sha256"):
        extract([Source("b", videos / "clip.1.mp4")], other, UNIFORM, tmp_path)
    assert len(encoder.sha256) == 64
    assert replace(encoder.header(UNIFORM), sampling="").sampling == ""


def test_encoder_refuses(clip, tmp_path):
    with pytest.raises(ValueError, match="no checkpoint .*nowhere"):
        load_encoder(str(tmp_path / "nowhere"), device="cpu")
    (tmp_path / "bad").mkdir()
    for file in clip.iterdir():
        (tmp_path / "bad" / file.name).write_bytes(file.read_bytes())
    config = json.loads((clip / "preprocessor_config.json").read_text()) | {"do_center_crop": False}
    (tmp_path / "bad" / "preprocessor_config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="asks for other steps"):
        load_encoder(str(tmp_path / "bad"), device="cpu")


DIE = """
import os, signal, sys, torch
from pathlib import Path
from preparation.features import decoding, encoders, extraction, shard_writer
torch.set_num_threads(1)
append, calls = shard_writer.ShardWriter._append, []
def die_in_sixth(self, block):
    calls.append(len(block) > 2000)  # a record, not the end of a shard
    if sum(calls) == 6:
        self._file.write(block[:3000])
        self._file.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    append(self, block)
shard_writer.ShardWriter._append = die_in_sixth
encoder = encoders.load_encoder(sys.argv[1], device="cpu")
sources, _ = decoding.find_sources(Path(sys.argv[2]))
extraction.extract(sources, encoder, decoding.Sampling(frames=10), Path(sys.argv[3]), max_records=2)
"""


def test_kill_then_resume_gives_identical_shards(encoder, clip, videos, tmp_path):
    command = [sys.executable, "-c", DIE, str(clip), str(videos), str(tmp_path / "killed")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert ShardReader(tmp_path / "killed").ids == [f"clip.{number}" for number in range(4)]
    sources, _ = find_sources(videos)
    resumed = extract(sources, encoder, UNIFORM, tmp_path / "killed", max_records=2)
    assert (resumed.written, resumed.present) == (3, 4)
    extract(sources, encoder, UNIFORM, tmp_path / "whole", max_records=2)
    killed, whole = (
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("killed", "whole")
    )
    assert len(whole) == 4 * 2 + 3  # tars with their indices; index.json, skipped.jsonl, .lock
    assert killed == whole
