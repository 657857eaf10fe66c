"""Where a command keeps things, and whether files that it is given are there, asked before its libraries are loaded."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """Where what can be made again is kept: ``$WHENLM_CACHE``, or else ``whenlm`` in the user's cache folder."""
    if own := os.environ.get("WHENLM_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "whenlm"


def check_there(**paths: Path | str | None) -> None:
    """Refuse paths that are not there.

    Args:
        **paths: by the name of the option; None: it was not given.

    Raises:
        FileNotFoundError: naming the option and the path.
    """
    for name, path in paths.items():
        if path is not None and not Path(path).exists():
            raise FileNotFoundError(f"--{name} {path} is missing: there is no such file or folder")


def check_run(checkpoint: Path) -> None:
    """Refuse a run that is not there. Raises ValueError as ``models.checkpoints.read_weights`` does."""
    if not Path(checkpoint).exists():
        raise ValueError(f"{checkpoint} holds no trained weights: there is no such file or folder")
