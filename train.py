"""Train one stage: python train.py --config configs/vtimellm/stage2.yaml --config configs/data/FILE --output RUN."""

import sys
from pathlib import Path

from lightning.pytorch.utilities.exceptions import SIGTERMException

from command_line.launcher import leave_group
from command_line.parser import precise
from command_line.tables import print_written
from lightning_modules.training_cli import TrainingCLI
from reports.card import write_card


def main(args: list[str] | None = None) -> None:
    """Read the configuration, train, and write the weights that the next stage and evaluation start from.

    Args:
        args: command-line arguments; None: those of the process.
    """
    cli = TrainingCLI(args)
    output = Path(cli.config["output"])
    cli.trainer.fit(cli.model, cli.datamodule, ckpt_path=find_checkpoint(output, cli.config["resume"]))
    if cli.trainer.is_global_zero:
        cli.model.save_weights(output / "model", cli.datamodule.header)
        print_written(output / "model", write_card(output))
    leave_group()


def find_checkpoint(output: Path, resume: bool) -> Path | None:
    """The run folder's last checkpoint if the run is to go on, nothing if it is to start.

    Raises:
        ValueError: there is nothing to go on from, or something that a new start would overwrite.
    """
    last = output / "checkpoints" / "last.ckpt"
    if resume and not last.is_file():
        raise ValueError(f"--resume true, but there is no {last}")
    if not resume and last.is_file():
        raise ValueError(f"{last} exists: add --resume true to go on with that run, or choose another --output")
    return last if resume else None


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        print(f"train.py: error: {precise(str(error))}", file=sys.stderr)
        sys.exit(2)
    except SIGTERMException:  # the checkpoint is written; tell the scheduler that the run did not finish
        sys.exit(143)
