"""Training stops where its numbers are none any more."""

from pathlib import Path

import torch
import torch.distributed as dist
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from callbacks.step_log import StepLog
from command_line.tables import shown
from models.finite import not_finite

NAMED = 8
"""Queries of a batch that a message names."""
OVERFLOWS = 40
"""Steps in a row that a gradient scaler (float16) may leave out before its scale is as good as zero."""


class NotFinite(ValueError):
    """A loss, a gradient or a weight is NaN or infinite; ``elsewhere``, where another process says of what."""

    elsewhere = False


class FiniteSteps(Callback):
    """Looks at loss and gradient before each optimiser step, and at the weights before each checkpoint.

    One number comes from the device for it, once a step. All processes learn of it together.

    Args:
        step_log: has the norm of the gradients; stands before this one.
        most: steps that are left out, over the whole run, before training stops.
    """

    def __init__(self, step_log: StepLog, most: int = 0):
        self.step_log, self.most = step_log, most
        self.left_out = self._in_a_row = 0
        self._ids: list[list[str]] = []
        self._losses: list[Tensor] = []

    def state_dict(self) -> dict:
        """How many were left out."""
        return {"left_out": self.left_out}

    def load_state_dict(self, state: dict) -> None:
        """Go on counting."""
        self.left_out = state["left_out"]

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx: int) -> None:
        """Know what the loss is of."""
        self._ids.append([query.id for query in batch.queries])

    def on_before_backward(self, trainer, pl_module, loss: Tensor) -> None:
        """Keep the loss on its device."""
        self._losses.append(loss.detach())

    def on_before_optimizer_step(self, trainer, pl_module, optimizer: torch.optim.Optimizer) -> None:
        """Stop, or leave the step out.

        Raises:
            NotFinite: naming step, queries and the newest checkpoint.
        """
        norm = self.step_log.norm.detach().float().reshape(1)
        values = torch.cat([loss.float().reshape(1).to(norm.device) for loss in self._losses] + [norm])
        broken = ~values.isfinite()
        scaled = getattr(trainer.precision_plugin, "scaler", None) is not None
        if scaled:  # an overflow is the scaler's affair: it leaves the step out and lowers its scale
            broken[-1] &= self._in_a_row >= OVERFLOWS
        flags = broken.tolist()
        anywhere = _anywhere(any(flags), norm.device) if trainer.world_size > 1 else any(flags)
        self._in_a_row = self._in_a_row + 1 if scaled and not bool(norm.isfinite()) else 0
        ids, losses, self._ids, self._losses = self._ids, self._losses, [], []
        if not anywhere:
            return
        self.left_out += 1
        what = _what(flags, losses, float(norm), ids)
        if self.left_out > self.most:
            error = NotFinite(f"step {trainer.global_step}: {what}; {_last_good(trainer)}")
            error.elsewhere = not any(flags)
            raise error
        rank_zero_warn(f"step {trainer.global_step} was left out ({self.left_out} of at most {self.most}): {what}")
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = None  # AdamW passes over what has none, its decay included

    def on_save_checkpoint(self, trainer, pl_module, checkpoint: dict) -> None:
        """Keep no checkpoint that training cannot go on from. Raises NotFinite."""
        broken = not_finite((n, _local(p)) for n, p in pl_module.named_parameters() if p.requires_grad)
        device = pl_module.device
        if _anywhere(bool(broken), device) if trainer.world_size > 1 else broken:
            first = f", first {broken[0]}" if broken else ""
            what = f"{len(broken)} of the tensors that learn hold NaN or infinity{first}"
            raise NotFinite(f"behind step {trainer.global_step}: {what}; {_last_good(trainer)}")


def _local(parameter: Tensor) -> Tensor:
    """This process's part of it."""
    return parameter.to_local() if hasattr(parameter, "to_local") else parameter


def _anywhere(mine: bool, device: torch.device) -> bool:
    """Whether it is so on any process; all must call it."""
    flag = torch.tensor(int(mine), device=device)
    dist.all_reduce(flag, op=dist.ReduceOp.MAX)
    return bool(flag)


def _what(flags: list[bool], losses: list[Tensor], norm: float, ids: list[list[str]]) -> str:
    """Which number is none, and the queries that it is of."""
    if not any(flags):
        return "a loss or gradient of another process is not finite"
    number = next((place for place, broken in enumerate(flags[:-1]) if broken), None)
    if number is None:
        what, found = f"the norm of the gradient is {norm}", [query for part in ids for query in part]
    else:
        what, found = f"the loss is {float(losses[number])}", ids[number] if number < len(ids) else []
    more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
    return f"{what}, of the queries {', '.join(shown(query) for query in found[:NAMED])}{more}"


def _last_good(trainer) -> str:
    """What a run can go on from, and how."""
    remedy = (
        "try a lower rate (--model.optimization.lr), clipping (--trainer.gradient_clip_val) or --nonfinite_steps N, "
        "which leaves out N such steps"
    )
    kept = [path for path in map(Path, _kept(trainer)) if path.is_file()]
    if not kept:
        return f"there is no checkpoint yet; {remedy}"
    return f"the last good checkpoint is {kept[0]}; {remedy}, with --resume true --resume_changed true"


def _kept(trainer) -> list[str]:
    callback = trainer.checkpoint_callback
    return [path for path in (callback.last_model_path, callback.best_model_path) if path] if callback else []
