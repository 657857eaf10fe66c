"""``manifest.json`` of a weights folder: what made the weights, and which parts they have.

Version 2 lists the parts with the count and the fingerprint of their tensors. Version 1, which names no version, does
not; its folders are read, but a part that is missing cannot be noticed in all of them.
"""

import json
import os
from pathlib import Path
from typing import Annotated, Any, NotRequired

from pydantic import Field, with_config
from typing_extensions import TypedDict

from datamodules.record_schema import HeaderRecord
from datamodules.strict_json import STRICT, Count, Name, Number, Schema, Words, decode, read
from models.tensor_files import fingerprint_of
from models.weights import EXPERTS, Weights, lora_from

MANIFEST = "manifest.json"
VERSION = 2
UNUSUAL_LORA = ("use_rslora", "use_dora", "rank_pattern", "alpha_pattern", "fan_in_fan_out", "lora_bias")
"""Settings with which a LoRA is merged in another way."""


@with_config(STRICT)
class Made(TypedDict):
    """An object by its class and settings, as configs write it."""

    class_path: Name
    init_args: NotRequired[dict[Words, Any]]


@with_config(STRICT)
class Base(TypedDict):
    """The base model."""

    name: Name
    fingerprint: Name
    dtype: NotRequired[Name]
    tensors: NotRequired[Name]


@with_config(STRICT)
class Part(TypedDict):
    """One file of tensors."""

    tensors: Count
    sha256: Name


@with_config(STRICT)
class Manifest(TypedDict):
    """See ``lightning_modules.weights_folder.manifest``."""

    version: NotRequired[Annotated[Count, Field(ge=1)]]
    parts: NotRequired[dict[Name, Part]]
    stage: Name
    base: NotRequired[Base | None]
    localizer: NotRequired[Made]
    chat: NotRequired[Name | dict[Words, Any]]
    system: NotRequired[Words | None]
    style: NotRequired[Name]
    adapter: NotRequired[Made]
    feature_width: NotRequired[Annotated[Count, Field(ge=1)]]
    spatial: NotRequired[Name | None]
    quantization: NotRequired[Name | None]
    generation: NotRequired[dict[Words, Any]]
    features: NotRequired[HeaderRecord | None]
    trained: NotRequired[dict[Words, Count]]
    weights: NotRequired[dict[Words, Any]]


class LoraSettings(TypedDict):
    """``adapter_config.json`` as far as it matters; PEFT writes more."""

    r: Annotated[Count, Field(ge=1)]
    lora_alpha: Annotated[Number, Field(gt=0)]
    lora_dropout: NotRequired[Annotated[Number, Field(ge=0, lt=1)] | None]
    target_modules: Name | list[Name]


SCHEMA, LORA_SCHEMA = Schema(Manifest), Schema(LoraSettings)


def read_manifest(folder: Path) -> tuple[dict, dict[str, dict] | None]:
    """What made the weights of a folder, and its parts; None: of version 1, which does not list them.

    Raises:
        ValueError: naming file and key; it is damaged, or of a later version.
    """
    path = folder / MANIFEST
    content = read(path)
    try:
        if isinstance(content, dict) and content.get("version", 1) not in (1, VERSION):
            raise ValueError(f"version {content['version']!r} is of another WhenLM; this one reads 1 to {VERSION}")
        SCHEMA.check(content)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    version, parts = content.pop("version", 1), content.pop("parts", None)
    if version == VERSION and parts is None:
        raise ValueError(f"{path}: key 'parts' is missing")
    return content, parts if version == VERSION else None


def write_manifest(folder: Path, weights: Weights) -> None:
    """Write the manifest, whole or not at all; it comes last, so that a folder with one has all of its parts."""
    parts = {
        name: {"tensors": len(tensors), "sha256": fingerprint_of(tensors)} for name, tensors in weights.parts.items()
    }
    partial = folder / f".{MANIFEST}.partial"
    partial.write_text(json.dumps({"version": VERSION, **weights.manifest, "parts": parts}, indent=2) + "\n")
    os.replace(partial, folder / MANIFEST)


def check_parts(folder: Path, weights: Weights, listed: dict[str, dict] | None) -> None:
    """Hold the parts of a folder against its manifest.

    Raises:
        ValueError: a part is missing, is not listed, or has changed.
    """
    if listed is None:
        return
    path, found = folder / MANIFEST, weights.parts
    for name in sorted(listed.keys() | found.keys()):
        if name not in found:
            raise ValueError(f"{path} lists the part {name}, which is not in the folder; copy the whole folder again")
        if name not in listed:
            raise ValueError(f"{path} does not list the part {name}, which is in the folder: it is of other weights")
        if len(found[name]) != listed[name]["tensors"]:
            count = listed[name]["tensors"]
            raise ValueError(f"{folder}: {name} has {len(found[name])} tensors, {MANIFEST} says {count}; copy it again")
        if fingerprint_of(found[name]) != listed[name]["sha256"]:
            raise ValueError(f"{folder}: the tensors of {name} are not those that {MANIFEST} lists; copy it again")


def lora_names(folder: Path) -> list[str]:
    """Names of the LoRA folders in the order in which they are merged. Raises ValueError where one is missing."""
    found = {path.name for path in folder.glob("lora-*")}
    names = [f"lora-{number}" for number in range(1, len(found) + 1)]
    if missing := sorted(set(names) - found):
        raise ValueError(f"{folder} has {', '.join(sorted(found))}, but no {missing[0]}; copy the whole folder again")
    return names


def expert_names(folder: Path) -> list[str]:
    """Names of the experts in a folder."""
    return [name for name in EXPERTS if (folder / name).is_dir()]


def read_lora_config(path: Path):
    """PEFT's ``adapter_config.json``.

    Raises:
        ValueError: naming file and key; it is damaged, or of a LoRA that is merged in another way than a plain one.
        OSError: it is not there, or cannot be read.
    """
    try:
        settings = decode(path.read_bytes())
        LORA_SCHEMA.check(settings)
        if other := [name for name in UNUSUAL_LORA if settings.get(name)]:
            raise ValueError(f"a LoRA with {', '.join(other)} is not understood")
        if settings.get("peft_type", "LORA") != "LORA" or settings.get("bias") not in (None, "none"):
            raise ValueError("only plain LoRAs are understood (peft_type LORA, bias none)")
        return lora_from(settings)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from None
