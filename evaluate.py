"""Evaluate a trained model on annotated videos, ask it about one video, or score anyone's predictions.

python evaluate.py benchmark --checkpoint RUN --shards DIR --queries FILE --output DIR
python evaluate.py video --checkpoint RUN --video FILE --query TEXT
python evaluate.py score --benchmark qvhighlights --predictions FILE --annotations FILE
"""

import hashlib
import json
import os
import platform
import sys
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import lightning as L
from jsonargparse import auto_cli
from rich.console import Console
from rich.table import Table

from callbacks.predictions import PredictionWriter
from callbacks.timelines import draw_timelines
from command_line import CommandParser, launcher_settings, leave_group, precise
from datamodules.batch import collate_prompts
from datamodules.decoding import Sampling
from datamodules.decoding import Source as File
from datamodules.encoders import Outputs, load_encoder
from datamodules.extraction import extract_video
from datamodules.leakage import overlap
from datamodules.query_files import read_queries
from datamodules.records import FeatureHeader
from datamodules.schema import Prediction, Query
from datamodules.shards import ShardReader
from datamodules.skips import OnError
from datamodules.sources import Source
from datamodules.temporal import TemporalDataModule
from lightning_modules.scoring import compute_metrics, new_metrics, update_metrics
from lightning_modules.trained import TrainedModel, training_queries
from lightning_modules.video_language import Generation
from metrics import benchmarks
from metrics.captions import CaptionsUnavailable
from metrics.similarity import SimilarityUnavailable


def benchmark(
    checkpoint: Path,
    shards: str,
    queries: Path,
    output: Path,
    llm: str | None = None,
    dtype: str | None = None,
    devices: int = 1,
    batch_size: int = 16,
    num_workers: int = 2,
    seed: int = 0,
    on_error: OnError = "fail",
    generation: Generation = Generation(),  # noqa: B008 (frozen)
) -> dict[str, float]:
    """Answer every query of a file and score the answers.

    Args:
        checkpoint: run folder of train.py, or released weights.
        shards: features of the videos.
        queries: annotation file; what is scored for each task is said in ``lightning_modules/scoring.py``.
        output: where metrics.json, predictions.jsonl and timelines.png go.
        llm: base model, if it is not where the run names it.
        dtype: to compute in; default bfloat16 on an accelerator, else float32.
        devices: processes, where no launcher started them.
        batch_size: queries answered together; no metric depends on it, unless answers are sampled.
        num_workers: reading processes.
        seed: of sampling, if the generation samples.
        on_error: what to do with a video that is absent or cannot be read; a skipped query counts as missing.
        generation: decoding.

    Returns:
        the metrics.
    """
    L.seed_everything(seed, verbose=False)
    module = TrainedModel.from_run(checkpoint, llm, dtype, generation)
    reader = ShardReader(shards)
    check_features(module.manifest.get("features"), reader.header, checkpoint, shards)
    source = Source(shards, queries)
    data = TemporalDataModule(
        module.dialogue, test=[source], eval_batch_size=batch_size, num_workers=num_workers, on_error=on_error
    )
    writer = PredictionWriter(output)
    trainer = tester(devices, writer)
    trainer.test(module, data, verbose=False)
    answered = [(query, writer.predictions.get(query.id)) for query in read_queries(queries)]
    metrics = new_metrics(sync_on_compute=False)  # every process has all answers, and NCCL no way between CPUs
    update_metrics(metrics, answered)
    scores = compute_metrics(metrics)
    if trainer.is_global_zero:
        report = {"metrics": scores, "protocol": protocol(module, reader.header, source, seed, answered)}
        (output / "metrics.json").write_text(json.dumps(report, indent=2) + "\n")
        draw_timelines(output / "timelines.png", timeline_rows(answered, reader))
        Console().print(metrics_table(scores, f"{checkpoint} on {queries}"))
    leave_group()
    return scores


def tester(devices: int, writer: PredictionWriter) -> L.Trainer:
    """A trainer for questions, on as many processes as its launcher or ``devices`` says."""
    settings = {"accelerator": "auto", "strategy": "auto", "devices": devices, "num_nodes": 1}
    return L.Trainer(
        **settings | launcher_settings(settings, dict(os.environ)),
        callbacks=[writer],
        logger=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )


def check_features(trained: dict | None, header: FeatureHeader, checkpoint: Path, shards: str) -> None:
    """Refuse features that were made differently from those a model was trained on.

    Raises:
        ValueError: naming both sides.
    """
    if trained:
        FeatureHeader(**trained).check_same(header, f"the training data of {checkpoint}", shards)


def protocol(
    module: TrainedModel,
    header: FeatureHeader,
    source: Source,
    seed: int,
    answered: list[tuple[Query, Prediction | None]],
) -> dict:
    """Everything that a number depends on, to be written beside it."""
    manifest = module.manifest
    first = {query.task: query for query, answer in reversed(answered) if answer}  # one shows them all
    packages = ("torch", "lightning", "transformers", "peft", "torchmetrics")
    return {
        "setting": setting(module.previous, [query for query, _ in answered]),
        "policy": "default: exact IoU; unparsed, invalid and missing answers score 0 and stay in the denominator",
        "missing": sum(prediction is None for _, prediction in answered),
        "queries": {"file": str(source.queries), "sha256": file_hash(source.queries)},
        "features": {"shards": source.shards, **asdict(header)},
        "prompt_style": f"{module.style}_eval",
        "prompts": {
            task: "\n".join(turn.question for turn in module.dialogue.asked(query)) for task, query in first.items()
        },
        "system": module.dialogue.encoder.chat.system,
        "localizer": manifest["localizer"],
        "generation": asdict(module.generation),
        "seed": seed,
        "dtype": str(module.llm_dtype).removeprefix("torch."),
        "checkpoint": {"folder": str(module.previous), "stage": manifest["stage"]},
        "base": module.base,
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
    }


