"""What a run trains on: how much of each source, and which videos it is also evaluated on."""

from collections import Counter
from collections.abc import Sequence

from lightning.fabric.utilities.warnings import PossibleUserWarning
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_warn

from command_line.tables import print_table
from datamodules.leakage import overlap
from datamodules.schema import Query
from datamodules.sources import Source

NAMED = 3
"""Shared videos that the warning names."""


class TrainingData(Callback):
    """When training starts: logs fingerprints of the data, prints and logs the mixture, and warns of videos that
    are in ``data.val`` too.
    """

    def on_train_start(self, trainer, pl_module) -> None:
        """By now all loaders were made. Rank 0 alone does it, and no other waits."""
        if not trainer.is_global_zero:
            return
        data = trainer.datamodule
        if trainer.loggers:
            prints = {split: fingerprints(data.sources[split]) for split in ("train", "val")}
            for logger in trainer.loggers:
                logger.log_hyperparams({"fingerprints": prints})
        if len(data.mixture) > 1:
            rows = [(source.queries, source.weight, part.samples, part.draws) for source, part in data.mixture]
            print_table(f"training data, seed {data.seed}", ("source", "weight", "queries", "drawn an epoch"), rows)
            drawn = Counter()
            for source, part in data.mixture:
                drawn[str(source.queries)] += part.draws
            for logger in trainer.loggers:
                logger.log_hyperparams({"drawn_an_epoch": dict(drawn)})
        if warning := leakage(data.queries.get("train", []), data.queries.get("val", [])):
            rank_zero_warn(warning, category=PossibleUserWarning)


def fingerprints(sources: Sequence[Source]) -> dict[str, str]:
    """Of each source, by its annotation file and shards or video files."""
    return {f"{source.queries} on {source.place}": source.fingerprint() for source in sources}


def leakage(training: list[Query], validation: list[Query]) -> str:
    """What to say about videos that both splits hold, in one line; nothing if there are none."""
    if not validation or not (found := overlap(training, validation)).videos:
        return ""
    names, more = list(found.videos)[:NAMED], len(found.videos) - NAMED
    return (
        f"data.val is not unseen: {found} ({', '.join(names)}{f' and {more} more' if more > 0 else ''}), "
        f"with {found.evaluation_queries} of {len(validation)} queries. Its scores are {found.setting}"
    )
