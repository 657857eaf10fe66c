"""Commands of ``prepare.py``: checkpoints of others. What they need is imported when they run."""

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
