"""What a run is made of, in each of its checkpoints, and what it goes on with.

``torch.load(checkpoint)["run"]`` holds the settings, fingerprints of data and of the stage before, how many dialogues a
step learns from, the version of the code, and the samples of the epoch that were done. (The base has its own entry.)
"""

import json
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

from jsonargparse import Namespace
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from datamodules.shard_index import INDEX
from datamodules.sources import Source
from datamodules.temporal import TemporalDataModule
from lightning_modules.batching import StepSize
from lightning_modules.optimization import Optimization
from lightning_modules.resumed_settings import FIXED, FREE, SCHEDULE, SCORES, Change, changes
from localizers.base import Localizer

VERSION = 1
"""Of the record."""
NEW_ORDER = "the rest of this epoch is drawn anew, so samples of it may come twice or not at all"
NEW_STEPS = f"goes on at the sample where it was; {SCHEDULE}"


def made_of(config: Namespace, step: StepSize, previous: str | None, code: str) -> dict:
    """The record of a run that is about to train, without its position.

    Args:
        config: of train.py.
        step: what an optimiser step learns from.
        previous: fingerprint of the weights of the stage before; None: there is none.
        code: version of this project.
    """
    settings = json.loads(json.dumps(config.as_dict(), default=str))  # tuples and paths as a file would have them
    sources = {split: [described(source) for source in config["data"][split] or ()] for split in ("train", "val")}
    micro = {"batch_size": step.batch_size, "processes": step.processes, "accumulate": step.accumulate}
    return {
        "version": VERSION,
        "settings": settings,
        "data": sources,
        "previous": previous,
        "step": micro,
        "code": code,
    }


def described(source: Source | Namespace) -> dict:
    """A source by what is in it; by its name only where its features have no index to hash."""
    source = source if isinstance(source, Source) else Source(**vars(source))
    local = source.shards and (Path(source.shards) / INDEX).is_file()
    return {
        "content": source.fingerprint(),
        "weight": source.weight,
        "frames": source.frames,
        "place": "" if local else source.place,
    }


def compare(before: dict, now: dict, kind: type[Localizer] | None = None) -> list[Change]:
    """Everything that differs between the record of a run and what it is to go on with."""
    found = changes(before["settings"], now["settings"], kind)
    for split, rule in (("train", NEW_ORDER), ("val", SCORES)):
        old, new = before["data"][split], now["data"][split]
        if old != new:
            found.append(Change(f"data.{split}", *_unlike(old, new), rule))
    if before["previous"] != now["previous"]:
        found.append(Change("weights of model.previous", before["previous"], now["previous"], FIXED))
    old, new = StepSize(**before["step"]), StepSize(**now["step"])
    if old != new:
        found.append(Change("what a step learns from:", old, new, _rule_of_step(old, new, now["settings"])))
    return found


def _unlike(old: Sequence[dict], new: Sequence[dict]) -> tuple[str, str]:
    """Two lists of sources, each by what the other has not."""
    if len(old) != len(new):
        return f"{len(old)} sources", f"{len(new)} sources"
    pairs = [(a, b) for a, b in zip(old, new, strict=True) if a != b]
    keys = [key for key in old[0] if any(a[key] != b[key] for a, b in pairs)]
    return tuple("; ".join(", ".join(f"{key} {side[key]}" for key in keys) for side in sides) for sides in zip(*pairs))  # noqa: B905


def _rule_of_step(old: StepSize, new: StepSize, settings: dict) -> str:
    """Free where a step learns from as many dialogues; fixed where an epoch is counted in batches."""
    if old.batch_size * old.processes != new.batch_size * new.processes and settings["trainer"]["limit_train_batches"]:
        return FIXED
    return FREE if old.dialogues == new.dialogues else NEW_STEPS


def settle(found: Sequence[Change], checkpoint: Path, changed: bool) -> list[str]:
    """What to say about a run that goes on with other settings.

    Args:
        found: what differs.
        checkpoint: that it goes on from.
        changed: whether what can be taken is to be taken.

    Raises:
        ValueError: something may not change, or only where it is asked for; with the list of it.
    """
    fixed = [str(change) for change in found if change.rule == FIXED]
    taken = [str(change) for change in found if change.taken]
    if fixed or (taken and not changed):
        lines = [f"{checkpoint} is of a run with other settings"]
        lines += [f"never taken: {', '.join(fixed)}"] if fixed else []
        lines += [f"taken with --resume_changed true: {', '.join(taken)}"] if taken else []
        raise ValueError("\n".join([*lines, "give the settings of before, or choose another --output for a new run"]))
    free = [str(change) for change in found if not change.taken]
    lines = [f"Other than before, and of no effect on what is learned: {', '.join(free)}"] if free else []
    return lines + ([f"Changed from here on: {', '.join(taken)}"] if taken else [])


