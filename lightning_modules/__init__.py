"""Training stages. Configs name them as ``lightning_modules.FeatureAlignment`` and so on."""

from lightning_modules.baseline import Baseline
from lightning_modules.boundary_perception import BoundaryPerception
from lightning_modules.expert_tuning import ExpertTuning
from lightning_modules.feature_alignment import FeatureAlignment
from lightning_modules.instruction_tuning import InstructionTuning
from lightning_modules.preference_tuning import PreferenceTuning

__all__ = [
    "Baseline",
    "BoundaryPerception",
    "ExpertTuning",
    "FeatureAlignment",
    "InstructionTuning",
    "PreferenceTuning",
]
