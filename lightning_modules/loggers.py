"""Where the numbers of a run go."""

import os
from pathlib import Path
from uuid import uuid4

from lightning.pytorch.loggers import CSVLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only


@rank_zero_only
def keep_log(log: Path) -> None:
    """Give the log of an interrupted run a number, because Lightning's logger deletes it: ``metrics-001.csv``, .."""
    if log.is_file():
        log.rename(log.with_name(f"metrics-{len(list(log.parent.glob('metrics*.csv'))):03d}.csv"))


@rank_zero_only
def wandb_id(output: Path, resume: bool) -> str:
    """A new one or a sweep agent's, or that of the run that goes on: W&B shows its parts as one run."""
    kept = output / "logs" / "wandb-id"
    if not (resume and kept.is_file()):
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text((os.environ.get("WANDB_RUN_ID") or uuid4().hex[:8]) + "\n")
    return kept.read_text().strip()


def default_loggers(output: Path, resume: bool) -> list:
    """A CSV file in the run folder, and W&B: online where a key is known, else offline."""
    import wandb

    mode = os.environ.get("WANDB_MODE") or ("online" if wandb.login(prompt=False) else "offline")
    run = {"name": output.name, "id": wandb_id(output, resume), "resume": "allow", "mode": mode}
    return [CSVLogger(output, name="logs", version=""), WandbLogger(project="whenlm", save_dir=output, **run)]


def agents_output(environment: dict[str, str]) -> str | None:
    """The run folder of a run that ``wandb agent`` started: each has its own. None: no agent did."""
    if "WANDB_SWEEP_ID" not in environment or not environment.get("WANDB_RUN_ID"):
        return None
    return f"runs/sweeps/{environment['WANDB_SWEEP_ID']}/{environment['WANDB_RUN_ID']}"
