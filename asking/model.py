"""A finished run that is asked about video files: everything is loaded once, and no video is read twice."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

from asking.features import CACHE, FeatureCache, Part
from asking.questions import about, description, moment, of_a_window, question
from asking.videos import Footage, footage
from asking.windows import Windows, together
from datamodules.batch import collate_prompts
from datamodules.prediction import Prediction
from datamodules.records import FeatureHeader
from datamodules.schema import Query, Video
from evaluation.protocol import check_features
from lightning_modules.answering import Generation, GenerationChange
from lightning_modules.trained import TrainedModel
from models.checkpoints import best_device
from models.quantization import Quantization
from preparation.features.encoders import Outputs, load_encoder
from preparation.features.extraction import extract_video
from preparation.features.own_encoder import CLASS_PATH
from preparation.features.sampling import Sampling
from preparation.features.sources import Source
from preparation.features.vision_encoder import VisionEncoder
from reports.results import Moments

CLIP = "openai/clip-vit-large-patch14"
"""What the released weights were trained on; they do not say so."""
TOGETHER = 16
"""Questions that are answered at the same time."""
Said = tuple[str, Sequence[str]]
"""A question of a conversation, and what was answered to it about each window."""
REMEMBERED = 16
"""Videos or windows whose features stay in memory; those of others are in the cache."""


class Model:
    """A trained model with the encoder of its features.

    Args:
        run: run folder or checkpoint of train.py, an exported folder, or a folder with released weights.
        llm: base model, if it is not where the run names it; released weights need it.
        encoder: of the frames, if it is not where the run names it; a class path is never taken from the run, because
            its code runs.
        dtype: to compute in; None: bfloat16 on an accelerator, else float32.
        generation: how answers are decoded, or what is changed of how the run says it; None: as the run says.
        windows: how long videos are cut.
        cache: folder for features; None: none are kept.
        quantization: of the base; None: as it was trained beside.
        localizer: how times are read, where it differs from the run's settings.

    Raises:
        ValueError: no trained weights are there, or they were trained on another base.
    """

    def __init__(
        self,
        run: Path,
        llm: str | None = None,
        encoder: str | None = None,
        dtype: str | None = None,
        generation: Generation | GenerationChange | None = None,
        windows: Windows = Windows(),  # noqa: B008 (frozen)
        cache: Path | None = CACHE,
        quantization: Quantization | Literal["none"] | None = None,
        localizer: dict[str, Any] | None = None,
    ):
        self.run, self.windows, self.cache = Path(run), windows, FeatureCache(cache)
        self.module = TrainedModel.from_run(self.run, llm, dtype, generation, quantization, localizer)
        self.module.answering = replace(self.module.answering, confident=True)  # windows are ranked by it
        self.trained = self.module.manifest.get("features") or {}
        self.encoder_name = encoder or known_encoder(self.trained, self.run)
        self.sampling = Sampling.parse(self.trained.get("sampling", "uniform 100"))
        self._videos: dict[tuple[Path, Part], Video] = {}

    @cached_property
    def encoder(self) -> VisionEncoder:
        """Loaded where a video is new. Raises ValueError if it is not the one of the training features."""
        loaded = load_encoder(self.encoder_name, outputs=Outputs.of(self.trained))
        check_features(self.module, loaded.header(self.sampling), f"encoder {loaded.name}")
        return loaded

    @property
    def header(self) -> FeatureHeader:
        """How features are made: as the run says, or as the encoder does where that is unknown."""
        known = self.trained.get("encoder_sha256")
        return FeatureHeader(**self.trained) if known else self.encoder.header(self.sampling)

    def load(self) -> None:
        """Load base and weights now, not with the first question."""
        if self.module.model is None:
            self.module.configure_model()
            self.module.to(self.device)

    @property
    def device(self):
        """Where the model runs."""
        return best_device()

    def open(self, file: Path | str) -> Footage:
        """A video file, looked at but not read yet. Raises ValueError as ``footage`` does."""
        return footage(Path(file), Path(file).name, self.windows)

    def watch(self, seen: Footage) -> Iterator[Video]:
        """The features of each window, made now where they are not known.

        Raises:
            ValueError: the file cannot be decoded.
        """
        for part in seen.parts:
            key = (seen.file, part)
            if key not in self._videos:
                source = Source(seen.id, seen.file, *(part or ()))
                make = partial(self._extract, source)
                self._videos[key] = self.cache.get(seen.file, self.header, part, make)
                for old in list(self._videos)[:-REMEMBERED]:
                    del self._videos[old]
            yield self._videos[key]

    def _extract(self, source: Source) -> Video:
        return extract_video(source, self.encoder, self.sampling)

    def answer(self, seen: Footage, queries: Sequence[Query], said: Sequence[Said] = ()) -> Iterator[list[Prediction]]:
        """The answers to all queries about each window in turn, in seconds of the window.

        Args:
            seen: the video.
            queries: what is asked.
            said: questions and answers that come before them.

        Raises:
            ValueError: the file cannot be decoded, or a query names times of a video that is seen in windows.
        """
        self.load()
        asked = queries if len(seen.windows) == 1 else [of_a_window(query) for query in queries]
        for number, video in enumerate(self.watch(seen)):
            before = [(question, answers[number]) for question, answers in said]
            prompts = [self.module.dialogue.prompt(query, video, before) for query in asked]
            answers = []
            for start in range(0, len(prompts), TOGETHER):
                batch = collate_prompts(prompts[start : start + TOGETHER], self.module.dialogue.pad_id)
                answers += self.module.answer(batch.to(self.device))
            yield answers

    def merge(self, seen: Footage, queries: Sequence[Query], windows: Sequence[list[Prediction]]) -> list[Moments]:
        """One result a query from the answers about each window."""
        whole = self._videos.get((seen.file, None))
        length_s = whole.duration_s if whole else seen.duration_s
        results = []
        for place, query in enumerate(queries):
            parts = [(window, answers[place]) for window, answers in zip(seen.windows, windows, strict=True)]
            results.append(Moments(query, together(query, parts, length_s), length_s, seen.file))
        return results

    def results(self, seen: Footage, queries: Sequence[Query]) -> list[Moments]:
        """Ask, and wait for all windows."""
        return self.merge(seen, queries, list(self.answer(seen, queries)))

    def _one(self, video: Path | str, query: Query) -> Moments:
        opened = self.open(video)
        return self.results(opened, about([query], [opened.id])[opened.id])[0]

    def find(self, video: Path | str, text: str) -> Moments:
        """Find the moments of a sentence, best first.

        Args:
            video: file.
            text: what to look for: ``"a man opens the door"``.

        Raises:
            ValueError: the text is empty, or the video cannot be read.
        """
        return self._one(video, moment(text))

    def describe(self, video: Path | str) -> Moments:
        """Describe a video: its events in order, each a moment with a caption."""
        return self._one(video, description())

    def ask(self, video: Path | str, text: str, choices: Sequence[str] | None = None) -> Moments:
        """Ask a question; ``.text`` is the answer, and the moments are those that it names.

        Args:
            video: file.
            text: the question.
            choices: options to choose from; then the moments show where one sees the right one.
        """
        return self._one(video, question(text, choices))


def known_encoder(trained: Mapping, run: Path) -> str:
    """The tower that the training features name. Raises ValueError for a class, whose code a user must have named."""
    name = trained.get("encoder", CLIP)
    if CLASS_PATH.fullmatch(name) and not Path(name).exists():
        raise ValueError(
            f"{run} was trained on features of the class {name}, whose code would run; if you know it, name it "
            f"yourself: --encoder {name}"
        )
    return name
