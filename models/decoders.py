"""The parts of a causal language model of transformers, found the same way in every family.

Shape suffixes: B sequences, L tokens.
"""

from inspect import signature

import torch
from torch import Tensor, nn
from transformers import Cache, PreTrainedConfig, PreTrainedModel

FULL, SLIDING = "full_attention", "sliding_attention"
"""Kinds of layers, as transformers names them, whose attention can be written as a mask."""
LOCAL, CHUNKED = "local_attention", "chunked_attention"
"""Other kinds that attend to what was read before; all others keep a running state of it."""


def width(llm: PreTrainedModel) -> int:
    """D, width of the hidden states."""
    return llm.config.get_text_config().hidden_size


def layers(llm: PreTrainedModel) -> nn.ModuleList:
    """The decoder's layers.

    Raises:
        ValueError: the decoder keeps no list of as many layers as its configuration says.
    """
    decoder, count = llm.get_decoder(), llm.config.get_text_config().num_hidden_layers
    found = [part for part in decoder.children() if isinstance(part, nn.ModuleList) and len(part) == count]
    if len(found) != 1:
        raise ValueError(f"{type(llm).__name__}: the layers of its decoder are not found")
    return found[0]


def layer_windows(llm: PreTrainedModel) -> dict[str, int | None]:
    """How many tokens, itself and those before it, a token sees in each kind of layer. None: all; 0: it depends."""
    return windows(llm.config)


def windows(config: PreTrainedConfig) -> dict[str, int | None]:
    """``layer_windows`` of a model with this configuration."""
    config = config.get_text_config()
    window = getattr(config, "sliding_window", None)
    if kinds := getattr(config, "layer_types", None):
        return {kind: {FULL: None, SLIDING: window}.get(kind, 0) for kind in sorted(set(kinds))}
    if "local" in getattr(config, "attention_layers", ()):  # GPT-Neo
        return {FULL: None, LOCAL: config.window_size}
    if getattr(config, "attention_chunk_size", None):
        return {CHUNKED: 0}
    return {FULL: None} if window is None else {SLIDING: window}


def check_inputs(llm: PreTrainedModel) -> None:
    """Refuse a language model that cannot be given a video between its words.

    Raises:
        ValueError: it counts places in a row itself, padding included (ALiBi), or it wants more of a word than a
            vector.
    """
    config, decoder = llm.config.get_text_config(), llm.get_decoder()
    if getattr(config, "hidden_size_per_layer_input", None):
        raise ValueError(
            f"{type(llm).__name__} adds something of each word's id to every layer, and frames have none: choose "
            "another base"
        )
    vectors = llm.get_input_embeddings().weight.shape[-1]
    if vectors != config.hidden_size:
        raise ValueError(
            f"{type(llm).__name__} has words of {vectors} numbers and states of {config.hidden_size}; only bases where "
            "they are the same are supported"
        )
    if other := layer_windows(llm).keys() - {FULL, SLIDING, LOCAL, CHUNKED}:
        raise ValueError(
            f"{type(llm).__name__} has layers of {', '.join(sorted(other))}, which keep a running state: what they "
            "read of a video cannot be shared by its questions; choose another base"
        )
    if getattr(config, "alibi", False) or "position_ids" not in signature(decoder.forward).parameters:
        raise ValueError(
            f"{type(llm).__name__} takes no position_ids, so tokens behind padding and behind a shared video would "
            "stand in wrong places: choose another base"
        )


def windows_follow_patterns(config: PreTrainedConfig) -> bool:
    """Whether ``check_patterns`` lets a model with this configuration pass."""
    return windows(config).keys() <= {FULL, SLIDING}


def check_patterns(llm: PreTrainedModel, what: str) -> None:
    """Refuse a language model whose attention cannot follow a written pattern.

    Args:
        llm: the language model.
        what: needs the pattern, for the message.

    Raises:
        ValueError: it has layers of another kind than ordinary attention, with or without a window.
    """
    if other := layer_windows(llm).keys() - {FULL, SLIDING}:
        raise ValueError(
            f"{type(llm).__name__} has layers of {', '.join(sorted(other))}, whose attention cannot follow a pattern, "
            f"and {what} need one"
        )


def cache_argument(module: nn.Module, cache: Cache) -> dict[str, Cache]:
    """A cache under the name that ``forward`` of a model has for it: ``past_key_values`` before transformers 5.24."""
    return {"cache" if "cache" in signature(module.forward).parameters else "past_key_values": cache}


def answered_together(llm: PreTrainedModel, lengths: Tensor, longest: int) -> list[Tensor]:
    """Places of the queries of each batch of answers: all at once, or those of one length.

    In a layer with a window, padding between a video and a shorter question would count as distance.

    Args:
        llm: the causal language model.
        lengths: (Q,) tokens of each question.
        longest: positions of a video, the longest question and the longest answer.
    """
    if all(window is None or window >= longest for window in layer_windows(llm).values()):
        return [torch.arange(len(lengths), device=lengths.device)]
    return [(lengths == length).nonzero().flatten() for length in lengths.unique()]
