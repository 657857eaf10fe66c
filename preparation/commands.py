"""Commands of ``prepare.py``: checkpoints that come and go. What they need is imported when they run."""

from pathlib import Path

from command_line.tables import print_made, say


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


def export(
    checkpoint: Path,
    to: Path,
    previous: Path | None = None,
    results: list[Path] | None = None,
    base: str | None = None,
    encoder: str | None = None,
    push: str | None = None,
) -> None:
    """Write what a run has learned as a folder for others: PEFT adapters, safetensors, a model card. No base is loaded.

    Args:
        checkpoint: run folder, weights folder or checkpoint (.ckpt) of train.py.
        to: new folder; everything that takes a run takes it too.
        previous: the run of the stage before, where it is not any more where a checkpoint names it.
        results: folders of evaluate.py benchmark, whose numbers and protocols go into the card.
        base: name under which others load the base model; default: the one the run names.
        encoder: name under which others load the vision encoder; default: the one the run names.
        push: repository of the hub, OWNER/NAME, to upload to with your login; a new one is private. Default: none.
    """
    from preparation import exporting

    weights = exporting.read(checkpoint, previous)
    weights = exporting.export(weights, checkpoint, to, results or (), base, encoder, public=push is not None)
    if push:
        say(f"Uploaded: {exporting.push(to, weights, push)}")
    print_made("exported weights", to, exporting.sizes(weights))
