"""VideoExpert: two experts learn in one language model, one on the frames, one on everything else."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from transformers import PreTrainedModel

from lightning_modules.boundary_perception import BoundaryPerception, LoraSettings
from models.checkpoints import Lora, Weights, add_lora, lora_config
from models.routed_lora import add_experts, expert_configs
from models.video_llm import VideoLLM

if TYPE_CHECKING:
    from peft import LoraConfig


@dataclass(frozen=True)
class ExpertSettings:
    """A rank, shared out to two experts (VideoExpert, Fig. 5)."""

    rank: int = 64
    """Of both together."""
    temporal_share: float = 0.5
    """Part of the rank that the temporal expert has; an expert of rank 0 is absent."""
    scale: float = 2.0
    """alpha / rank, of both."""
    dropout: float = 0.05
    target_modules: str | list[str] = "all-linear"
    """Names of the layers they sit on; ``all-linear``: all of the language model but the output layer."""
    joint: bool = False
    """One LoRA of the whole rank for all positions instead (Table VII, "no experts")."""


class ExpertTuning(BoundaryPerception):
    """Pre-training and fine-tuning of VideoExpert (section 3). Rows of new tokens belong to the spatial expert.

    Args:
        experts: size of the experts that learn.
        tune_adapter: also train the visual adapter, which has not seen patch tokens before.
        **settings: of ``VideoLanguageModule``.
    """

    takes_experts: ClassVar[bool] = True
    takes_loras: ClassVar[bool] = True

    def __init__(
        self,
        *args,
        experts: ExpertSettings = ExpertSettings(),  # noqa: B008 (frozen)
        tune_adapter: bool = True,
        **settings,
    ):
        joint = LoraSettings(experts.rank, experts.rank * experts.scale, experts.dropout, experts.target_modules)
        super().__init__(*args, lora=joint, tune_adapter=tune_adapter, **settings)
        self.experts = experts

    def check_previous(self, weights: Weights) -> None:
        """Refuse a LoRA where experts are asked for, or the other way round, or either of other sizes."""
        super().check_previous(weights)
        trained = self._trained(weights)
        found, wanted = sizes({name: lora.config for name, lora in trained.items()}), sizes(self._shapes())
        if trained and found != wanted:
            raise ValueError(f"{self.previous} has {found}, the settings of the experts ask for {wanted}")

    def build(self, llm: PreTrainedModel, weights: Weights) -> VideoLLM:
        """New experts on the base, or those of ``previous``, trained further."""
        llm, configs, trained = self.base_with(llm), self.configs(llm), self._trained(weights)
        tensors = {name: lora.tensors for name, lora in trained.items()} or None
        if self.experts.joint:
            llm = add_lora(llm, configs["joint"], tensors and tensors["joint"])
        else:
            llm = add_experts(llm, configs.get("temporal"), configs.get("spatial"), tensors)
        return self.assemble(llm, weights)

    def configs(self, llm: PreTrainedModel) -> dict[str, "LoraConfig"]:
        """Configuration of each LoRA that learns, by name; the last one has the rows of new tokens."""
        joint = self.new_lora(llm)
        configs = {"joint": joint} if self.experts.joint else self._shapes()
        list(configs.values())[-1].trainable_token_indices = joint.trainable_token_indices
        return configs

    def _shapes(self) -> dict[str, "LoraConfig"]:
        """The same, without tokens."""
        settings = self.experts
        shape = settings.rank, settings.temporal_share, settings.scale, settings.dropout, settings.target_modules
        if settings.joint:
            return {"joint": lora_config(settings.rank, settings.rank * settings.scale, *shape[3:])}
        both = expert_configs(*shape)
        return {name: config for name, config in zip(("temporal", "spatial"), both, strict=True) if config}

    def _trained(self, weights: Weights) -> dict[str, Lora]:
        """What ``previous`` holds already, by name."""
        joint = {"joint" if number == 1 else f"lora-{number}": lora for number, lora in enumerate(weights.loras, 1)}
        return joint | weights.experts


def sizes(configs: dict[str, "LoraConfig"]) -> str:
    """Rank and alpha of each LoRA, for people and to compare."""
    return ", ".join(f"{name} (r {config.r}, alpha {config.lora_alpha:g})" for name, config in configs.items())
