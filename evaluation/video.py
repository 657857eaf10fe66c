"""Ask a trained model about one video file."""

from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from rich.table import Table

from callbacks.timelines import draw_timelines
from command_line.tables import console
from datamodules.batch import collate_prompts
from datamodules.schema import Prediction, Query
from evaluation.protocol import check_features, trained_features
from lightning_modules.answering import GenerationChange
from lightning_modules.trained import TrainedModel
from models.quantization import Quantization
from preparation.features.decoding import Sampling, Source
from preparation.features.encoders import Outputs, load_encoder
from preparation.features.extraction import extract_video
from preparation.features.own_encoder import CLASS_PATH


def video(
    checkpoint: Path,
    video: Path,
    query: str,
    output: Path = Path("runs/video"),
    encoder: str | None = None,
    llm: str | None = None,
    dtype: str | None = None,
    quantization: Quantization | Literal["none"] | None = None,
    generation: GenerationChange = GenerationChange(),  # noqa: B008 (frozen)
    localizer: dict[str, Any] | None = None,
) -> Prediction:
    """Find the moment of a sentence in a video file.

    Args:
        checkpoint: run folder or .ckpt of train.py, or released weights.
        video: an mp4 or any other file that FFmpeg reads.
        query: what to look for.
        output: where answer.json and timelines.png go.
        encoder: vision tower as ``prepare.py features`` takes it, if it is not where the training features name it; a
            class path is never taken from there, because its code runs.
        llm: base model, if it is not where the run names it.
        dtype: to compute in; default bfloat16 on an accelerator, else float32.
        quantization: base in 4 (nf4) or 8 bits (int8); default as it was trained beside, none: not.
        generation: what is decoded differently from what the weights name.
        localizer: how times are read, where it differs from the run's settings.

    Returns:
        the answer.
    """
    module = TrainedModel.from_run(checkpoint, llm, dtype, generation, quantization, localizer)
    known = trained_features(module)
    trained = asdict(known) if known else {}
    clip = load_encoder(encoder or _known_encoder(trained, checkpoint), outputs=Outputs.of(trained))
    sampling = Sampling.parse(trained.get("sampling", "uniform 100"))
    check_features(module, clip.header(sampling), f"encoder {clip.name}")
    features = extract_video(Source(video.stem, video), clip, sampling)
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
    console.print(
        f"{video.name}: {query}\nThe model says: {answer.answer}", table, f"Picture: {output / 'timelines.png'}"
    )
    return answer


def _known_encoder(trained: dict, checkpoint: Path) -> str:
    """The tower that the training features name. Raises ValueError for a class, whose code a user must have named."""
    name = trained.get("encoder", "openai/clip-vit-large-patch14")
    if CLASS_PATH.fullmatch(name) and not Path(name).exists():
        raise ValueError(
            f"{checkpoint} was trained on features of the class {name}, whose code would run; if you know it, name it "
            f"yourself: --encoder {name}"
        )
    return name