class RunRecord(Callback):
    """Writes the record into each checkpoint, and fits a checkpoint of other settings to those of this run.

    Args:
        make: gives the record of this run, see ``made_of``.
    """

    def __init__(self, make: Callable[[], dict]):
        self._make = make
        self.changed = False
        """Whether the run goes on with other settings than it had."""

    @cached_property
    def now(self) -> dict:
        """The record of this run."""
        return self._make()

    def setup(self, trainer, pl_module, stage: str) -> None:
        """Read what the run is made of before it begins: files may change while it trains."""
        self.now  # noqa: B018 (made once)

    def on_save_checkpoint(self, trainer, pl_module, checkpoint: dict) -> None:
        """Add it, with the position in samples, which no batch size changes."""
        progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        done, epoch = progress["current"]["processed"], checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]
        begin = trainer.datamodule.begin
        samples = max(done * micro(self.now), begin[1] if begin[0] == epoch["processed"] else 0)
        whole = done >= trainer.num_training_batches
        checkpoint["run"] = self.now | {"position": {"samples": samples, "whole_epoch": whole}}

    def on_load_checkpoint(self, trainer, pl_module, checkpoint: dict) -> None:
        """Fit position, optimiser and schedule to what is asked for now."""
        before = checkpoint.get("run")
        if before is None:
            return
        others = micro(before) != micro(self.now) or before["data"]["train"] != self.now["data"]["train"]
        if others and not trainer.datamodule.streams:
            move(checkpoint["loops"]["fit_loop"], before["position"], micro(self.now), trainer.datamodule)
        model = before["settings"]["model"]["init_args"]
        then = Optimization(**model["optimization"] | {"betas": tuple(model["optimization"]["betas"])})
        self.changed = any(change.taken for change in compare(before, self.now))
        if then != pl_module.optimization:
            names = [name for name, parameter in pl_module.named_parameters() if parameter.requires_grad]
            refit(checkpoint, then, pl_module.optimization, names)

    def on_train_start(self, trainer, pl_module) -> None:
        """Let the first step have the rate of the schedule as it is now."""
        if self.changed:
            schedule, optimizer = trainer.lr_scheduler_configs[0].scheduler, trainer.optimizers[0]
            rates = zip(optimizer.param_groups, schedule.base_lrs, schedule.lr_lambdas, strict=True)
            for group, base, factor in rates:
                group["lr"] = base * factor(schedule.last_epoch)


def micro(record: dict) -> int:
    """Samples that all processes take at once."""
    return record["step"]["batch_size"] * record["step"]["processes"]


def move(loop: dict, position: dict, size: int, data: TemporalDataModule) -> None:
    """Count the batches that were done in batches of another size.

    Where the samples done end within a batch, that batch is the next one, and has only those that are left of it.

    Args:
        loop: state of Lightning's fit loop, which is changed.
        position: of the record.
        size: of the new batches, over all processes.
        data: is told where the epoch goes on.
    """
    progress = loop["epoch_loop.batch_progress"]
    done = progress["current"]["processed"]
    most = data.batches_of_epoch(size)
    batches = most if position["whole_epoch"] else min(position["samples"] // size, most)
    for counts in (progress["total"], progress["current"]):
        counts.update({key: value - done + batches for key, value in counts.items()})
    if not position["whole_epoch"]:
        data.begin = loop["epoch_progress"]["current"]["processed"], position["samples"]


def refit(checkpoint: dict, before: Optimization, now: Optimization, names: Sequence[str]) -> None:
    """Give every parameter its moments back under other rates, betas or weight decay; groups may be others.

    Args:
        checkpoint: is changed.
        before: what it was trained with.
        now: what it goes on with.
        names: of what learns, in the order of the module.
    """
    state = checkpoint["optimizer_states"][0]
    then = [name for members in before.groups(names).values() for name in members]
    moments: dict[str, dict[str, Tensor]] = {then[number]: kept for number, kept in state["state"].items()}
    settings = state["param_groups"][0] | {"betas": now.betas, "eps": now.eps, "weight_decay": now.weight_decay}
    order, groups = [], []
    for rate, members in now.groups(names).items():
        numbers = list(range(len(order), len(order) + len(members)))
        groups.append(settings | {"lr": rate, "initial_lr": rate, "params": numbers})
        order += members
    kept = {number: moments[name] for number, name in enumerate(order) if name in moments}
    checkpoint["optimizer_states"][0] = {"state": kept, "param_groups": groups}
    rates = [group["lr"] for group in groups]
    checkpoint["lr_schedulers"][0] |= {"base_lrs": rates, "_last_lr": rates, "lr_lambdas": [None] * len(rates)}
