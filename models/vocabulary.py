"""New tokens for a language model that never saw them."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase


def is_tied(llm: nn.Module) -> bool:
    """Whether one matrix holds the input vectors of tokens and the output layer."""
    return llm.get_input_embeddings().weight is llm.get_output_embeddings().weight


def word_matrices(llm: PreTrainedModel) -> tuple[list[str], bool]:
    """Names of the modules that hold a row for each token, and whether input and output are one matrix.

    Where they are, only the input's is named. A name is the last part of the full one, as PEFT looks for it.
    """
    ends, tied = (llm.get_input_embeddings(), llm.get_output_embeddings()), is_tied(llm)
    names = {module: name.rpartition(".")[2] for name, module in llm.named_modules()}
    return [names[module] for module in ends[: 1 if tied else 2]], tied


def add_tokens(
    llm: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    tokens: Sequence[str],
    init: Literal["mean", "released"] = "mean",
) -> None:
    """Give the tokens rows in the embedding and the output matrix.

    Args:
        llm: the base model; its matrices grow to the length of the tokenizer if they are shorter.
        tokenizer: already knows the tokens.
        tokens: the new tokens, in the order in which they were added.
        init: first values of their rows. ``mean``: of all old rows. ``released`` (MeCo): where the matrices must grow,
            the i-th row from the end is the mean of the i-th part of the old rows; where they have spare rows, these
            stay as they are.
    """
    if not tokens:
        return
    old, grows = llm.get_input_embeddings().num_embeddings, len(tokenizer) > llm.get_input_embeddings().num_embeddings
    if grows:
        llm.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    elif init == "released":
        return
    ids = tokenizer.convert_tokens_to_ids(list(tokens))
    words = min(old, min(ids))
    matrices = {llm.get_input_embeddings().weight, llm.get_output_embeddings().weight}
    with torch.no_grad():
        for matrix in matrices:  # one, where input and output are tied
            if init == "mean":
                matrix[ids] = matrix[:words].float().mean(0).to(matrix.dtype)
            else:
                parts = matrix[:old].chunk(len(tokens))
                for number, part in enumerate(parts, 1):
                    matrix[-number] = part.float().mean(0).to(matrix.dtype)
