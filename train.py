"""Train one stage: python train.py --config configs/vtimellm/stage2.yaml --config configs/data/FILE --output RUN."""

import gc
import sys
from pathlib import Path

from command_line.errors import failed
from command_line.signals import leave_at_once
from command_line.training_files import check_files

if __name__ == "__main__":
    leave_at_once()  # also in the seconds that the imports take
    try:
        check_files(sys.argv[1:])
    except (ValueError, OSError) as error:
        sys.exit(failed("train.py", error))
    gc.disable()  # a tenth of the time of imports goes into looking for garbage in what they make, and there is none

from lightning.pytorch.utilities.exceptions import MisconfigurationException, SIGTERMException

from command_line.launcher import end_process, leave_group, lost_another, started_by_lightning
from command_line.quiet import only_what_matters
from command_line.tables import print_written, say
from lightning_modules import preflight
from lightning_modules.run_folder import find_checkpoint  # noqa: F401 (for those who go on with a run themselves)
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
    try:
        preflight.check(cli)
        if cli.config["dry_run"]:
            if cli.trainer.is_global_zero:
                preflight.report(cli)
            return
        run(cli)
    finally:
        cli.lock.release()
    leave_group()


def run(cli: TrainingCLI) -> None:
    """Train, write the weights, and then what is about them."""
    if cli.trainer.is_global_zero:
        say(cli.step)
    cli.open_loggers()
    output = Path(cli.config["output"])
    cli.fit()
    save_trained(output / "model", cli.trainer, cli.best)
    if cli.trainer.is_global_zero:
        print_written(output / "model", write_card(output))


if __name__ == "__main__":
    gc.freeze()  # nor is what they made looked through again, or copied in data workers
    gc.enable()
    try:
        main()
    except Exception as error:
        told = getattr(error, "elsewhere", False) or lost_another(error)  # by the process that failed
        end_process(2 if told else failed("train.py", error, (MisconfigurationException,)))
    except SIGTERMException as stop:  # the checkpoint is written; tell the scheduler that the run did not finish
        sys.exit(0 if started_by_lightning() else stop.code)  # Lightning kills the first process where another fails
