"""What is asked of a model: some text, and perhaps the frames of a clip. Equal requests have equal keys.

Shape suffixes: T frames, H height, W width.
"""

import base64
import hashlib
import io
import json
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from datamodules.kept import file_fingerprint
from preparation.captioning.endpoint import Client
from preparation.features.decoding import Sampling, sample_frames

PROMPTS = yaml.safe_load(Path(__file__).with_name("prompts.yaml").read_text(encoding="utf-8"))
JPEG_QUALITY = 90


@cache
def digest(path: Path) -> str:
    """SHA-256 of a file's content."""
    return file_fingerprint(path)


def _sha256(identity: dict) -> str:
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Clip:
    """Part of a video file, as a model gets to see it."""

    path: Path
    start_s: float
    end_s: float
    frames: int
    """At most; a short clip has fewer distinct ones."""
    size: int
    """Longer side of the pictures in pixels; smaller ones are left as they are."""

    def identity(self, content: bool = False) -> dict:
        """What decides about the pictures.

        Args:
            content: tell the file by the digest of its content, as caches of before do, and not by its name, size and
                time of change, which cost no reading. The folder does not matter: it may be moved.
        """
        about = {"start_s": self.start_s, "end_s": self.end_s, "frames": self.frames, "size": self.size}
        if content:
            return {"sha256": digest(self.path)} | about
        status = self.path.stat()
        return {"name": self.path.name, "bytes": status.st_size, "changed": int(status.st_mtime)} | about

    def images(self) -> list[str]:
        """The frames as ``data:`` addresses of JPEG images.

        Raises:
            ValueError: the file cannot be decoded, or the clip is not in it.
        """
        found, addresses = sample_frames(self.path, Sampling(frames=self.frames), self.start_s, self.end_s), []
        _, distinct = np.unique(found.frame_times_s, return_index=True)
        for pixels in found.pixels[distinct]:
            image = Image.fromarray(pixels)
            image.thumbnail((self.size, self.size))
            image.save(buffer := io.BytesIO(), "JPEG", quality=JPEG_QUALITY)
            addresses.append(f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}")
        return addresses


@dataclass(frozen=True)
class Request:
    """One question to one model."""

    step: str
    """What it is for: ``caption``, ``condense`` or ``dialogue``."""
    client: Client
    prompt: str
    clip: Clip | None = None

    def identity(self, content: bool = False) -> dict:
        """What the answer depends on; ``content`` as in ``Clip``. Where the model is served does not matter."""
        endpoint = self.client.endpoint
        about = {"model": endpoint.model, "options": endpoint.options, "prompt": self.prompt}
        return about | ({"clip": self.clip.identity(content)} if self.clip else {})

    @cached_property
    def key(self) -> str:
        """SHA-256 of the identity."""
        return _sha256(self.identity())

    @cached_property
    def key_by_content(self) -> str:
        """The key of before, for which the video file is read."""
        return _sha256(self.identity(content=True))

    def about(self) -> dict:
        """What the cache says about the request, for people."""
        return {"step": self.step} | self.identity() | ({"file": self.clip.path.name} if self.clip else {})

    def content(self) -> str | list[dict]:
        """Content of the user's message: the text, behind the pictures if there are any."""
        if self.clip is None:
            return self.prompt
        images = [{"type": "image_url", "image_url": {"url": address}} for address in self.clip.images()]
        return [*images, {"type": "text", "text": self.prompt}]
