"""Train one stage: python train.py --config configs/vtimellm/stage2.yaml --config configs/data/FILE --output RUN."""

import sys
from pathlib import Path

from lightning.pytorch.utilities.exceptions import MisconfigurationException, SIGTERMException

from command_line.errors import failed
from command_line.launcher import leave_group
from command_line.quiet import only_what_matters
from command_line.tables import print_written, say
from lightning_modules import preflight
from lightning_modules.preflight import find_checkpoint
from lightning_modules.training_cli import TrainingCLI
from lightning_modules.weights_folder import save_trained
from reports.card import write_card


def main(args: list[str] | None = None) -> None:
    """Read the configuration, check what is cheap, train, and write the weights that others start from.

    Args:
        args: command-line arguments; None: those of the process.
    """
    only_what_matters()
    cli = TrainingCLI(args)
    preflight.check(cli)
    if cli.config["dry_run"]:
        if cli.trainer.is_global_zero:
            preflight.report(cli)
        return
    if cli.trainer.is_global_zero:
        say(cli.step)
    cli.open_loggers()
    output = Path(cli.config["output"])
    cli.trainer.fit(cli.model, cli.datamodule, ckpt_path=find_checkpoint(output, cli.config["resume"]))
    save_trained(output / "model", cli.trainer, cli.best)
    if cli.trainer.is_global_zero:
        print_written(output / "model", write_card(output))
    leave_group()


if __name__ == "__main__":
    try:
        main()
    except Exception as error:
        sys.exit(failed("train.py", error, (MisconfigurationException,)))
    except SIGTERMException:  # the checkpoint is written; tell the scheduler that the run did not finish
        sys.exit(143)
