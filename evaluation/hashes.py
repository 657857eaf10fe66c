"""Which file a number came from: SHA-256 of files and of folders with weights."""

import hashlib
from pathlib import Path

from datamodules.kept import file_fingerprint


def weights_hash(run: Path) -> str:
    """SHA-256 of the weights of a run folder, of a .ckpt file, or of a folder with the released weights."""
    if Path(run).is_file():
        return file_fingerprint(run)
    digest = hashlib.sha256()
    inner = Path(run) / "model" if (Path(run) / "model" / "manifest.json").is_file() else Path(run)
    for path in sorted(inner.rglob("*")):
        if path.is_file() and path.suffix in (".safetensors", ".bin", ".json"):
            digest.update(f"{path.relative_to(inner)} {file_fingerprint(path)}\n".encode())
    return digest.hexdigest()
