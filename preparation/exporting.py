"""A run as a folder that other people can load: PEFT adapters, safetensors, and a card that says what they are."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from datamodules.strict_json import read_object
from models.checkpoints import Weights, read_weights, write_weights
from models.training_checkpoints import read_checkpoint
from reports.card import write_card


def read(checkpoint: Path, previous: Path | None = None) -> Weights:
    """The weights of a run folder, a weights folder or a checkpoint, whose stage before may lie in ``previous``."""
    if checkpoint.suffix != ".ckpt":
        return read_weights(checkpoint)
    weights = read_checkpoint(checkpoint, previous)
    weights.manifest["weights"] = {"checkpoint": checkpoint.name}
    return weights


def export(
    weights: Weights,
    checkpoint: Path,
    folder: Path,
    results: Sequence[Path] = (),
    base: str | None = None,
    encoder: str | None = None,
    public: bool = False,
) -> Weights:
    """Write what was trained, with a card.

    Args:
        weights: what was trained.
        checkpoint: where it was read.
        folder: new or empty.
        results: folders of ``evaluate.py benchmark`` that the card reports.
        base: name under which others load the base model; None: the one the run names.
        encoder: name under which others load the vision encoder; None: the one the run names.
        public: both must be names that others can load.

    Returns:
        what was written.

    Raises:
        ValueError: the folder is not empty, a folder of results has none, or a name is one of this machine.
    """
    if folder.is_dir() and any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty; choose another --to")
    reports = {result.name: _report(result) for result in results}
    weights = named(weights, base, encoder)
    if public:
        check_names(weights)
    write_weights(folder, weights)
    write_card(folder, checkpoint.parent.parent if checkpoint.suffix == ".ckpt" else checkpoint, reports)
    return weights


def _report(folder: Path) -> dict:
    try:
        report = read_object(folder / "metrics.json")
        return {"metrics": dict(report["metrics"]), "protocol": dict(report["protocol"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder} holds no metrics.json of evaluate.py: {error}") from None


def named(weights: Weights, base: str | None, encoder: str | None) -> Weights:
    """The same weights, which name their base and encoder as others know them; PEFT files name the base too."""
    manifest = dict(weights.manifest)
    if base:
        manifest["base"] = {**(manifest.get("base") or {}), "name": base}
    if encoder:
        manifest["features"] = {**(manifest.get("features") or {}), "encoder": encoder}
    name = (manifest.get("base") or {}).get("name")
    for lora in (*weights.loras, *weights.experts.values()):
        lora.config.base_model_name_or_path = name
        lora.config.inference_mode = True
    return replace(weights, manifest=manifest)


def push(folder: Path, weights: Weights, repository: str) -> str:
    """Upload a folder with the hub's own client; a repository that is not there yet is made, and is private.

    Args:
        folder: that was exported.
        weights: what is in it.
        repository: ``NAME`` or ``OWNER/NAME``.

    Returns:
        its address.

    Raises:
        ValueError: nobody is logged in, or the hub says no.
    """
    from huggingface_hub import HfApi

    try:
        api = HfApi()
        made = api.create_repo(repository, private=True, exist_ok=True)
        api.upload_folder(repo_id=made.repo_id, folder_path=folder, commit_message="Weights and card")
    except Exception as error:  # noqa: BLE001 (the client raises errors of its transport, whichever that is)
        raise ValueError(f"{folder} is written, but the hub did not take it: {str(error).splitlines()[0]}") from error
    return str(made)


def check_names(weights: Weights) -> None:
    """Raise ValueError if others could not load what the weights name: folders of this machine."""
    base, features = weights.manifest.get("base") or {}, weights.manifest.get("features") or {}
    for option, name in (("base", base.get("name")), ("encoder", features.get("encoder"))):
        if name and (Path(name).is_absolute() or Path(name).is_dir()):
            raise ValueError(
                f"the {option} is {name}, a folder of this machine; give its name on the hub: --{option} NAME"
            )


def sizes(weights: Weights) -> dict[str, str]:
    """How many numbers each part of the weights has."""
    parts = {"adapter": weights.adapter, "head": weights.head}
    parts |= {f"lora-{number}": lora.tensors for number, lora in enumerate(weights.loras, 1)}
    parts |= {name: expert.tensors for name, expert in weights.experts.items()}
    return {name: f"{sum(t.numel() for t in tensors.values()):,} numbers" for name, tensors in parts.items() if tensors}
