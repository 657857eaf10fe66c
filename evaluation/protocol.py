"""What a number depends on: checked before it is measured, and written beside it."""

import platform
from contextlib import suppress
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from datamodules.kept import file_fingerprint
from datamodules.leakage import overlap
from datamodules.prediction import Prediction
from datamodules.records import FeatureHeader
from datamodules.schema import Query
from datamodules.sources import Source
from lightning_modules.run_config import query_files, training_queries
from lightning_modules.trained import TrainedModel


def check_features(module: TrainedModel, header: FeatureHeader, shards: str) -> None:
    """Refuse features that were made differently from those a model was trained on, as far as it reads them.

    Raises:
        ValueError: naming both sides.
    """
    used = module.dialogue.splicer.reads(header, shards)
    if trained := trained_features(module):
        trained.check_same(used, f"the training data of {module.previous}", shards)


def trained_features(module: TrainedModel) -> FeatureHeader | None:
    """What a model read of the features it was trained on; None where that is not known (released weights)."""
    features = module.manifest.get("features")
    return features and module.dialogue.splicer.reads(FeatureHeader(**features), f"{module.previous}'s training data")


def conditions(module: TrainedModel, header: FeatureHeader, source: Source, seed: int) -> dict:
    """What every answer depends on, known before the first is asked for."""
    packages = ("torch", "lightning", "transformers", "peft", "torchmetrics")
    return {
        "queries": {"file": str(source.queries), "sha256": file_fingerprint(source.queries)},
        "features": {"shards": source.shards, **asdict(header)},
        "frames": source.frames,
        "prompt_style": f"{module.style}_eval",
        "system": module.dialogue.encoder.chat.system,
        "localizer": module.localizer.config(),
        "generation": asdict(module.answering.generation),
        "seed": seed,
        "dtype": str(module.llm_dtype).removeprefix("torch."),
        "quantization": module.quantization,
        "checkpoint": {"folder": str(module.previous), "stage": module.manifest["stage"]},
        "base": {"name": module.llm_name},
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
    }


def protocol(
    module: TrainedModel,
    header: FeatureHeader,
    source: Source,
    seed: int,
    answered: list[tuple[Query, Prediction | None]],
    resumed: int = 0,
) -> dict:
    """Everything that a number depends on, to be written beside it.

    Args:
        module: the model.
        header: of the features.
        source: features and queries.
        seed: of sampling.
        answered: queries and answers.
        resumed: answers that an earlier run, which was stopped, had written.
    """
    first = {query.task: query for query, answer in reversed(answered) if answer}  # one shows them all
    return {
        "setting": setting(module.previous, [query for query, _ in answered]),
        "policy": "default: exact IoU; unparsed, invalid and missing answers score 0 and stay in the denominator",
        "missing": sum(prediction is None for _, prediction in answered),
        "resumed": resumed,
        "prompts": {
            task: "\n".join(turn.question for turn in module.dialogue.writer.asked(query))
            for task, query in first.items()
        },
        **conditions(module, header, source, seed),
        "localizer_trained": module.manifest["localizer"],
        "base": getattr(module, "base", None) or module.manifest.get("base"),
    }


def setting(run: Path, queries: list[Query]) -> str:
    """``zero-shot``, ``in-domain`` or ``fine-tuned``, by what the run was trained on, and how many videos it knows."""
    try:
        found = overlap(training_queries(run), queries)
    except OSError as error:
        return f"unknown: what {run} was trained on cannot be read ({error.filename})"
    return f"{found.setting}: {found}"


def check_trained_on(run: Path) -> None:
    """Raise ValueError where a run says what it was trained on, and that cannot be read; before anything is asked."""
    with suppress(OSError):
        query_files(run)
