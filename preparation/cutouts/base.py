"""The first layers of a language model as a base of its own: what fits a laptop."""

from pathlib import Path

import torch

from models.checkpoints import load_llm, load_tokenizer


def save_first_layers(name: str, layers: int | None, folder: Path) -> int:
    """Save a language model without its last layers; embeddings, final norm and tokenizer stay as they are.

    Args:
        name: folder, GGUF file or hub name.
        layers: how many to keep; None: all.
        folder: of the new base.

    Returns:
        how many layers it has.

    Raises:
        ValueError: there is no such model, or it has fewer layers.
    """
    llm = load_llm(name, torch.float32)
    count = llm.config.num_hidden_layers
    if layers is not None:
        if not 0 < layers <= count:
            raise ValueError(f"{name} has {count} layers, {layers} were asked for")
        llm.model.layers = llm.model.layers[:layers]
        llm.config.num_hidden_layers = count = layers
    llm.save_pretrained(folder)
    load_tokenizer(name).save_pretrained(folder)
    return count
