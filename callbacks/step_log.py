"""What every optimiser step learned, in the loggers."""

from collections.abc import Iterable
from typing import Protocol

import torch
import torch.distributed as dist
from lightning.pytorch.callbacks import Callback, RichProgressBar
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.nn.utils import get_total_norm

from callbacks.reporting import only_reported
from callbacks.skipped import SkippedData
from callbacks.throughput import Throughput

Sums = dict[str, list]
"""Name -> [sum, weight]; tensors stay on their device until they are written."""


class Listener(Protocol):
    """Takes rows of numbers; Lightning's loggers do."""

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        """One row."""


class StepLog(Callback):
    """Logs losses (the mean over accumulated batches and processes), gradient norm and learning rates of each step.

    Numbers stay on the device until ``trainer.log_every_n_steps`` steps are together, a checkpoint is saved, validation
    begins or training ends. Then they come over at once, are exchanged between processes, and every step has its row;
    the last one also has the rates of ``throughput`` and what ``skipped`` has counted.

    Args:
        throughput: measures time and tokens.
        skipped: counts the samples that were left out or cut.
        listeners: get the rows beside the trainer's loggers.
    """

    def __init__(self, throughput: Throughput, skipped: SkippedData, *listeners: Listener):
        self.throughput, self.skipped, self.listeners = throughput, skipped, listeners
        self.rows: list[tuple[int, Sums]] = []
        """Steps that were not written yet."""
        self.latest: dict[str, float] = {}
        """The last row that was written."""
        self.trainer = None
        self.norm = torch.zeros(())
        """Of the gradients of the step that comes next."""
        self._sums: Sums = {}
        self._step = 0

    def on_train_start(self, trainer, pl_module) -> None:
        """Begin behind the steps of a run that goes on."""
        self.trainer, self._step = trainer, trainer.global_step

    def on_before_optimizer_step(self, trainer, pl_module, optimizer: torch.optim.Optimizer) -> None:
        """Add the gradient norm before clipping."""
        groups = optimizer.param_groups
        gradients = [p.grad for group in groups for p in group["params"] if p.grad is not None]
        self.norm = gradient_norm(gradients)
        self._add("train/grad_norm", self.norm, 1)

    def on_train_batch_end(self, trainer, pl_module, outputs: dict, batch, batch_idx: int) -> None:
        """Add a batch; behind a step, close its row, and write now and then."""
        for name, (total, weight) in outputs["terms"].items():
            self._add(f"train/{name}", total, weight)
        if trainer.global_step == self._step:
            return
        self._step = trainer.global_step
        for name, value in learning_rates(trainer.optimizers).items():
            self._add(name, value, 1)
        for name, value in pl_module.localizer.gauges(pl_module.model.head).items():
            self._add(f"train/{name}", value, 1)
        self.rows.append((self._step - 1, self._sums))  # the first step is step 0, as Lightning counts
        self._sums = {}
        every = trainer.log_every_n_steps
        if every and (self._step % every == 0 or self._step == 1):
            self.write()

    def on_validation_start(self, trainer, pl_module) -> None:
        """Write what comes before the scores."""
        if not trainer.sanity_checking:
            self.write()

    def on_train_end(self, trainer, pl_module) -> None:
        """Write the last steps."""
        self.write()

    def state_dict(self) -> dict:
        """Nothing to keep, once everything is written."""
        self.write()
        return {}

    def _add(self, name: str, total: Tensor | float, weight: Tensor | float) -> None:
        entry = self._sums.setdefault(name, [0.0, 0.0])
        entry[0], entry[1] = entry[0] + total, entry[1] + weight

    def write(self) -> None:
        """Exchange the finished rows between processes and hand them to loggers and listeners, on rank 0."""
        if not self.rows:
            return
        rows, self.rows = on_host(self.rows), []
        parts, skipped = [rows], [self.skipped.counts.total()]
        if dist.is_available() and dist.is_initialized():
            gathered = [None] * dist.get_world_size()
            dist.all_gather_object(gathered, (rows, skipped[0]))
            parts, skipped = zip(*gathered, strict=True)
        rates = self.throughput.rates(self.trainer)
        if not self.trainer.is_global_zero:
            return
        means = [(step, mean(part[number][1] for part in parts)) for number, (step, _) in enumerate(rows)]
        means[-1][1].update(rates, **{"data/skipped_or_cut": sum(skipped) + self.skipped.earlier.total()})
        self.latest = means[-1][1]
        for listener in (*self.trainer.loggers, *self.listeners):
            with only_reported(f"the log ({type(listener).__name__})"):
                for step, metrics in means:
                    listener.log_metrics(metrics, step=step)
        for logger in self.trainer.loggers:
            with only_reported(f"the log ({type(logger).__name__})"):
                logger.save()


def gradient_norm(gradients: list[Tensor]) -> Tensor:
    """Of all together, also where some are split over processes and others are whole; all processes must call it."""
    split = [gradient for gradient in gradients if isinstance(gradient, DTensor)]
    whole = [gradient for gradient in gradients if not isinstance(gradient, DTensor)]
    norms = [get_total_norm(split).full_tensor()] if split else []
    norms += [get_total_norm(whole)] if whole else []
    return norms[0] if len(norms) == 1 else get_total_norm(norms)


def on_host(rows: list[tuple[int, Sums]]) -> list[tuple[int, Sums]]:
    """The same rows with plain numbers, brought from the device in one transfer."""
    values = [value for _, sums in rows for entry in sums.values() for value in entry]
    tensors = [value.detach().float() for value in values if isinstance(value, Tensor)]
    found = iter(torch.stack([tensor.to(tensors[0].device) for tensor in tensors]).tolist() if tensors else ())

    def number(value: Tensor | float) -> float:
        return next(found) if isinstance(value, Tensor) else value

    return [(step, {name: [number(value) for value in entry] for name, entry in sums.items()}) for step, sums in rows]


def mean(parts: Iterable[Sums]) -> dict[str, float]:
    """The weighted mean over processes of each name that has any weight."""
    together: Sums = {}
    for sums in parts:
        for name, (total, weight) in sums.items():
            entry = together.setdefault(name, [0.0, 0.0])
            entry[0], entry[1] = entry[0] + total, entry[1] + weight
    return {name: total / weight for name, (total, weight) in together.items() if weight}


def learning_rates(optimizers: list[torch.optim.Optimizer]) -> dict[str, float]:
    """``lr``, or ``lr/pg1``, ``lr/pg2``, .. where groups have their own."""
    (optimizer,) = optimizers
    rates = [group["lr"] for group in optimizer.param_groups]
    return {"lr": rates[0]} if len(rates) == 1 else {f"lr/pg{place}": rate for place, rate in enumerate(rates, 1)}


class StepBar(RichProgressBar):
    """A progress bar beside which the last written losses stand; to show newer ones it would wait for the device."""

    def __init__(self, step_log: StepLog):
        super().__init__()
        self.step_log = step_log

    def get_metrics(self, trainer, pl_module) -> dict[str, float]:
        """The losses."""
        return {name: value for name, value in self.step_log.latest.items() if name.endswith("loss")}
