"""Leaves out what libraries say at each start and nobody can act on."""

import logging
import warnings

WARNINGS = (
    r".*Checkpoint directory .* exists and is not empty",
    r".*Experiment logs directory .* exists and is not empty",
    r".*recommended to use `self.log\(.*sync_dist=True\)",
    r".*Total length of `.*` across ranks is zero",
    r".*does not have many workers which may be a bottleneck",
    r".*The number of training batches .* is smaller than the logging interval",
    r".*LeafSpec",
    r".*`?isinstance\(treespec, LeafSpec\)",
    r".*is_gradient_checkpointing",
    r".*copying from a non-meta parameter in the checkpoint to a meta parameter",
    r".*``compute`` method of metric .* was called before the ``update`` method",
    r".*MatMul8bitLt: inputs will be cast",
    r".*Found .* module\(s\) in eval mode at the start of training",
    r".*skip_none parameter was deprecated",
    r".*`lr_scheduler.step\(\)` before `optimizer.step\(\)`",
)
"""Beginnings of warnings. What a user can act on is not among them."""
LOGS = ("litlogger", "litmodels", "Tip:", "Total FLOPs", "💡", "Using default `ModelCheckpoint`")
"""Parts of log lines."""


def only_what_matters() -> None:
    """Silence these in this process and in data workers that it starts."""
    for message in WARNINGS:
        warnings.filterwarnings("ignore", message)
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.rank_zero", "lightning.pytorch"):
        logging.getLogger(name).addFilter(_matters)


def _matters(record: logging.LogRecord) -> bool:
    return not any(part in record.getMessage() for part in LOGS)
