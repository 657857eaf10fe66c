"""What a served model is asked about a video, and what its answers say.

Shape suffixes: T frames, H height, W width.
"""

import base64
import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import yaml
from PIL import Image

from command_line.yaml_files import read_yaml
from datamodules.markup import VIDEO, fill
from datamodules.options import chosen, written_options
from datamodules.prediction import Prediction
from datamodules.schema import Query
from metrics.benchmarks.answers import Parsed, read_moments
from metrics.benchmarks.event_answers import read_events
from preparation.captioning.requests import JPEG_QUALITY, digest
from preparation.features.decoding import DECODE_ERRORS, Sampling, Source, decode, first_line

PROMPTS = Path(__file__).with_name("prompts.yaml")


class DecodingError(ValueError):
    """A video file that cannot be decoded."""


def read_prompts(own: Path | None) -> dict[str, str]:
    """Task -> wording; a file of one's own takes the place of some.

    Raises:
        ValueError: it is no mapping of known tasks to texts.
    """
    known = yaml.safe_load(PROMPTS.read_text(encoding="utf-8"))
    if own is None:
        return known
    found = read_yaml(own)
    if not found.keys() <= known.keys() or not all(map(is_text, found.values())):
        raise ValueError(f"{own}: expected texts under some of {', '.join(known)}")
    return known | found


def is_text(value: object) -> bool:
    """True for a text that says something."""
    return isinstance(value, str) and bool(value.strip())


@dataclass
class Look:
    """The frames of one video, as a model gets to see them; decoded when they are needed, and once."""

    source: Source
    sampling: Sampling
    size: int
    """Longer side of the pictures in pixels; smaller ones are left as they are."""

    def identity(self) -> dict:
        """What decides about the pictures: the content of the file, not its name."""
        about = {"start_s": self.source.start_s, "end_s": self.source.end_s, "size": self.size}
        return {"sha256": digest(self.source.path), "frames": str(self.sampling)} | about

    @cached_property
    def _seen(self) -> tuple[list[dict], float]:
        """Parts of a message, and the length of the video in seconds."""
        images, times, duration_s = [], {}, 0.0
        try:
            for step in decode(self.source, self.sampling, chunk_frames=1):
                if step.error is not None:
                    raise step.error
                if step.pixels is not None:
                    images += [self._address(pixels) for pixels in step.pixels]
                if step.video is not None:
                    duration_s = float(step.video["duration_s"])
                    shown = zip(step.video["repeat"], step.video["frame_times_s"], strict=True)
                    for number, time_s in shown:
                        times.setdefault(int(number), float(time_s))
        except DECODE_ERRORS as error:
            raise DecodingError(f"{self.source.path}: {first_line(error)}") from None
        parts = []
        for number, address in enumerate(images):
            parts.append({"type": "text", "text": f"{times[number]:.1f} s: "})
            parts.append({"type": "image_url", "image_url": {"url": address}})
        return parts, duration_s

    def _address(self, pixels) -> str:
        """One frame (H, W, 3) as a ``data:`` address of a JPEG image."""
        image = Image.fromarray(pixels)
        image.thumbnail((self.size, self.size))
        image.save(buffer := io.BytesIO(), "JPEG", quality=JPEG_QUALITY)
        return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"

    def parts(self) -> list[dict]:
        """The time of each frame and the frame. Raises DecodingError."""
        return self._seen[0]

    def duration_s(self) -> float:
        """Length of the video. Raises DecodingError."""
        return self._seen[1]

    def forget(self) -> None:
        """Free the memory of the frames."""
        self.__dict__.pop("_seen", None)


@dataclass(frozen=True)
class Question:
    """One query, asked of one model about the frames of its video."""

    query: Query
    wording: str
    look: Look
    model: str
    options: Mapping
    """Fields of the request, such as ``temperature``."""

    @property
    def prompt(self) -> str:
        """The question without the length of the video, which is known once the file is open."""
        query = self.query
        text = query.text.strip()
        if query.turns:
            seconds = {marker: f"{time_s:.1f} s" for marker, time_s in query.turns[0].times.items()}
            return str(query.turns[0].question.change({VIDEO: "", **seconds})).strip()
        return str(fill(self.wording, {"question": query.text.strip(), "text": text, **written_options(query)}))

    def identity(self) -> dict:
        """Everything that the answer depends on. Where the model is served does not matter."""
        about = {"model": self.model, "options": dict(self.options), "prompt": self.prompt}
        return about | {"duration_s": self.query.duration_s, "video": self.look.identity()}

    @cached_property
    def key(self) -> str:
        """SHA-256 of the identity."""
        return hashlib.sha256(json.dumps(self.identity(), sort_keys=True).encode()).hexdigest()

    def about(self) -> dict:
        """What the cache says about the question, for people."""
        return {"query": self.query.id} | self.identity() | {"file": self.look.source.path.name}

    def duration_s(self) -> float:
        """The length that times refer to."""
        return self.query.duration_s or self.look.duration_s()

    def content(self) -> list[dict]:
        """Content of the user's message: frames with their times, and the question behind them."""
        said = self.prompt.replace("{duration}", f"{self.duration_s():.1f}")
        return [*self.look.parts(), {"type": "text", "text": said}]

    def read(self, answer: str) -> tuple[Prediction, Parsed]:
        """The answer as a prediction, and how its times were read."""
        query, about = self.query, {"query_id": self.query.id, "video": self.query.video, "task": self.query.task}
        option = chosen(answer, len(query.options)) if query.options else None
        if query.task == "qa":
            return Prediction(**about, answer=answer, option=option), Parsed()
        reader = read_events if query.task == "dense_captioning" else read_moments
        found = reader(answer, self.duration_s() or None)
        spans = tuple((*window, 1.0) for window in found.windows)
        rule = found.rule if spans or found.rule == "none" else None  # "none": it says that it does not happen
        captions = found.captions if query.task == "dense_captioning" else ()
        return Prediction(**about, answer=answer, spans=spans, captions=captions, option=option, rule=rule), found
