"""From the command line of train.py to a model, its data and a trainer."""

import os
from pathlib import Path
from uuid import uuid4

from jsonargparse import ActionConfigFile, Namespace
from lightning.pytorch.callbacks import LearningRateMonitor, RichModelSummary, RichProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

import lightning_modules  # noqa: F401 (makes its stages known by their short names)
import localizers  # noqa: F401
from callbacks.curves import LossCurves
from callbacks.randomness import StepRandomness
from callbacks.resuming import RunCheckpoint, WholeSteps
from callbacks.skipped import SkippedData
from callbacks.throughput import Throughput
from callbacks.training_data import TrainingData
from command_line.launcher import launcher_settings
from command_line.parser import ShortErrors
from datamodules.temporal import TemporalDataModule
from lightning_modules.video_language import VideoLanguageModule


def fixed_seed(seed: int | bool) -> int:
    """The seed of weights and data alike. Raises ValueError for a random one (``true``) or none (``false``)."""
    if isinstance(seed, bool):
        raise ValueError(f"seed_everything must be a number, got {seed}; without one no run could be resumed")
    return seed


class TrainingParser(ShortErrors, LightningArgumentParser):
    """Of train.py."""


class SaveRunConfig(SaveConfigCallback):
    """Writes the whole configuration into the run folder and to the loggers."""

    def setup(self, trainer, pl_module, stage: str) -> None:
        """Once, on rank 0, before training starts."""
        if stage != "fit" or not trainer.is_global_zero:
            return
        folder = Path(trainer.default_root_dir)
        folder.mkdir(parents=True, exist_ok=True)
        self.parser.save(self.config, folder / "config.yaml", overwrite=True, skip_none=False)
        for logger in trainer.loggers:
            logger.log_hyperparams(self.config.as_dict())


class TrainingCLI(LightningCLI):
    """The command line of train.py: ``model``, ``data``, ``trainer``, ``checkpoint`` and ``output``."""

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
        parser.add_argument("-c", "--config", action=ActionConfigFile, help="a YAML file; later ones win, key by key")
        return parser

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """The run folder, from which all others follow, and checkpoints."""
        parser.add_argument("--output", type=str, required=True, help="run folder; everything is written below it")
        parser.add_argument("--resume", type=bool, default=False, help="go on from the run folder's last checkpoint")
        parser.add_lightning_class_args(RunCheckpoint, "checkpoint")
        parser.set_defaults({"checkpoint.save_last": True, "checkpoint.save_on_exception": True})
        parser.link_arguments("output", "checkpoint.dirpath", compute_fn=lambda output: f"{output}/checkpoints")
        parser.link_arguments("output", "trainer.default_root_dir")
        parser.link_arguments("model.dialogue", "data.dialogue", apply_on="instantiate")
        parser.link_arguments("seed_everything", "data.seed", compute_fn=fixed_seed)

    def before_instantiate_classes(self) -> None:
        """Join the launcher's process group, and keep the log of a run that goes on."""
        trainer: Namespace = self.config["trainer"]
        for key, value in launcher_settings(trainer.as_dict(), dict(os.environ)).items():
            trainer[key] = value
        check_strategy(str(trainer["strategy"]))
        check_precision(str(trainer["precision"]))
        if self.config["resume"]:
            keep_log(Path(self.config["output"]) / "logs" / "metrics.csv")

    def instantiate_trainer(self, **kwargs):
        """The trainer, with the default loggers where the config names none."""
        settings = self.config["trainer"]
        if settings["logger"] in (None, True):
            kwargs["logger"] = default_loggers(Path(self.config["output"]), self.config["resume"])
        callbacks = [StepRandomness(), WholeSteps(), Throughput(), TrainingData(), SkippedData(), LossCurves()]
        if settings["enable_progress_bar"] is not False:
            callbacks.append(RichProgressBar())
        if settings["enable_model_summary"] is not False:
            callbacks.append(RichModelSummary(max_depth=2))
        if settings["logger"] is not False:
            callbacks.append(LearningRateMonitor("step"))
        self.trainer_defaults["callbacks"] = callbacks
        return super().instantiate_trainer(**kwargs)


def check_strategy(strategy: str) -> None:
    """Refuse strategies that split parameters: checkpoints, merged LoRAs and gradient norms need them whole.

    Raises:
        ValueError: FSDP, DeepSpeed or model parallelism is asked for.
    """
    if any(name in strategy.lower() for name in ("fsdp", "deepspeed", "modelparallel", "model_parallel")):
        raise ValueError(
            f"trainer.strategy {strategy}: parameters are not split here; a 7B base in bfloat16 with a LoRA fits "
            "one GPU, so use ddp, with model.gradient_checkpointing where memory is short"
        )


def check_precision(precision: str) -> None:
    """Refuse precisions in which nothing would be learned, or that exchange layers.

    Raises:
        ValueError: all of training is to be in float16, or in Transformer Engine.
    """
    if precision == "16-true":
        raise ValueError(
            "trainer.precision 16-true: what learns would be in float16, where AdamW's eps is 0 and weights become "
            "NaN; use 16-mixed, and model.dtype: float16 for the frozen language model"
        )
    if precision.startswith("transformer-engine"):
        raise ValueError(
            f"trainer.precision {precision}: Transformer Engine takes the place of linear layers, on which LoRA sits; "
            "use bf16-mixed"
        )


@rank_zero_only
def keep_log(log: Path) -> None:
    """Give the log of an interrupted run a number, because Lightning's logger deletes it: ``metrics-001.csv``, .."""
    if log.is_file():
        log.rename(log.with_name(f"metrics-{len(list(log.parent.glob('metrics*.csv'))):03d}.csv"))


@rank_zero_only
def wandb_id(output: Path, resume: bool) -> str:
    """A new one, or that of the run that goes on: W&B shows its parts as one run."""
    kept = output / "logs" / "wandb-id"
    if not (resume and kept.is_file()):
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(uuid4().hex[:8] + "\n")
    return kept.read_text().strip()


def default_loggers(output: Path, resume: bool) -> list:
    """A CSV file in the run folder, and W&B: online where a key is known, else offline."""
    import wandb

    mode = os.environ.get("WANDB_MODE") or ("online" if wandb.login(prompt=False) else "offline")
    run = {"name": output.name, "id": wandb_id(output, resume), "resume": "allow", "mode": mode}
    return [CSVLogger(output, name="logs", version=""), WandbLogger(project="whenlm", save_dir=output, **run)]
