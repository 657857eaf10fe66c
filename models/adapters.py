"""From what is stored of a frame to the language model's width: the modules, and the settings that choose one.

Shape suffixes: B videos, T frames, P patches, D width; D_feature of the features, E of the patches.
"""

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, field
from typing import ClassVar, Literal

from torch import Tensor, nn
from transformers import InstructBlipQFormerConfig, PreTrainedTokenizerBase

from models.checkpoints import load_tokenizer
from models.frame_compressor import INSTRUCT_BLIP, FrameCompressor, load_compressor, read_instruct_blip
from models.time_table import TimedAdapter


class LinearAdapter(nn.Linear):
    """One linear layer on pooled frame features, (..., D_feature) -> (..., D): VTimeLLM's visual adapter (eq. 1)."""

    def forward(self, features: Tensor) -> Tensor:
        """Project features of any floating type; they are stored in half precision."""
        check_width(features, self.in_features)
        return super().forward(features.to(self.weight.dtype))


class MlpAdapter(nn.Sequential):
    """Two linear layers with a GELU between, (..., D_feature) -> (..., D): LLaVA-1.5's ``mlp2x_gelu``."""

    def __init__(self, feature_width: int, width: int):
        super().__init__(nn.Linear(feature_width, width), nn.GELU(), nn.Linear(width, width))

    def forward(self, features: Tensor) -> Tensor:
        """Project features of any floating type; they are stored in half precision."""
        check_width(features, self[0].in_features)
        return super().forward(features.to(self[0].weight.dtype))


def check_width(features: Tensor, width: int) -> None:
    """Raise ValueError if features (..., D_feature) have another width than the adapter reads."""
    if features.shape[-1] != width:
        raise ValueError(other_width(features.shape[-1], width))


def other_width(found: int, wanted: int) -> str:
    """What to do about features of another width than the adapter reads."""
    return (
        f"the features are {found} wide, the adapter reads {wanted}: set model.feature_width to the "
        "width in the shards' header, and start from no `previous`, or from one with such features"
    )


def check_feature_width(found: int, wanted: int, adapter: "Adapter") -> None:
    """Raise ValueError if shards have features of another width than an adapter of pooled features reads."""
    if adapter.question_tokenizer() is None and found != wanted:
        raise ValueError(other_width(found, wanted))


class Adapter(ABC):
    """Which adapter a model has, as a config says it. It holds settings and no weights."""

    reads_times: ClassVar[bool] = False
    """Whether the adapter is also given when each frame was decoded."""

    @abstractmethod
    def build(self, feature_width: int, width: int) -> nn.Module:
        """The adapter with random weights.

        Args:
            feature_width: D_feature, or E where the adapter reads patches.
            width: D.
        """

    def start(self, adapter: nn.Module) -> None:  # noqa: B027 (most start from random weights)
        """Give an adapter the weights that it has before its first training."""

    def tune(self, adapter: nn.Module, aligning: bool) -> None:
        """Mark what learns: all of it, unless an adapter says otherwise.

        Args:
            adapter: what ``build`` made.
            aligning: whether it learns alone (stage 1), and not beside the language model.
        """
        adapter.requires_grad_(True)

    def question_tokenizer(self) -> PreTrainedTokenizerBase | None:
        """For an adapter that reads the patches of a frame with the question in mind, the tokenizer of the question.

        None: it reads pooled features, the same for every question.
        """
        return None

    def config(self) -> dict:
        """Class and settings, as configs write them."""
        return {"class_path": f"{type(self).__module__}.{type(self).__qualname__}", "init_args": asdict(self)}


@dataclass(frozen=True)
class Linear(Adapter):
    """``LinearAdapter``."""

    def build(self, feature_width: int, width: int) -> LinearAdapter:
        """See Adapter."""
        return LinearAdapter(feature_width, width)


@dataclass(frozen=True)
class Mlp(Adapter):
    """``MlpAdapter``."""

    def build(self, feature_width: int, width: int) -> MlpAdapter:
        """See Adapter."""
        return MlpAdapter(feature_width, width)


@dataclass(frozen=True)
class Timed(Adapter):
    """``TimedAdapter``: a linear layer, and before it a learned vector for each second is added to the frames."""

    reads_times: ClassVar[bool] = True

    seconds: int = 8192
    """Of the longest video; later frames are taken as of this second."""
    legacy: bool = False
    """Read seconds that no training frame had as released, see ``models.time_table.filled``."""

    def __post_init__(self):
        if self.seconds < 1:
            raise ValueError(f"seconds must be 1 or more, got {self.seconds}")

    def build(self, feature_width: int, width: int) -> TimedAdapter:
        """See Adapter."""
        return TimedAdapter(LinearAdapter(feature_width, width), feature_width, self.seconds, self.legacy)


@dataclass(frozen=True)
class Compressor(Adapter):
    """``FrameCompressor``: patches of a frame, read with the dialogue's first question in mind, become one token."""

    weights: str | None = None
    """The public Q-Former, ``instruct_blip_vicuna7b_trimmed.pth``. Needed where no earlier stage gives weights."""
    tokenizer: str = "google-bert/bert-base-uncased"
    """Of the questions: folder or hub name."""
    queries: int = 32
    qformer: dict[str, int] = field(default_factory=dict)
    """Settings of ``InstructBlipQFormerConfig`` in place of the public Q-Former's."""
    tuned: Literal["attention", "all"] = "attention"
    """What learns of the Q-Former beside the language model: its attention (MeCo's stage 3), or all (stage 2)."""

    def build(self, feature_width: int, width: int) -> FrameCompressor:
        """See Adapter."""
        config = InstructBlipQFormerConfig(**INSTRUCT_BLIP | self.qformer | {"encoder_hidden_size": feature_width})
        return FrameCompressor(width, config, self.queries)

    def start(self, adapter: FrameCompressor) -> None:
        """Load the public Q-Former.

        Raises:
            ValueError: no file is named, or its tensors do not fit.
        """
        if self.weights is None:
            raise ValueError(
                "the Q-Former would stay random and frozen: name its public weights "
                "(adapter: weights: instruct_blip_vicuna7b_trimmed.pth), or a `previous` run"
            )
        try:
            load_compressor(adapter, read_instruct_blip(self.weights))
        except ValueError as error:
            raise ValueError(f"{self.weights}: {error}") from None

    def tune(self, adapter: FrameCompressor, aligning: bool) -> None:
        """Only the projections in stage 1; later what ``tuned`` says."""
        adapter.tune("projector" if aligning else self.tuned)

    def question_tokenizer(self) -> PreTrainedTokenizerBase:
        """Of BERT; of a long question the end is kept.

        Raises:
            ValueError: there is no such tokenizer, or it has more words than the Q-Former.
        """
        tokenizer = load_tokenizer(self.tokenizer, "adapter tokenizer", truncation_side="left")
        words = (INSTRUCT_BLIP | self.qformer)["vocab_size"]
        if len(tokenizer) > words:
            raise ValueError(f"adapter tokenizer {self.tokenizer!r} has {len(tokenizer)} words, the Q-Former {words}")
        return tokenizer
