"""Ask a trained model everything that an annotation file asks, and score the answers."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jsonargparse.typing import NonNegativeInt, PositiveInt

from command_line.launcher import launcher_settings, leave_group
from command_line.paths import check_run, check_there
from command_line.tables import console
from datamodules.changed_frames import Frames
from datamodules.query_files import read_queries
from datamodules.shards import ShardReader
from datamodules.skips import OnError
from evaluation.hashes import weights_hash
from models.generation import GenerationChange
from models.quantization_names import Quantization

if TYPE_CHECKING:
    from lightning import Callback, Trainer

    from datamodules.prediction import Prediction
    from datamodules.schema import Query
    from datamodules.sources import Source
    from lightning_modules.trained import TrainedModel


def benchmark(
    checkpoint: Path,
    shards: str,
    queries: Path,
    output: Path,
    llm: str | None = None,
    dtype: str | None = None,
    quantization: Quantization | Literal["none"] | None = None,
    devices: PositiveInt = 1,
    batch_size: PositiveInt = 16,
    num_workers: NonNegativeInt = 2,
    seed: int = 0,
    on_error: OnError = "fail",
    frames: Frames = "given",
    generation: GenerationChange = GenerationChange(),  # noqa: B008 (frozen)
    localizer: dict[str, Any] | None = None,
) -> dict[str, float]:
    """Answer every query of a file and score the answers.

    Answers are written as they come. A run that was stopped goes on when its command is given again; meanwhile
    ``evaluate.py score --benchmark queries --partial true --predictions OUTPUT --annotations QUERIES`` scores them.

    Args:
        checkpoint: run folder or .ckpt of train.py, or released weights.
        shards: features of the videos.
        queries: annotation file; what is scored for each task is said in ``lightning_modules/scoring.py``.
        output: folder for metrics.json, cost.json, predictions.jsonl, timelines.png and spans.png.
        llm: base model, if it is not where the run names it.
        dtype: to compute in; default bfloat16 on an accelerator, else float32.
        quantization: base in 4 (nf4) or 8 bits (int8); default as it was trained beside, none: not.
        devices: processes, where no launcher started them.
        batch_size: queries answered together; no metric depends on it, unless answers are sampled.
        num_workers: reading processes.
        seed: of sampling, if the generation samples.
        on_error: what to do with a video that is absent or cannot be read; a skipped query counts as missing.
        frames: what the model sees: the frames as given, shuffled, none of them (zeros), or those of an other_video.
        generation: what is decoded differently from what the weights name.
        localizer: how times are read, where it differs from the run's settings: ``--localizer.rule etbench``.

    Returns:
        the metrics.
    """
    check_run(checkpoint)
    check_there(queries=queries, shards=shards)

    from lightning import seed_everything

    from datamodules.sources import Source
    from evaluation.protocol import check_features, check_trained_on, conditions, protocol
    from evaluation.reporting import scores_of, write_report
    from lightning_modules.trained import TrainedModel

    seed_everything(seed, verbose=False)
    check_trained_on(checkpoint)
    module = TrainedModel.from_run(checkpoint, llm, dtype, generation, quantization, localizer)
    reader = ShardReader(shards)
    check_features(module, reader.header, shards)
    source = Source(shards, queries, frames=frames)
    wanted = list(read_queries(queries))
    about = {**conditions(module, reader.header, source, seed), "weights": weights_hash(checkpoint)}
    settings = {"eval_batch_size": batch_size, "num_workers": num_workers, "on_error": on_error}
    trainer, found, resumed, costs = ask(module, source, wanted, output, about, devices, settings)
    answered = [(query, found.get(query.id)) for query in wanted]
    scores = scores_of(answered, reader)
    if trainer.is_global_zero:
        about = protocol(module, reader.header, source, seed, answered, resumed)
        write_report(output, answered, reader, scores, about, f"{checkpoint} on {queries}, frames: {frames}", costs)
    leave_group()
    return scores


def ask(
    module: "TrainedModel",
    source: "Source",
    wanted: "Sequence[Query]",
    output: Path,
    about: Mapping,
    devices: int,
    settings: Mapping,
) -> "tuple[Trainer, dict[str, Prediction], int, dict[str, float]]":
    """Ask what an earlier run, which was stopped, has not answered.

    Args:
        module: that answers.
        source: of the queries.
        wanted: all of them.
        output: folder for the answers.
        about: what they depend on.
        devices: see ``tester``.
        settings: of the data module.

    Returns:
        the trainer, query id -> answer, how many answers were there before, and what answers cost.
    """
    from callbacks.predictions import PredictionWriter
    from datamodules.temporal import TemporalDataModule
    from evaluation.cost import Clock, cost
    from evaluation.resuming import answers_so_far

    known = answers_so_far(output, about, [query.id for query in wanted])
    trainer = tester(devices, writer := PredictionWriter(output, known, about), clock := Clock())
    if len(known) < len(wanted):
        if known and trainer.is_global_zero:
            console.print(f"{len(known)} of {len(wanted)} queries were answered before; asking the others")
        data = TemporalDataModule(module.dialogue, test=[source], answered=list(known), **settings)
        trainer.test(module, data, verbose=False)
    if trainer.is_global_zero and not writer.finished:  # there was nothing to ask
        writer.finish()
    return trainer, writer.predictions, len(known), cost(module, clock, writer.predictions.values())


def tester(devices: int, *callbacks: "Callback") -> "Trainer":
    """A trainer for questions, on as many processes as its launcher or ``devices`` says."""
    from lightning import Trainer

    settings = {"accelerator": "auto", "strategy": "auto", "devices": devices, "num_nodes": 1}
    return Trainer(
        **settings | launcher_settings(settings, dict(os.environ)),
        callbacks=list(callbacks),
        logger=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
