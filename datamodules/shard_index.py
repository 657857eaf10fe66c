"""The layout of a folder of feature shards.

A folder holds ``index.json`` (the header and the list of finished shards), ``shard-000000.tar`` and beside each tar its
``shard-000000.index.json`` (where every member lies). The tars hold records, see ``datamodules.records``.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path

from datamodules.records import FeatureHeader

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
        content = json.loads(path.read_text())
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']!r} is not {FORMAT!r}")
        return content
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: not an index of feature shards ({error}); extract the features again") from None


def read_folder(folder: Path) -> tuple[FeatureHeader, list[dict]]:
    """The header and the shard list of a folder's index."""
    path = folder / INDEX
    content = read_json(path)
    try:
        for shard in content["shards"]:
            if Path(shard["file"]).name != shard["file"]:
                raise ValueError(f"shard {shard['file']!r} lies outside the folder")
        return FeatureHeader(**content["header"]), content["shards"]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}; extract the features again") from None


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
