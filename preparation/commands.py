"""Commands of ``prepare.py``: weights of checkpoints. What they need is imported when they run."""

from pathlib import Path

from command_line.tables import print_made


def import_meco(
    input: Path, output: Path, tokenizer: str = "google-bert/bert-base-uncased", base: Path | None = None
) -> None:
    """Take a model of MeCo or E.T. Chat apart, into a base checkpoint and a run that evaluate.py takes.

    Args:
        input: folder with config.json, tokenizer and safetensors: merged, or a LoRA and what else was trained.
        output: new run folder; it also gets keys.json, which says what became of every key.
        tokenizer: BERT's, for the questions: folder or hub name.
        base: the merged folder that the LoRA was trained on; only where the input is not merged.
    """
    from collections import Counter

    from models.adapters import Compressor
    from preparation.merged_checkpoints import import_merged

    places = import_merged(input, output, Compressor(tokenizer=tokenizer), base)
    print_made("imported model", output, Counter(places.values()))


def export(checkpoint: Path, to: Path, previous: Path | None = None) -> None:
    """Make a weights folder of any checkpoint of a run, as `model/` of the run is one. No language model is loaded.

    Args:
        checkpoint: a .ckpt of train.py.
        to: folder to write; evaluate.py and `previous` take it.
        previous: the run of the stage before, where it is not any more where the checkpoint names it.
    """
    from models.checkpoints import write_weights
    from models.training_checkpoints import read_checkpoint

    if (to / "manifest.json").exists():
        raise ValueError(f"{to} holds weights already; choose another folder")
    weights = read_checkpoint(checkpoint, previous)
    weights.manifest["weights"] = {"checkpoint": str(checkpoint)}
    write_weights(to, weights)
    parts = {"adapter": weights.adapter, "head": weights.head}
    parts |= {f"lora-{number}": lora.tensors for number, lora in enumerate(weights.loras, 1)}
    parts |= {name: expert.tensors for name, expert in weights.experts.items()}
    rows = {name: f"{sum(t.numel() for t in tensors.values()):,} numbers" for name, tensors in parts.items() if tensors}
    print_made("exported weights", to, rows)