def setting(run: Path, queries: list[Query]) -> str:
    """``zero-shot``, ``in-domain`` or ``fine-tuned``, by what the run was trained on, and how many videos it knows."""
    try:
        found = overlap(training_queries(run), queries)
    except OSError as error:
        return f"unknown: what {run} was trained on cannot be read ({error.filename})"
    return f"{found.setting}: {found}"


def file_hash(path: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def timeline_rows(
    answered: list[tuple[Query, Prediction | None]], reader: ShardReader
) -> list[tuple[Query, Prediction, float]]:
    """Rows for ``draw_timelines``, spread over the queries; lengths that these leave out are those of the videos."""
    rows = [(query, answer) for query, answer in answered if answer]
    rows = rows[:: max(1, len(rows) // 12)]
    return [(query, answer, query.duration_s or reader.duration_s(query.video)) for query, answer in rows]


def metrics_table(scores: dict[str, float], title: str, decimals: int = 2) -> Table:
    """One metric a line."""
    table = Table("metric", "value", title=title)
    for name, value in scores.items():
        table.add_row(name, f"{value:.{decimals}f}".removesuffix("." + "0" * decimals))
    return table


def video(
    checkpoint: Path,
    video: Path,
    query: str,
    output: Path = Path("runs/video"),
    encoder: str | None = None,
    llm: str | None = None,
    dtype: str | None = None,
    generation: Generation = Generation(),  # noqa: B008 (frozen)
) -> Prediction:
    """Find the moment of a sentence in a video file.

    Args:
        checkpoint: run folder of train.py, or released weights.
        video: an mp4 or any other file that decord reads.
        query: what to look for.
        output: where answer.json and timelines.png go.
        encoder: CLIP folder or hub name, if it is not where the training features name it.
        llm: base model, if it is not where the run names it.
        dtype: to compute in; default bfloat16 on an accelerator, else float32.
        generation: decoding.

    Returns:
        the answer.
    """
    module = TrainedModel.from_run(checkpoint, llm, dtype, generation)
    trained = module.manifest.get("features") or {}
    clip = load_encoder(encoder or trained.get("encoder", "openai/clip-vit-large-patch14"), outputs=Outputs.of(trained))
    sampling = Sampling.parse(trained.get("sampling", "uniform 100"))
    check_features(trained, clip.header(sampling), checkpoint, f"encoder {clip.name}")
    features = extract_video(File(video.stem, video), clip, sampling)
    asked = Query(video.name, video.stem, "grounding", query, duration_s=features.duration_s)
    module.configure_model()
    prompt = module.dialogue.prompt(asked, features)
    module.to(clip.device)  # no trainer does it here
    (answer,) = module.answer(collate_prompts([prompt], module.dialogue.pad_id).to(clip.device))
    output.mkdir(parents=True, exist_ok=True)
    (output / "answer.json").write_text(answer.to_json() + "\n")
    draw_timelines(output / "timelines.png", [(asked, answer, features.duration_s)])
    table = Table("from (s)", "to (s)")
    for start, end, _ in answer.spans:
        table.add_row(f"{start:.1f}", f"{end:.1f}")
    Console().print(
        f"{video.name}: {query}\nThe model says: {answer.answer}", table, f"Picture: {output / 'timelines.png'}"
    )
    return answer


def score(
    benchmark: Literal[tuple(benchmarks.BENCHMARKS)],
    predictions: Path,
    annotations: Path | list[Path],
    policy: Literal["sound", "official"] = "sound",
    output: Path | None = None,
) -> None:
    """Score a prediction file as a benchmark of the field does it.

    Args:
        benchmark: whose metrics, and whose file formats.
        predictions: predictions.jsonl of this project, or a format the benchmark passes around.
        annotations: the published annotations; a list where the benchmark has several reference files.
        policy: ``sound``, or ``official`` to reproduce the official evaluator with its quirks.
        output: where metrics.json goes; None: nowhere.
    """
    report = benchmarks.score(benchmark, predictions, annotations, policy)
    if output:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(report, indent=2) + "\n")
    counts = {name: value for name, value in report["protocol"].items() if isinstance(value, int)}
    Console().print(metrics_table(report["metrics"] | counts, f"{benchmark}, policy {policy}", decimals=4))


def main(args: list[str] | None = None) -> None:
    """Run one of the commands of this file."""
    auto_cli([benchmark, video, score], args=args, as_positional=False, parser_class=CommandParser)


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError, CaptionsUnavailable, SimilarityUnavailable) as error:
        print(f"evaluate.py: error: {precise(str(error))}", file=sys.stderr)
        sys.exit(2)
