"""The layout of a folder of feature shards.

A folder holds ``index.json`` (the header and the list of finished shards), ``shard-000000.tar`` and beside each tar its
``shard-000000.index.json`` (where every member lies). The tars hold records, see ``datamodules.records``.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from datamodules.record_schema import FOLDER_INDEX, SHARD_INDEX
from datamodules.records import FeatureHeader
from datamodules.strict_json import brief, decode

FORMAT = "whenlm-shards-1"
INDEX = "index.json"


def write_json(path: Path, content: Mapping) -> None:
    """Write an index, which is there whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(content, indent=1 if path.name == INDEX else None) + "\n")
    os.replace(partial, path)


def read_json(path: Path) -> dict:
    """The index of a folder or of a shard; raise naming the file if it is missing or no such index."""
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing; without it the shards cannot be read (prepare.py features writes it)"
        )
    try:
        content = decode(path.read_bytes())
        if isinstance(content, dict) and content.get("format", FORMAT) != FORMAT:
            raise ValueError(f"format {brief(content['format'])} is not {FORMAT!r}")
        (FOLDER_INDEX if path.name == INDEX else SHARD_INDEX).check(content)
        return content
    except ValueError as error:
        raise ValueError(f"{path}: not an index of feature shards ({error}); extract the features again") from None


def read_folder(folder: Path) -> tuple[FeatureHeader, list[dict]]:
    """The header and the shard list of a folder's index."""
    path = folder / INDEX
    content = read_json(path)
    files = [shard["file"] for shard in content["shards"]]
    for name in files:
        if Path(name).name != name or "\0" in name:
            raise ValueError(f"{path}: shard {name!r} lies outside the folder; extract the features again")
    if twice := [name for name, count in Counter(files).items() if count > 1]:
        raise ValueError(f"{path}: shard {twice[0]!r} is listed twice; extract the features again")
    return FeatureHeader(**content["header"]), content["shards"]


def read_places(tar: Path, size: int) -> list[dict]:
    """Where the records of a shard lie.

    Args:
        tar: the shard.
        size: its bytes.

    Raises:
        ValueError: naming the index; it is damaged, or a member lies outside the tar.
    """
    path = index_path(tar)
    records = read_json(path)["records"]
    for record in records:
        if what := misplaced(record, size):
            raise ValueError(f"{path}: record {record['id']!r}: {what}; extract the features again")
    return records


def misplaced(record: Mapping, size: int) -> str:
    """What is wrong with the places of a record in a tar of ``size`` bytes; nothing where they can be read."""
    for name in ("features.npy", "video.json"):
        if name not in record["members"]:
            return f"the index has no {name}"
    for name, (at, length) in record["members"].items():
        if at + length > size:
            return f"{name} ends at byte {at + length}, the tar has {size}"
    return ""


def index_path(tar: Path) -> Path:
    """Where the index of a shard lies."""
    return tar.with_suffix(".index.json")


def check_size(tar: Path, size: int) -> None:
    """Raise if a tar is missing or has another size than its index says."""
    remedy = f"copy it again from its source, or delete it and {index_path(tar).name} and extract its videos again"
    if not tar.is_file():
        raise FileNotFoundError(f"{tar} is missing; {remedy}")
    if tar.stat().st_size != size:
        raise ValueError(f"{tar} has {tar.stat().st_size} bytes, its index says {size}: truncated or changed; {remedy}")


def check_checksum(tar: Path, sha256: str) -> None:
    """Raise ValueError if the bytes of a tar are not those that its index was written for."""
    with open(tar, "rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
            raise ValueError(f"{tar}: the checksum differs from {INDEX}: changed; prepare.py verify says which videos")
