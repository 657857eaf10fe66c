"""Whether files that a command is given are there: asked before the seconds that its libraries take to load."""

from pathlib import Path


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
