"""What the ``config.yaml`` of a run says that it was trained on."""

from collections.abc import Iterator
from pathlib import Path
from typing import NotRequired

from typing_extensions import TypedDict

from command_line.yaml_files import read_yaml
from datamodules.leakage import About
from datamodules.pairs import Queries
from datamodules.strict_json import Name, Schema


class TrainedOn(TypedDict):
    """A source of training data."""

    queries: Name


class Data(TypedDict):
    """Settings of the data."""

    train: list[TrainedOn]


class Settings(TypedDict):
    """Settings of the stage."""

    previous: NotRequired[Name | None]


class Model(TypedDict):
    """The stage."""

    init_args: Settings


class Config(TypedDict):
    """The part of a run's config that is read again."""

    data: Data
    model: Model


SCHEMA = Schema(Config)


def query_files(run: Path) -> list[Path]:
    """The annotation files that a run (or a checkpoint of it) and the stages before it were trained on.

    Raises:
        ValueError: a ``config.yaml`` is damaged, or a stage names itself as one before it.
        OSError: there is no ``config.yaml``.
    """
    found, seen, run = [], set(), Path(run)
    while run is not None:
        folder = run.parent.parent if run.suffix == ".ckpt" else run
        path = folder / "config.yaml"
        if path.resolve() in seen:
            raise ValueError(f"{path}: model.init_args.previous leads back to this run")
        seen.add(path.resolve())
        config = read_yaml(path)
        try:
            SCHEMA.check(config)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        found += [Path(source["queries"]) for source in config["data"]["train"]]
        previous = config["model"]["init_args"].get("previous")
        run = Path(previous) if previous else None
    return found


def training_queries(run: Path) -> Iterator[About]:
    """What the queries are about that a run and the stages before it were trained on.

    Raises:
        ValueError: a file of it is damaged.
        OSError: the run folder has no ``config.yaml``, or an annotation file is not there any more.
    """
    for path in query_files(run):
        yield from Queries.of_file(path).about()
