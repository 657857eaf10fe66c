"""What was left out of training, and why."""

from collections import Counter

import torch.distributed as dist
from lightning.pytorch.callbacks import Callback

from callbacks.reporting import only_reported
from command_line.tables import print_table


class SkippedData(Callback):
    """Counts samples that were skipped or cut, over all ranks, and prints a table when training ends."""

    def __init__(self):
        self.counts: Counter = Counter()
        """Of this rank, since the run was started or resumed."""
        self.earlier: Counter = Counter()
        """Of all ranks, before the run was resumed."""

    def total(self) -> Counter:
        """Counts of all ranks; every rank must call it."""
        gathered = [self.counts]
        if dist.is_available() and dist.is_initialized():
            gathered = [None] * dist.get_world_size()
            dist.all_gather_object(gathered, self.counts)
        return sum(gathered, self.earlier)

    def state_dict(self) -> dict:
        """The counts so far. Lightning asks every rank, and keeps what rank 0 answers."""
        return {"counts": dict(self.total())}

    def load_state_dict(self, state: dict) -> None:
        """Go on counting."""
        self.earlier = Counter(state["counts"])

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx: int) -> None:
        """Add the batch's counts."""
        self.counts += batch.counts

    def on_fit_end(self, trainer, pl_module) -> None:
        """Sum over ranks and print."""
        total = self.total() + getattr(trainer.datamodule, "skipped", Counter())
        if not trainer.is_global_zero or not total:
            return
        with only_reported("the table of skipped data"):
            print_table("Data that was not used as it is", ("left out or cut", "samples"), total.most_common())
