"""From the command line of train.py to a model, its data and a trainer."""

import os
import sys
from pathlib import Path
from typing import Literal

from jsonargparse import ActionYesNo, Namespace
from jsonargparse.typing import NonNegativeInt
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.trainer.connectors.checkpoint_connector import _CheckpointConnector

import lightning_modules  # noqa: F401 (makes its stages known by their short names)
import localizers  # noqa: F401
from callbacks.curves import LossCurves
from callbacks.finite import FiniteSteps
from callbacks.model_summary import TrainedParts
from callbacks.randomness import StepRandomness
from callbacks.resuming import BestCheckpoint, RunCheckpoint, WholeSteps
from callbacks.samples import ValidationSamples
from callbacks.skipped import SkippedData
from callbacks.step_log import StepBar, StepLog
from callbacks.stopping import Stopped, Stopping, requeue
from callbacks.throughput import Throughput
from callbacks.training_data import TrainingData
from command_line.launcher import launcher_settings, leave_group
from command_line.parser import ConfigFile, ShortErrors, replacing
from command_line.tables import complain, say
from datamodules.temporal import TemporalDataModule
from lightning_modules.batching import StepSize, check_batch, step_size
from lightning_modules.loggers import agents_output, default_loggers, keep_log
from lightning_modules.precision import check_precision
from lightning_modules.preflight import check_writable, version_of_code
from lightning_modules.resumed_settings import Change
from lightning_modules.run_folder import Lock, WholeFiles, find_checkpoint, read, tidy
from lightning_modules.run_record import RunRecord, compare, made_of, settle
from lightning_modules.sharing import settle_sharing
from lightning_modules.strategy import SHARDED, check_sharded, chosen_strategy
from lightning_modules.video_language import VideoLanguageModule
from models.fingerprints import of_weights


def fixed_seed(seed: int | bool) -> int:
    """The seed of weights and data alike. Raises ValueError for a random one (``true``) or none (``false``)."""
    if isinstance(seed, bool):
        raise ValueError(f"seed_everything must be a number, got {seed}; without one no run could be resumed")
    return seed


class ChosenCheckpoint(_CheckpointConnector):
    """Goes on from what it is told to, never from an ``hpc_ckpt`` that lies in the run folder."""

    _hpc_resume_path = None


def own_signals_and_checkpoints(trainer) -> None:
    """Leave signals and SLURM's requeueing to ``callbacks.stopping``: Lightning's handlers wait for other processes."""
    trainer._checkpoint_connector = ChosenCheckpoint(trainer)
    signals = trainer._signal_connector
    signals.register_signal_handlers = lambda: signals._original_handlers.update(signals._get_current_signal_handlers())


class TrainingParser(ShortErrors, LightningArgumentParser):
    """Of train.py."""


class SaveRunConfig(SaveConfigCallback):
    """Writes the whole configuration into the run folder and to the loggers, with the version of the code."""

    def setup(self, trainer, pl_module, stage: str) -> None:
        """Once, on rank 0, before training starts."""
        if stage != "fit" or not trainer.is_global_zero:
            return
        folder = Path(trainer.default_root_dir)
        folder.mkdir(parents=True, exist_ok=True)
        self.parser.save(self.config, folder / "config.yaml", overwrite=True, skip_none=False)
        about = {"accumulate_grad_batches": trainer.accumulate_grad_batches, "code": version_of_code()}
        for logger in trainer.loggers:
            logger.log_hyperparams(self.config.as_dict() | {"derived": about})


