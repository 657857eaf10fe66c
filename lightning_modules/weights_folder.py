"""What a module writes into its weights folder, and what it refuses to start from."""

from dataclasses import asdict

import lightning as L
from torch import Tensor, nn

from datamodules.chat_formats import CHAT_FORMATS
from datamodules.records import FeatureHeader
from models.checkpoints import check_keys


def manifest(module: L.LightningModule, header: FeatureHeader | None) -> dict:
    """What made the weights of a ``VideoLanguageModule``, for those who go on from them.

    Args:
        module: that was trained.
        header: how the training features were made; None if that is not known.
    """
    named = module.chat in CHAT_FORMATS  # all others are written out, lest a template change
    return {
        "stage": type(module).__name__,
        "base": module.base,
        "localizer": module.localizer.config(),
        "chat": module.chat if named else asdict(module.dialogue.encoder.chat),
        "system": module.system if named else None,
        "style": module.style,
        "adapter": module.adapter_settings.config(),
        "feature_width": module.feature_width,
        "spatial": module.spatial,
        "features": asdict(header) if header else None,
    }


def load_part(what: str, part: nn.Module, tensors: dict[str, Tensor]) -> nn.Module:
    """A part of the model with the given weights, or as it is where there are none.

    Raises:
        ValueError: the weights are not those of this part.
    """
    if tensors:
        expected = {key: value.shape for key, value in part.state_dict().items()}
        check_keys(what, expected, {key: value.shape for key, value in tensors.items()})
        part.load_state_dict(tensors)
    return part


def check_base(mine: dict, theirs: dict | None, whose: str) -> None:
    """Refuse weights that were trained on another base model.

    Args:
        mine: name and fingerprint of the base that was loaded.
        theirs: those that the weights name; None if they name none (released weights).
        whose: what the weights are, for the message.

    Raises:
        ValueError: the fingerprints differ.
    """
    if theirs is not None and theirs["fingerprint"] != mine["fingerprint"]:
        raise ValueError(
            f"{whose} was trained on the base model {theirs['name']} (fingerprint {theirs['fingerprint']}), "
            f"not on {mine['name']} (fingerprint {mine['fingerprint']}); give the same llm"
        )
