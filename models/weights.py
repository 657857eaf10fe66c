"""What was trained on top of a base model, in memory."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from peft import LoraConfig

EXPERTS = ("temporal", "spatial")
"""Names of the experts of ``models.routed_lora``."""
LORA_KEYS = (
    "r", "lora_alpha", "lora_dropout", "target_modules", "task_type", "modules_to_save", "trainable_token_indices",
    "ensure_weight_tying",
)  # fmt: skip
"""Settings of a LoRA that matter here. PEFT files of other versions have others beside, and may lack the last three."""


@dataclass
class Lora:
    """One low-rank adapter: its configuration and its tensors under PEFT's names."""

    config: "LoraConfig"
    tensors: dict[str, Tensor]


@dataclass
class Weights:
    """Everything that was trained on top of a base model."""

    adapter: dict[str, Tensor] = field(default_factory=dict)
    """State dict of the visual adapter; empty if there is none yet."""
    loras: list[Lora] = field(default_factory=list)
    """In the order in which they were trained and are merged."""
    manifest: dict = field(default_factory=dict)
    """What made them: base, localizer, conversation format, stage, features."""
    head: dict[str, Tensor] = field(default_factory=dict)
    """State dict of what the localizer learns on hidden states; empty if it learns nothing."""
    experts: dict[str, Lora] = field(default_factory=dict)
    """By name; they act on the base with ``loras`` merged. Empty if there are none."""

    @property
    def parts(self) -> dict[str, dict[str, Tensor]]:
        """The tensors of each part that is there, by the name that it has in a weights folder."""
        parts = {"adapter": self.adapter, "head": self.head}
        parts |= {f"lora-{number}": lora.tensors for number, lora in enumerate(self.loras, 1)}
        parts |= {name: expert.tensors for name, expert in self.experts.items()}
        return {name: tensors for name, tensors in parts.items() if tensors}


def lora_from(settings: dict) -> "LoraConfig":
    """A LoRA's configuration from settings that a file holds."""
    from peft import LoraConfig

    return LoraConfig(**{key: settings.get(key) for key in LORA_KEYS})
