"""What a module writes into its weights folder, and what it refuses to start from."""

from dataclasses import asdict
from functools import partial
from pathlib import Path

import lightning as L
from lightning.pytorch.loggers import WandbLogger
from torch import Tensor, nn

from callbacks.resuming import BestCheckpoint
from command_line.tables import say
from datamodules.chat_formats import CHAT_FORMATS
from datamodules.records import FeatureHeader
from lightning_modules.run_folder import whole_folder
from models.checkpoints import check_keys, write_weights
from models.finite import check_finite
from models.training_checkpoints import read_checkpoint


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
        "quantization": module.quantization,
        "generation": asdict(module.answering.generation),
        "features": asdict(header) if header else None,
        "trained": {
            "numbers": sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad),
            "new_tokens": len(module.dialogue.special),
        },
    }


def save_trained(folder: Path, trainer: L.Trainer, best: BestCheckpoint | None) -> None:
    """Write what a run leaves behind, on rank 0: its best weights where something was monitored, else its last ones.

    Args:
        folder: of the weights.
        trainer: that has trained a ``VideoLanguageModule``.
        best: what kept the best weights; None: nothing was monitored.
    """
    module, about = trainer.lightning_module, {"checkpoint": "last", "step": trainer.global_step}
    header = trainer.datamodule.header
    if best is not None and best.best_model_path:
        if not trainer.is_global_zero:
            return
        about = best.describe()
        weights = read_checkpoint(Path(best.best_model_path))
    else:
        weights = module.weights(header)
    check_finite(weights.parts, f"the weights of step {about['step']}")
    weights.manifest["weights"] = about
    if trainer.is_global_zero:
        whole_folder(folder, partial(write_weights, weights=weights))
        note_artifact(trainer.loggers, folder, about)
        chosen = f"best {about['monitor']}: {about['score']:.2f}" if "score" in about else "the last ones"
        say(f"\nTrained weights: {folder} ({chosen}, step {about['step']})")


def note_artifact(loggers: list, folder: Path, about: dict) -> None:
    """Name the weights in W&B by reference: nothing is uploaded."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            import wandb

            artifact = wandb.Artifact(f"weights-{logger.experiment.id}", "model", metadata=about)
            artifact.add_reference(f"file://{folder.absolute()}", checksum=False)
            logger.experiment.log_artifact(artifact)


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
        ValueError: the fingerprints differ, or those of all numbers, where both are known and of the same precision.
    """
    if theirs is None:
        return
    keys = ["fingerprint"]
    if "tensors" in mine and "tensors" in theirs and mine["dtype"] == theirs["dtype"]:
        keys.append("tensors")
    for key in keys:
        if theirs[key] != mine[key]:
            raise ValueError(
                f"{whose} was trained on the base model {theirs['name']} (fingerprint {theirs[key]}), "
                f"not on {mine['name']} (fingerprint {mine[key]}); give the same llm"
            )