class TrainingCLI(LightningCLI):
    """The command line of train.py: ``model``, ``data``, ``trainer``, ``checkpoint`` and ``output``.

    Loggers are made by ``open_loggers``, after everything that is checked before a run.
    """

    def __init__(self, args=None):
        super().__init__(
            VideoLanguageModule,
            TemporalDataModule,
            subclass_mode_model=True,
            run=False,
            auto_configure_optimizers=False,
            args=args,
            seed_everything_default=0,
            save_config_callback=SaveRunConfig,
            trainer_defaults={"use_distributed_sampler": False},  # our samplers share the data out
        )

    def init_parser(self, **kwargs) -> TrainingParser:
        """A parser with short errors and without abbreviations."""
        parser = TrainingParser(**kwargs)
        parser.add_argument(
            "-c", "--config", action=ConfigFile, help="a YAML file; later ones win, key by key; a list replaces a list"
        )
        return parser

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """The run folder, from which all others follow, and checkpoints."""
        parser.add_argument("--output", type=str, required=True, help="run folder; everything is written below it")
        helped = "go on from the run folder's last checkpoint; auto: start where there is none"
        parser.add_argument("--resume", type=bool | Literal["auto"], default=False, help=helped)
        helped = "let a run go on with other settings than it had, where that means anything"
        parser.add_argument("--resume_changed", type=bool, default=False, help=helped)
        parser.add_argument(
            "--dry_run", action=ActionYesNo(no_prefix=None), help="check what is cheap, and print the plan"
        )
        helped = "optimiser steps with a NaN or infinite loss or gradient that are left out before training stops"
        parser.add_argument("--nonfinite_steps", type=NonNegativeInt, default=0, help=helped)
        parser.add_lightning_class_args(RunCheckpoint, "checkpoint")
        parser.set_defaults({"checkpoint.save_last": True, "checkpoint.save_on_exception": True})
        parser.set_defaults({"checkpoint.enable_version_counter": False})  # there is one last.ckpt
        parser.set_defaults({"trainer.accumulate_grad_batches": None})  # so that it is seen where it is given
        parser.link_arguments("output", "checkpoint.dirpath", compute_fn=lambda output: f"{output}/checkpoints")
        parser.link_arguments("output", "trainer.default_root_dir")
        parser.link_arguments("model.dialogue", "data.dialogue", apply_on="instantiate")
        parser.link_arguments("seed_everything", "data.seed", compute_fn=fixed_seed)

    def parse_arguments(self, parser: LightningArgumentParser, args) -> None:
        """A run of a W&B sweep has a folder of its own, unless its arguments name one."""
        args = sys.argv[1:] if args is None else args
        folder = agents_output(dict(os.environ))
        if folder and isinstance(args, list) and not any(arg.split("=")[0] == "--output" for arg in args):
            args = [*args, f"--output={folder}"]
        args = replacing(args) if isinstance(args, list) else args
        self.config = parser.parse_args(args) if isinstance(args, list) else parser.parse_object(args)

    def before_instantiate_classes(self) -> None:
        """Join the launcher's process group, and refuse what cannot be."""
        trainer: Namespace = self.config["trainer"]
        for key, value in launcher_settings(trainer.as_dict(), dict(os.environ)).items():
            trainer[key] = value
        trainer["strategy"] = chosen_strategy(trainer["strategy"])
        check_precision(str(trainer["precision"]))
        check_batch(self.config["data"], trainer["accumulate_grad_batches"])
        output = Path(self.config["output"])
        self.checkpoint, self.lock = None, Lock(output)
        if not self.config["dry_run"]:
            check_writable(output)
            self.checkpoint = find_checkpoint(output, self.config["resume"])

    def instantiate_classes(self) -> None:
        """Make model, data and trainer; then take the run folder, and keep the log of a run that goes on.

        Raises:
            ValueError: the run cannot go on with these settings, or another process has its folder.
        """
        super().instantiate_classes()
        if self.config["dry_run"]:
            self._share_videos()
            return
        output = Path(self.config["output"])
        self.lock.take()
        try:  # only who holds the folder knows that nothing in it changes
            tidy(output)
            self.checkpoint = find_checkpoint(output, self.config["resume"])
            self._share_videos()
            lines = self.changes()
        except BaseException:
            self.lock.release()
            raise
        if self.checkpoint:
            keep_log(output / "logs" / "metrics.csv")
        for line in lines if self.trainer.is_global_zero else ():
            say(line)

    def _share_videos(self) -> None:
        """Write the number of queries that share a video into the config, which a run that goes on finds there."""
        given = self.config["data"]["queries_per_video"]
        before = read(self.checkpoint) if self.checkpoint and given is None else None
        found = settle_sharing(given, self.model, self.datamodule, self.step.dialogues, before)
        self.config["data"]["queries_per_video"] = found

    def changes(self) -> list[str]:
        """What to say about a run that goes on with other settings. Raises ValueError where it may not."""
        before = read(self.checkpoint).get("run") if self.checkpoint else None
        if before is None:
            unknown = f"{self.checkpoint} does not say what its run was made of: its settings are not compared"
            return [unknown] if self.checkpoint else []
        found: list[Change] = compare(before, self.record.now, type(self.model.localizer))
        return settle(found, self.checkpoint, self.config["resume_changed"])

    def _made_of(self) -> dict:
        previous = of_weights(self.model.read_previous())
        return made_of(self.config, self.step, previous, version_of_code())

    def instantiate_trainer(self, **kwargs):
        """The trainer, without the default loggers: see ``open_loggers``."""
        settings = self.config["trainer"]
        if settings["logger"] in (None, True):
            kwargs["logger"] = False
        sharded = settings["strategy"] == SHARDED
        if sharded:
            check_sharded(self.model)
            kwargs["inference_mode"] = False  # parameters that were gathered in it could not be trained
            self.datamodule.lockstep = True
        kwargs["enable_model_summary"] = False  # TrainedParts says it in fewer lines
        kwargs["accumulate_grad_batches"] = settings["accumulate_grad_batches"] or 1
        self.trainer_defaults["callbacks"] = self._callbacks(settings)
        trainer = super().instantiate_trainer(**kwargs)
        self.step = self._step_size(trainer)
        self.sharded = self.step.processes if sharded else 1
        trainer.accumulate_grad_batches = self.step.accumulate
        trainer.strategy.checkpoint_io = WholeFiles(later=True)
        own_signals_and_checkpoints(trainer)
        return trainer

    def _callbacks(self, settings: Namespace) -> list:
        throughput, skipped, curves = Throughput(), SkippedData(), LossCurves()
        self.log = StepLog(throughput, skipped, curves)
        self.record = RunRecord(self._made_of)
        callbacks = [StepRandomness(), WholeSteps(), self.record, throughput, TrainingData(), skipped, self.log, curves]
        callbacks += [FiniteSteps(self.log, self.config["nonfinite_steps"]), Stopping()]
        callbacks += [ValidationSamples(self.config["seed_everything"])]
        checkpoint, self.best = self.config["checkpoint"], None
        if (monitor := checkpoint["monitor"]) and self.datamodule.sources["val"]:
            kept = checkpoint["dirpath"], monitor, checkpoint["mode"], checkpoint["save_top_k"]
            self.best = BestCheckpoint(*kept)
            callbacks.append(self.best)
            if checkpoint["patience"] is not None:
                callbacks.append(EarlyStopping(monitor, patience=checkpoint["patience"], mode=checkpoint["mode"]))
        if settings["enable_progress_bar"] is not False:
            callbacks.append(StepBar(self.log))
        if settings["enable_model_summary"] is not False:
            callbacks.append(TrainedParts())
        return callbacks

    def _step_size(self, trainer) -> StepSize:
        data = self.config["data"]
        processes = trainer.num_devices * trainer.num_nodes
        given = self.config["trainer"]["accumulate_grad_batches"]
        return step_size(data["global_batch_size"], data["batch_size"], processes, given)

    def open_loggers(self) -> None:
        """Give the trainer its default loggers where the config names none."""
        if self.config["trainer"]["logger"] in (None, True):
            self.trainer.loggers = default_loggers(Path(self.config["output"]), self.checkpoint is not None)

    def fit(self) -> None:
        """Train, from the checkpoint that was found or from the start.

        Raises:
            Stopped: the run was told to stop; its checkpoint is written, and all processes are here.
        """
        try:
            self.trainer.fit(self.model, self.datamodule, ckpt_path=self.checkpoint)
        except Stopped as stop:
            leave_group()
            if self.trainer.is_global_zero:
                complain("train.py", stop)
            requeue(self.trainer, stop.signum)
            raise
