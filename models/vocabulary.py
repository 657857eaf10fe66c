"""New tokens for a language model that never saw them."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor, nn
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


def rescaled(rows: Tensor, others: Tensor) -> Tensor:
    """Rows (N, D) scaled by one number, so that their mean length is that of the others (V, D).

    Source: Vid2Seq, the released training of VidChapters.
    """
    return rows / (rows.norm(dim=-1).mean() / others.norm(dim=-1).mean())


@torch.no_grad()
def normalise_rows(llm: nn.Module, ids: Sequence[int]) -> None:
    """Scale the rows of some tokens to the mean length of all others, in each matrix in which they learn.

    Args:
        llm: with PEFT's layers, in which rows, or whole matrices, learn.
        ids: of the tokens.
    """
    from peft.tuners.trainable_tokens.layer import TrainableTokensLayer
    from peft.utils.other import ModulesToSaveWrapper

    for layer in llm.modules():
        if isinstance(layer, TrainableTokensLayer):
            others = layer.get_base_layer().weight
            parts = [(rows, slice(None)) for rows in layer.trainable_tokens_delta.values() if rows.requires_grad]
        elif isinstance(layer, ModulesToSaveWrapper):
            others = layer.original_module.weight
            parts = [(saved.weight, list(ids)) for saved in layer.modules_to_save.values()]
        else:
            continue
        old = torch.ones(len(others), dtype=torch.bool, device=others.device)
        old[list(ids)] = False
        for rows, at in parts:
            rows[at] = rescaled(rows[at], (rows if len(rows) == len(others) else others)[old]).to(rows.dtype)


def add_tokens(
    llm: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    tokens: Sequence[str],
    init: Literal["mean", "released"] = "mean",
    copies: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Give the tokens rows in the embedding and the output matrix.

    Args:
        llm: the base model; its matrices grow to the length of the tokenizer if they are shorter.
        tokenizer: already knows the tokens.
        tokens: the new tokens, in the order in which they were added.
        init: first values of their rows. ``mean``: of all old rows. ``released`` (MeCo): where the matrices must grow,
            the i-th row from the end is the mean of the i-th part of the old rows; where they have spare rows, these
            stay as they are.
        copies: of these tokens, the words whose rows theirs are copies of.
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
            for token in copies.keys() & set(tokens):
                of = tokenizer(copies[token], add_special_tokens=False).input_ids[-1]
                matrix[tokenizer.convert_tokens_to_ids(token)] = matrix[of]
